"""A run as a file: YAML whose keys are the training arguments, and flags that override it."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser
from transformers.trainer_pt_utils import AcceleratorConfig

from ..data.text_files import read_lines
from .arguments import VanillaTransformerTrainingArguments

_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Reads a recipe, and refuses what is no argument of a run.

    Args:
        path: a YAML file, a mapping of `VanillaTransformerTrainingArguments`' fields.

    Returns:
        Its values by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no mapping, a key is unknown or there twice, or a value is not of its type; the message
            names file and line.
    """
    text = "\n".join(read_lines(path))
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(values, dict) or root is None:
        raise ValueError(f"{path}: expected `key: value` lines, got {values!r:.100}")
    names = {field.name for field in fields(VanillaTransformerTrainingArguments) if field.init}
    hints = get_type_hints(VanillaTransformerTrainingArguments)
    seen: set[str] = set()
    for key, _ in root.value:
        where = f"{path}, line {key.start_mark.line + 1}"
        if key.value not in names:
            close = difflib.get_close_matches(key.value, names, n=1)
            raise ValueError(
                f"{where}: {key.value!r} is no argument" + (f"; did you mean {close[0]}?" if close else "")
            )
        if key.value in seen:
            raise ValueError(f"{where}: {key.value} was given before")
        seen.add(key.value)
        values[key.value] = _converted(values[key.value], hints[key.value], f"{where}: {key.value}")
    return values


def parse_arguments(
    argv: Sequence[str] | None = None, description: str | None = None, epilog: str | None = None
) -> VanillaTransformerTrainingArguments:
    """Reads a command line: an optional recipe first, then flags, which override it.

    Args:
        argv: the words after the program's name; None for those of this process.
        description: what `--help` begins with.
        epilog: what `--help` ends with.

    Returns:
        The arguments of the run.

    Raises:
        ValueError: as `read_recipe`, or values that do not fit together.
        SystemExit: a flag is unknown, or help was asked for.
    """
    parser = HfArgumentParser(
        VanillaTransformerTrainingArguments,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "recipe", nargs="?", help="A YAML file of the options below; comes first, and flags override it."
    )
    words = sys.argv[1:] if argv is None else list(argv)
    comes_first = bool(words) and not words[0].startswith("-")
    if comes_first:  # before flags are read, for they override it
        parser.set_defaults(**read_recipe(words[0]))
    values = vars(parser.parse_args(words))
    if values.pop("recipe") is not None and not comes_first:
        parser.error("the recipe comes first, before all flags")
    return VanillaTransformerTrainingArguments(**values)


def given_values(args: VanillaTransformerTrainingArguments) -> dict[str, Any]:
    """What of a run's arguments differs from the defaults: what one has to write down to repeat it.

    Args:
        args: the run.

    Returns:
        Values by name, ready for JSON.
    """
    values = {}
    for field in fields(args):
        value = getattr(args, field.name)
        if isinstance(value, AcceleratorConfig):  # what transformers makes of None
            value = None if value == AcceleratorConfig() else value.to_dict()
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if field.init and not field.name.startswith("_") and value != default:
            plain = isinstance(value, str | int | float | bool | list | dict | None)
            values[field.name] = value if plain else str(getattr(value, "value", value))
    return values


def _converted(value: Any, hint: Any, where: str) -> Any:
    """Makes numbers of what YAML takes for text, such as 5e-3, and refuses what is none."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kind, *others = [each for each in kinds if each is not NoneType]
    if others or kind not in _KINDS or (value is None and NoneType in kinds):
        return value
    if kind is bool:
        fits = isinstance(value, bool)
    else:
        fits = isinstance(value, str | int | float) and not isinstance(value, bool)
    try:
        if fits and not (kind is int and isinstance(value, float)):
            return kind(value)
    except ValueError:
        pass
    raise ValueError(f"{where}: expected {_KINDS[kind]}, got {value!r:.100}")
