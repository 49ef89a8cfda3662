"""CARD.yaml: what people write about a checkpoint; all numbers come from its runs."""

import math
import re
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from ..data.corpora import Corpus
from ..data.suggestions import did_you_mean
from ..data.text_files import read_lines
from ..evaluation.scores import METRICS

Role = Literal["validation", "test"]


@dataclass(frozen=True)
class PublishedScore:
    """A figure from elsewhere, to stand beside ours.

    Args:
        system: what was scored.
        metric: `bleu` and so on.
        value: as published.
        scoring: `cased` or `moses_lowercase`: figures of one kind stand in one table.
        source: where it was published.
        by_text: its figures on single texts of a test set, such as languages, by name.
    """

    system: str
    metric: str
    value: float
    scoring: str
    source: str
    by_text: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CardTestSet:
    """A text, or several that are averaged, that the checkpoint is scored on.

    Args:
        name: such as `test_2016_flickr`; its outputs are `outputs/NAME.txt`.
        title: for people.
        role: `validation`, on which everything was chosen, or `test`, which is scored for the release only.
        texts: by name, a corpus each, as recipes write it, by paths that the card may show. Scores are averages over
            texts, such as languages; and the card has a table of them.
        metrics: names of `evaluation.METRICS`, but for `paper_bleu`, which is of tokenised text.
        dataset: its name on the Hub, if it is there.
        split: its split there.
        moses_lowercase: language by which it is scored a second time, lowercased and tokenised by Moses; None if it is
            scored as it is only.
        published: figures of other systems on it.
    """

    name: str
    title: str
    role: Role
    texts: dict[str, dict[str, str]]
    metrics: list[str] = field(default_factory=lambda: ["bleu", "chrf"])
    dataset: str | None = None
    split: str | None = None
    moses_lowercase: str | None = None
    published: list[PublishedScore] = field(default_factory=list)


@dataclass(frozen=True)
class CardFile:
    """What CARD.yaml holds. Texts are Markdown.

    Args:
        title: heading of the card.
        languages: their codes, source first, target last.
        license: by the Hub's short name; `other` needs the next two.
        summary: what it is, in a paragraph.
        intended_use: what it is for, and what it is not.
        training_data: what it learned from, and under which licence that is.
        limits: where it fails.
        inputs: sentences whose translations the card shows.
        test_sets: what it is scored on.
        license_name: of a licence that the Hub does not know.
        license_link: where that is.
        datasets: training data, by their names on the Hub.
        tags: for the Hub's search, besides those of the package.
        pipeline_tag: the Hub's task.
        repo_id: its name on the Hub; None for one to be filled in.
        hardware: what the runs were computed on, for runs that do not say so themselves.
        energy: what was measured; None says that nothing was.
        begins_with: how the model was made that the runs began with, or learned from, where others do not have it.
    """

    title: str
    languages: list[str]
    license: str
    summary: str
    intended_use: str
    training_data: str
    limits: str
    inputs: list[str]
    test_sets: list[CardTestSet]
    license_name: str | None = None
    license_link: str | None = None
    datasets: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    pipeline_tag: str = "translation"
    repo_id: str | None = None
    hardware: str | None = None
    energy: str | None = None
    begins_with: str | None = None


def read_card(path: str | Path) -> CardFile:
    """Reads a CARD.yaml, and refuses what a card cannot use.

    Args:
        path: the file.

    Returns:
        Its values.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no YAML, a key is unknown, missing or there twice, a value is not of its kind, or values do
            not fit together; the message names file and line.
    """
    text = "\n".join(read_lines(path))
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if root is None:
        raise ValueError(f"{path} is empty; `vanilla-transformer release --help` shows what belongs into it")
    card = _read(root, CardFile, str(path))
    if (card.license == "other") != bool(card.license_name and card.license_link):
        raise ValueError(f"{path}: license_name and license_link belong to `license: other`, which needs both")
    for test_set in card.test_sets:
        _check_test_set(test_set, str(path))
    names = [each.name for each in card.test_sets]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{path}: test_sets need a name each, no two of them the same; got {names}")
    outputs = [
        f"{each.name}.{text}" if len(each.texts) > 1 else each.name for each in card.test_sets for text in each.texts
    ]
    if twice := [name for number, name in enumerate(outputs) if name in outputs[:number]]:
        raise ValueError(f"{path}: two texts would have their outputs in outputs/{twice[0]}.txt; rename a test set")
    places = [(each.dataset, each.split) for each in card.test_sets]
    if same := [place for number, place in enumerate(places) if place in places[:number]]:
        # The Hub knows scores by these two, and would show those of one test set as those of another.
        raise ValueError(
            f"{path}: two test sets have dataset {same[0][0]!r} and split {same[0][1]!r}, by which the Hub tells their "
            "scores apart; give each a `split` of its own, such as validation and test"
        )
    return card


def _check_test_set(test_set: CardTestSet, path: str) -> None:
    where = f"{path}: {test_set.name}"
    if not re.fullmatch(r"[\w.-]+", test_set.name) or not test_set.texts or not test_set.metrics:
        raise ValueError(f"{where}: a test set has a name that a file can have, at least one text and one metric")
    for name, text in test_set.texts.items():
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"{where}: its text {name!r} has no name that a file can have")
        try:
            Corpus.parse(text)
        except ValueError as error:
            raise ValueError(f"{where}, text {name}: {error}") from error
    if unknown := [name for name in test_set.metrics if name not in METRICS]:
        raise ValueError(f"{where}: unknown metric {unknown[0]!r}{did_you_mean(unknown[0], METRICS)}")
    if "paper_bleu" in test_set.metrics:
        raise ValueError(
            f"{where}: the metric paper_bleu is of tokenised text, which a release does not have; leave it out, or "
            "compute it by `vanilla-transformer evaluate --paper_bleu`"
        )
    scorings = ["cased", *(["moses_lowercase"] if test_set.moses_lowercase else [])]
    for score in test_set.published:
        if score.scoring not in scorings or score.metric not in test_set.metrics:
            raise ValueError(
                f"{where}: the published {score.metric} by {score.scoring} has nothing beside it; the metrics are "
                f"{', '.join(test_set.metrics)}, by {' and '.join(scorings)}"
            )
        if unknown := [name for name in score.by_text if name not in test_set.texts]:
            raise ValueError(f"{where}: {score.system} has a figure of {unknown[0]!r}, which is none of the texts")


def _read(node: yaml.Node, kind: Any, path: str) -> Any:
    """Turns a part of a YAML file into a value of a type: a dataclass, a list, one of several words, text, a number."""
    where = f"{path}, line {node.start_mark.line + 1}"
    if is_dataclass(kind):
        return _read_dataclass(node, kind, path)
    if get_origin(kind) is list:
        if not isinstance(node, yaml.SequenceNode):
            raise ValueError(f"{where}: expected a list, such as [a, b]")
        return [_read(each, get_args(kind)[0], path) for each in node.value]
    if get_origin(kind) is dict:
        return {name: _read(value, get_args(kind)[1], path) for name, value in _items(node, path)}
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"{where}: expected one value, not a list or mapping")
    if get_origin(kind) is Literal:
        if node.value not in get_args(kind):
            raise ValueError(f"{where}: {node.value!r} is none of {', '.join(get_args(kind))}")
        return node.value
    if kind is float:
        try:
            number = float(node.value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{where}: expected a number, got {node.value!r}")
        return number
    if node.tag == "tag:yaml.org,2002:null":
        if NoneType in get_args(kind):
            return None
        raise ValueError(f"{where}: expected text, got nothing")
    return node.value.strip()  # whatever YAML takes it for: `no` is Norwegian


def _read_dataclass(node: yaml.Node, kind: Any, path: str) -> Any:
    where = f"{path}, line {node.start_mark.line + 1}"
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in _items(node, path):
        if name not in hints:
            raise ValueError(
                f"{path}, line {value.start_mark.line + 1}: unknown key {name!r}{did_you_mean(name, hints)}"
            )
        values[name] = _read(value, hints[name], path)
    required = [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]
    if missing := [name for name in required if name not in values]:
        raise ValueError(f"{where}: {', '.join(missing)} missing, without which a card is not complete")
    return kind(**values)


def _items(node: yaml.Node, path: str) -> list[tuple[str, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        raise ValueError(f"{path}, line {node.start_mark.line + 1}: expected `key: value` lines")
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen:
            raise ValueError(f"{path}, line {key.start_mark.line + 1}: {key.value} was given before")
        seen.add(key.value)
    return [(key.value, value) for key, value in node.value]
