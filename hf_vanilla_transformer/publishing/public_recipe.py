"""The arguments of a run as anyone can use them: a recipe without the paths of the machine it ran on."""

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from ..data.corpora import Corpus
from ..training.arguments import VanillaTransformerTrainingArguments
from ..training.command_line import OPTION_GROUPS
from ..training.config_overrides import parse_overrides
from ..training.recipes import given_values, options_without_effect
from .results_schema import verb_of

# What is the machine's, or decides what a run shows and not what it learns.
_NOT_OF_A_RECIPE = {
    *("data_cache_dir", "dataloader_num_workers", "dataloader_pin_memory", "debug", "disable_tqdm", "logging_dir"),
    *("output_dir", "overwrite_output_dir", "preprocessing_workers", "project", "report_to", "resume_from_checkpoint"),
    *("run_name", "trackio_space_id", "use_cpu"),
}
_HUB = ("hub_", "push_to_hub")
_COLUMN, _WIDTH = 38, 120  # where comments begin, and where lines end


@dataclass(frozen=True)
class PublicPaths:
    """What folders of this machine are called where others read about them.

    Args:
        folders: pairs of a folder here and its public name, such as `/scratch/multi30k` and `data/multi30k`.
    """

    folders: tuple[tuple[str, str], ...] = ()
    _used: set[tuple[str, str]] = field(default_factory=set, init=False, repr=False, compare=False)

    @classmethod
    def parse(cls, pairs: Iterable[str]) -> "PublicPaths":
        """Reads `LOCAL=PUBLIC` each.

        Args:
            pairs: as options of a command line.

        Returns:
            The paths.

        Raises:
            ValueError: one is not of that form, or its public name is a path that only this machine has.
        """
        folders = []
        for pair in pairs:
            local, separator, public = pair.partition("=")
            if not (local and separator and public) or is_of_this_machine(public):
                raise ValueError(
                    f"{pair!r} is not of the form LOCAL=PUBLIC, with a relative path for others to use, such as "
                    "/scratch/multi30k=data/multi30k"
                )
            folders.append((local.rstrip("/"), public.rstrip("/")))
        return cls(tuple(folders))

    def to_public(self, path: str) -> str:
        """Returns what others call a path; the path itself where it is in none of the folders."""
        return self._moved(path, from_local=True)

    def to_local(self, path: str) -> str:
        """Returns where a path of others is on this machine, likewise."""
        return self._moved(path, from_local=False)

    def refuse_unused(self) -> None:
        """Refuses pairs of which no path has been in either folder, for a name was mistyped then.

        Raises:
            ValueError: there are some; the message has all of them.
        """
        unused = [f"{local}={public}" for local, public in self.folders if (local, public) not in self._used]
        if unused:
            raise ValueError(
                f"--data {' '.join(unused)}: no text of the runs is in the first folder, and none of the card in the "
                "second; correct the names, or leave it out"
            )

    def _moved(self, path: str, from_local: bool) -> str:
        for pair in self.folders:
            old, new = pair if from_local else pair[::-1]
            if path == old or path.startswith(f"{old}/"):
                self._used.add(pair)
                return new + path[len(old) :]
        return path


def is_of_this_machine(path: str) -> bool:
    """Returns whether a path is absolute or leads out of the folder in which it is used.

    Args:
        path: any text; what is no path leads nowhere.
    """
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return (
        PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute() or parts[:1] == ("~",) or ".." in parts
    )


def public_arguments(arguments: Mapping[str, Any], paths: PublicPaths) -> dict[str, Any]:
    """Picks from the arguments of a run those that decide what it learns, with paths that others can use.

    Args:
        arguments: as results.json of the run has them.
        paths: what folders are called.

    Returns:
        Values by name, ready for JSON and for a recipe. What transformers or this package derive from other values is
        left out, for they do it again.

    Raises:
        ValueError: a value has a path that only this machine has.
    """
    known = {field.name for field in fields(VanillaTransformerTrainingArguments) if field.init}
    values: dict[str, Any] = {}
    for name, value in arguments.items():
        is_old_name = name == "gradient_checkpointing" and "activation_checkpointing" in arguments
        if name in known and name not in _NOT_OF_A_RECIPE and not name.startswith(_HUB) and not is_old_name:
            values[name] = _public(name, value, paths)
    for name, value in values.items():
        if found := [text for text in _texts(value) if is_of_this_machine(text)]:
            raise ValueError(
                f"{name} of the run is {found[0]}, a path that others do not have; say what to call its folder: "
                f"--data {Path(found[0]).parent}=data/NAME"
            )
    if "config_overrides" in values:
        values["config_overrides"] = parse_overrides(values["config_overrides"], None)
    # Without validation text a run has turned eval_strategy off, and eval_steps would be refused.
    run = VanillaTransformerTrainingArguments(**{**values, "output_dir": "runs/any", "use_cpu": True})
    values = {name: value for name, value in values.items() if name not in options_without_effect(run, values)}
    # The seed is what runs of one recipe differ in: said even where it is the default.
    return {**_without_derived(values), "seed": values.get("seed", VanillaTransformerTrainingArguments.seed)}


def recipe_text(arguments: Mapping[str, Any], name: str) -> str:
    """Writes a recipe with a comment beside each key.

    Args:
        arguments: as `public_arguments` returns them.
        name: of the checkpoint; `output_dir` is named after it.

    Returns:
        YAML that `read_recipe` reads.
    """
    values = {**arguments, "output_dir": f"runs/{name}"}
    lines = [f"# The run that {name} is the model of.", f"#   vanilla-transformer {verb_of(values)} recipe.yaml"]
    written: set[str] = set()
    helps = {field.name: str(field.metadata.get("help", "")) for field in fields(VanillaTransformerTrainingArguments)}
    groups = {title: dict(group) for title, group in OPTION_GROUPS.items()}
    groups["more"] = {key: None for key in values if not any(key in group for group in groups.values())}
    for title, group in groups.items():
        chosen = [key for key in group if key in values and key not in written]
        if chosen:
            lines += ["", f"# {title.capitalize()}."]
        for key in chosen:
            lines += _with_comment(key, values[key], group[key] or helps[key])
            written.add(key)
    return "\n".join(lines) + "\n"


def _public(name: str, value: Any, paths: PublicPaths) -> Any:
    if name in ("train_data", "validation_data"):
        return [_public_corpus(Corpus.parse(each), paths) for each in value]
    if isinstance(value, list):  # such as distill_from
        return [_public(name, each, paths) for each in value]
    return paths.to_public(value) if isinstance(value, str) else value


def _public_corpus(corpus: Corpus, paths: PublicPaths) -> dict[str, Any]:
    values = {each.name: getattr(corpus, each.name) for each in fields(Corpus)}
    given = {each.name: values[each.name] for each in fields(Corpus) if values[each.name] != each.default}
    return {key: paths.to_public(value) if isinstance(value, str) else value for key, value in given.items()}


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list | tuple):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def _without_derived(values: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what a run has without being told, one value after the other: each may follow from another."""
    target = _given(values)
    for name in list(values):
        fewer = {key: value for key, value in values.items() if key != name}
        try:
            if _given(fewer) == target:
                values = fewer
        except ValueError:  # the others need it
            continue
    return values


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return given_values(VanillaTransformerTrainingArguments(**{**values, "output_dir": "runs/any", "use_cpu": True}))


def _with_comment(key: str, value: Any, text: str) -> list[str]:
    written = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=1000).rstrip()
    first, *rest = written.splitlines()
    beginning = f"{first.ljust(_COLUMN - 1)} "
    comment = _beginning(text.replace("%%", "%"), _WIDTH - len(beginning) - 2)
    # Comments of nested keys would say less than the names of the keys.
    return [f"{beginning}# {comment}" if comment else first, *rest]


def _beginning(text: str, width: int) -> str:
    """As many clauses of a text as fit."""
    clauses = re.split(r"(?<=[.;:,])\s+", " ".join(text.split()))
    fitting = [" ".join(clauses[:count]) for count in range(len(clauses), 0, -1)]
    whole = next((each for each in fitting if len(each) <= width), "")
    return whole.rstrip(";:,") or textwrap.shorten(text, width, placeholder=" ...")
