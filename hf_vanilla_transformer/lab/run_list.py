"""A list of runs in one YAML file, read and checked whole before the first of them starts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import StrictDataclassError

from ..data.suggestions import did_you_mean
from ..data.text_files import read_lines
from ..training import VanillaTransformerTrainingArguments, read_recipe
from ..training.recipes import check_options, read_mapping, resolve_options
from ..training.report import without_secrets
from ..training.run import check_run
from .claims import Claim, check_claim, read_claim

_KEYS = ("results", "folder", "defaults", "runs")
# Keys of an entry that are no options of a run.
_ENTRY_KEYS = ("name", "recipe", "seeds", "claim")
# What a queue writes in the folder of a run, and how its first line goes on.
RECIPE, RESUMED_BY = "recipe.yaml", ": resumed by `vanilla-transformer pretrain "
_NAME = re.compile(r"\w[\w.+-]*")
# What is wrong with the options of a run, or with its files.
_ERRORS = (OSError, ValueError, TypeError, ImportError, StrictDataclassError)
# What the queue decides for all of its runs, by name, and what to do instead.
_DECIDED = {
    "resume_from_checkpoint": "the queue resumes every run that has a checkpoint; leave it out",
    "overwrite_output_dir": "the queue removes no results; remove the folder, or name another output_dir",
    "prepare_only": "the queue trains; leave it out",
    "dry_run": "the queue trains; leave it out",
}


@dataclass(frozen=True)
class QueuedRun:
    """One run of a list.

    Args:
        name: unlike that of any other run of the list.
        entry: name of the entry it comes of, which is another where the entry has several seeds.
        recipe: name or file of its recipe; None where options say everything.
        options: what the list changes of the recipe, by name; without the folder.
        where: the place of the entry, for messages.
        values: a recipe that says everything about the run.
        arguments: the same, checked.
    """

    name: str
    entry: str
    recipe: str | None
    options: dict[str, Any]
    where: str
    values: dict[str, Any] = field(repr=False)
    arguments: VanillaTransformerTrainingArguments = field(repr=False)

    @property
    def output_dir(self) -> Path:
        """The folder of the run."""
        return Path(str(self.arguments.output_dir))

    def check(self) -> None:
        """Finds what is wrong with the run as far as this can be done without reading text.

        Raises:
            ValueError: a file is missing, or something is not usable; the message says where in the list.
        """
        try:
            check_run(self.arguments)
            if self.output_dir.exists() and not self.output_dir.is_dir():
                raise NotADirectoryError(f"output_dir={self.output_dir} is a file; name a folder")
            recipe = self.output_dir / RECIPE
            if recipe.exists() and RESUMED_BY not in next(iter(read_lines(recipe)), ""):
                raise FileExistsError(f"{recipe} is not of a queue, which would replace it; name another output_dir")
        except _ERRORS as error:
            raise ValueError(f"{self.where}: {' '.join(str(error).split())}") from error


@dataclass(frozen=True)
class RunList:
    """The runs of a file, in their order.

    Args:
        path: the file.
        results: where a line is appended for every run that ends.
        runs: the runs.
        claims: what sources say of entries, by name of the entry.
    """

    path: Path
    results: Path
    runs: list[QueuedRun]
    claims: dict[str, Claim] = field(default_factory=dict)


def read_run_list(path: str | Path) -> RunList:
    """Reads a list of runs.

    A mapping of `runs`, a list of entries; `defaults`, options of all of them; `results`, the file for their results,
    which is LIST.results.jsonl beside LIST.yaml by default; and `folder`, where runs without an `output_dir` have their
    folders, by default `runs`. An entry has a `name`; a `recipe`, by name or file; `seeds`, which makes a run of each,
    and puts it in the place of `{seed}` in options that are text, such as the folder of an earlier run; a `claim`, what
    a source says of it (`read_claim`); and options of a run. Options of an entry override the defaults, and these
    override the recipe. Paths are relative to where the queue is started, as those of a recipe are.

    Args:
        path: the file.

    Returns:
        The runs, whose files may be missing.

    Raises:
        OSError: there is no such file.
        ValueError: anything else is wrong; the message names file, line, entry and value.
    """
    path = Path(path)
    root, values = read_mapping(path)
    nodes = _top_level(root, path)
    if not isinstance(values.get("runs"), list) or not values["runs"]:
        raise ValueError(f"{path}: `runs` must be a list with an entry for each run, got {values.get('runs')!r:.100}")
    defaults: dict[str, Any] = {}
    if values.get("defaults") is not None:
        if not isinstance(values["defaults"], dict):
            raise ValueError(f"{path}: `defaults` must be options of a run, got {values['defaults']!r:.100}")
        keys = ("recipe", "seeds")
        defaults = check_options(nodes["defaults"], values["defaults"], str(path), "defaults", besides=keys)
        if "output_dir" in defaults:
            raise ValueError(
                f"{path}, defaults: output_dir would be the folder of all runs; give it to a run, or to none"
            )
    results, folder = (values.get(name) for name in ("results", "folder"))
    for name, kind, value in (("results", "file", results), ("folder", "folder", folder)):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{path}: `{name}` must be the name of a {kind}, got {value!r:.100}")
    runs: list[QueuedRun] = []
    claims: dict[str, Claim] = {}
    for node, entry in zip(nodes["runs"].value, values["runs"], strict=True):
        line = f"{path}, line {node.start_mark.line + 1}"
        if not isinstance(entry, dict):
            raise ValueError(f"{line}: a run must be a mapping with a `name`, got {entry!r:.100}")
        name = _name_of(node, line)
        given = check_options(node, entry, str(path), f"run {name!r}", besides=_ENTRY_KEYS)
        try:
            runs += _runs_of(name, f"{line}, run {name!r}", folder or "runs", defaults, given)
            if "claim" in given:
                claims[name] = read_claim(given["claim"])
        except _ERRORS as error:
            raise ValueError(f"{line}, run {name!r}: {' '.join(str(error).split())}") from error
    _refuse_twins(runs, path)
    _check_claims(claims, runs)
    return RunList(path, Path(results) if results else path.with_suffix(".results.jsonl"), runs, claims)


def _top_level(root: yaml.MappingNode, path: Path) -> dict[str, Any]:
    nodes: dict[str, Any] = {}
    for key, node in root.value:
        line = f"{path}, line {key.start_mark.line + 1}"
        if key.value not in _KEYS:
            hint = did_you_mean(key.value, _KEYS) or f"; a list of runs has {', '.join(_KEYS)}"
            raise ValueError(f"{line}: unknown key {key.value!r}{hint}")
        if key.value in nodes:
            raise ValueError(f"{line}: {key.value} was given before")
        nodes[key.value] = node
    return nodes


def _name_of(node: yaml.MappingNode, line: str) -> str:
    """The name as it is written: YAML takes 010 for 8, `on` for true, and 2026-01-02 for a date."""
    given = next((value for key, value in node.value if key.value == "name"), None)
    is_text = isinstance(given, yaml.ScalarNode) and given.tag != "tag:yaml.org,2002:null"
    name = given.value if given is not None and is_text else None
    if name is None or not _NAME.fullmatch(name):
        raise ValueError(f"{line}: a run needs a `name` of letters, digits and . _ + -, got {name!r:.100}")
    return name


def _runs_of(
    entry: str, where: str, parent: str, defaults: Mapping[str, Any], given: Mapping[str, Any]
) -> list[QueuedRun]:
    """Makes the runs of an entry, one for each seed."""
    if "seed" in given and "seeds" in given:
        raise ValueError(f"seed={given['seed']} and seeds={given['seeds']} are given; leave out the one or the other")
    recipe = given.get("recipe", defaults.get("recipe"))
    if recipe is not None and not isinstance(recipe, str):
        raise ValueError(f"recipe={recipe!r} is no name or file of a recipe")
    seeds = None if "seed" in given else given.get("seeds", defaults.get("seeds"))
    if seeds is not None:
        whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
        if not whole or not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds={seeds!r} is no list of different whole numbers of at least 0")
    written = read_recipe(recipe) if recipe is not None else {}
    above, own = ({key: value for key, value in each.items() if key not in _ENTRY_KEYS} for each in (defaults, given))
    folder = own.pop("output_dir", None) or f"{parent.rstrip('/')}/{entry}"
    runs = []
    for seed in seeds or [None]:
        ending, changed = ("", {}) if seed is None else (f"-seed{seed}", {"seed": seed})
        place = {"output_dir": f"{str(folder).rstrip('/')}{ending}"}
        seeded = _with_seed(own, seed)
        arguments, values = resolve_options(written, above, {**seeded, **changed, **place})
        for name, instead in _DECIDED.items():
            if values.get(name):
                raise ValueError(f"{name}={values[name]!r} has no place in a list of runs: {instead}")
        if secrets := [name for name in values.keys() - without_secrets(values).keys() if values[name]]:
            raise ValueError(f"{secrets[0]} is a secret, which does not belong into a list; use `hf auth login`")
        options = {**above, **seeded, **changed}
        runs.append(QueuedRun(f"{entry}{ending}", entry, recipe, options, where, values, arguments))
    return runs


def _with_seed(options: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    """Puts a seed in the place of `{seed}` in options that are text."""
    named = [name for name, value in options.items() if isinstance(value, str) and "{seed}" in value]
    if named and seed is None:
        raise ValueError(f"{named[0]}={options[named[0]]!r} has {{seed}}, and the run has no seeds; give them")
    return {**options, **{name: options[name].replace("{seed}", str(seed)) for name in named}}


def _check_claims(claims: Mapping[str, Claim], runs: list[QueuedRun]) -> None:
    places = {run.entry: run.where for run in runs}
    for entry in claims:
        try:
            check_claim(entry, claims, list(places))
        except ValueError as error:
            raise ValueError(f"{places[entry]}: {error}") from error


def _refuse_twins(runs: list[QueuedRun], path: Path) -> None:
    names: dict[str, QueuedRun] = {}
    folders: dict[Path, QueuedRun] = {}
    for run in runs:
        if run.name in names:
            raise ValueError(f"{path}: two runs are named {run.name!r}; give each its own name")
        folder = run.output_dir.resolve()
        if folder in folders:
            raise ValueError(
                f"{path}: runs {folders[folder].name!r} and {run.name!r} have one output_dir, {run.output_dir}; give "
                "each its own"
            )
        names[run.name] = folders[folder] = run
