"""A run as a file: YAML whose keys are the training arguments, found by name or path, and flags that override it."""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

import yaml
from transformers.trainer_pt_utils import AcceleratorConfig

from ..data.suggestions import did_you_mean
from ..data.text_files import read_lines
from .arguments import VanillaTransformerTrainingArguments
from .command_line import RunParser
from .objectives import WITH_NOISE, WITH_SPANS
from .refused_options import REFUSED

RECIPES = Path(__file__).parents[1] / "recipes"

_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}

# What is given here decides what would otherwise come of the options behind it.
_DECIDES = {
    "model_name_or_path": ("preset", "model_class", "vocab_size", "num_sentinels"),
    "tokenizer_name_or_path": ("vocab_size", "num_sentinels"),
    "init_encoder_from": ("vocab_size", "num_sentinels"),
    "init_decoder_from": ("vocab_size", "num_sentinels"),
    "distill_from": ("vocab_size", "num_sentinels"),
}
# What does nothing where there is no validation text.
_OF_EVALUATION = ("eval_strategy", "eval_steps", "validation_metrics", "metric_for_best_model")
# What does nothing unless another option has this value; None: any that is not false.
_NEEDS: tuple[tuple[str, str, str | None], ...] = (
    ("noise_density", "objective", " or ".join(WITH_NOISE)),
    ("mean_span_length", "objective", " or ".join(WITH_SPANS)),
    ("denoising_steps", "objective", "denoising"),
    ("shuffle_buffer", "streaming", None),
    ("lora_modules", "lora_rank", None),
    ("continue_schedule", "model_name_or_path", None),
    ("distill_share", "distill_from", None),
    ("average_last", "final_weights", "average"),
    ("keep_worse_average", "final_weights", "average or ema"),
    ("ema_decay", "final_weights", "ema"),
    ("eval_steps", "eval_strategy", "steps"),
    ("save_steps", "save_strategy", "steps"),
    *((name, "validation_data", None) for name in _OF_EVALUATION),
)


class _WithoutDates(yaml.SafeLoader):
    """Takes 2026-01-02 for text: no option is a date, and JSON, as which a run is noted, has none."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def recipe_names() -> list[str]:
    """Lists the recipes that come with the package, by name."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name_or_path: str | Path) -> Path:
    """Finds a recipe: a file if there is one of this name, else one of those that come with the package.

    Args:
        name_or_path: such as `multi30k-en-de-tiny`, or `mine/recipe.yaml`.

    Returns:
        The file.

    Raises:
        FileNotFoundError: there is neither; the message lists the names.
    """
    path, names = Path(name_or_path), recipe_names()
    if path.exists() and not path.is_dir():
        return path
    if str(name_or_path) in names:
        return RECIPES / f"{name_or_path}.yaml"
    hint = did_you_mean(path.name.removesuffix(".yaml"), names).removesuffix("?")
    raise FileNotFoundError(
        f"there is no file and no recipe {str(name_or_path)!r}{hint}; the recipes are {', '.join(names)}"
    )


def read_recipe(name_or_path: str | Path) -> dict[str, Any]:
    """Reads a recipe, and refuses what is no option of a run.

    Args:
        name_or_path: as for `find_recipe`; a mapping of `VanillaTransformerTrainingArguments`' fields.

    Returns:
        Its values by name.

    Raises:
        FileNotFoundError: there is no such recipe.
        ValueError: it is no mapping, a key is unknown or there twice, or a value is not of its type; the message
            names file and line.
    """
    path = find_recipe(name_or_path)
    return check_options(*read_mapping(path), str(path))


def read_mapping(path: str | Path) -> tuple[yaml.MappingNode, dict[Any, Any]]:
    """Reads a YAML file of `key: value` lines.

    Args:
        path: the file.

    Returns:
        The mapping as nodes, which know their lines, and its values.

    Raises:
        OSError: there is no such file.
        ValueError: it is no YAML, or no mapping.
    """
    text = "\n".join(read_lines(path))
    try:
        root = yaml.compose(text, Loader=_WithoutDates)
        values = yaml.load(text, Loader=_WithoutDates)  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: of a number that is none, such as !!int x
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or root is None:
        raise ValueError(f"{path}: expected `key: value` lines, got {values!r:.100}")
    return root, values


def check_options(
    node: yaml.MappingNode, values: Mapping[Any, Any], path: str, owner: str = "", besides: Collection[str] = ()
) -> dict[str, Any]:
    """Refuses what is no option of a run, and reads values as their options mean them.

    Args:
        node: a mapping of a YAML file, as nodes.
        values: the same as values.
        path: its file, for messages.
        owner: whose mapping it is, for messages, such as `run 'base'`; empty for the file's own.
        besides: keys that may be there too, and are none of a run.

    Returns:
        The values by name.

    Raises:
        ValueError: a key is unknown or there twice, or a value is not of its type; the message names file and line.
    """
    names = {field.name for field in fields(VanillaTransformerTrainingArguments) if field.init}
    hints = get_type_hints(VanillaTransformerTrainingArguments)
    checked: dict[str, Any] = {}
    for key, value_node in node.value:
        where = f"{path}, line {key.start_mark.line + 1}" + (f", {owner}" if owner else "")
        if key.value not in names and key.value not in besides:
            instead = REFUSED.get(str(key.value))
            hint = f": {instead[1]}" if instead else did_you_mean(key.value, {*names, *besides})
            raise ValueError(f"{where}: unknown option {key.value!r}{hint}")
        if key.value in checked:
            raise ValueError(f"{where}: {key.value} was given before")
        _refuse_keys_twice(value_node, path)
        value = values[key.value]
        if key.value in names:
            hint = hints[key.value]
            value = _converted(_as_written(value, value_node, hint), hint, f"{where}: {key.value}")
        checked[key.value] = value
    return checked


def parse_arguments(
    argv: Sequence[str] | None = None,
    description: str | None = None,
    epilog: str | None = None,
    prog: str | None = None,
) -> VanillaTransformerTrainingArguments:
    """Reads a command line: an optional recipe first, then flags, which override it.

    Args:
        argv: the words after the program's name; None for those of this process.
        description: what `--help` begins with.
        epilog: what `--help` ends with.
        prog: what to call the program; None for its file name.

    Returns:
        The arguments of the run.

    Raises:
        ValueError: as `read_recipe`; there is no `output_dir`; or values do not fit together.
        SystemExit: a flag is unknown or its value of the wrong kind, or help was asked for.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    recipe: dict[str, Any] = {}
    if words and not words[0].startswith("-"):
        recipe = read_recipe(words.pop(0))
    about = (
        f"RECIPE is a YAML file of these options, or a name; options override it.\nNames: {', '.join(recipe_names())}"
    )
    flags = RunParser(recipe, prog, f"{(description or '').rstrip()}\n{about}", epilog).given(words)
    return resolve_options(recipe, flags)[0]


def resolve_options(
    recipe: Mapping[str, Any], *overrides: Mapping[str, Any]
) -> tuple[VanillaTransformerTrainingArguments, dict[str, Any]]:
    """Puts options over a recipe, and refuses what would have no effect.

    An option overrides what the recipe says about the same matter: `model_name_or_path` the preset of a recipe.

    Args:
        recipe: values by name, as `read_recipe` returns them.
        *overrides: options by name, each mapping over those before it.

    Returns:
        The arguments of the run; and what a recipe that stands alone would have to say: the values without those that
        the options made void.

    Raises:
        ValueError: there is no `output_dir`; an option would have no effect; or values do not fit together.
    """
    values = dict(recipe)
    for each in overrides:
        values = _settled(values, dict(each))
    if not values.get("output_dir"):
        raise ValueError("output_dir is needed: the folder that the run is written to, such as --output_dir runs/mine")
    args = VanillaTransformerTrainingArguments(**values)
    if void := _without_effect(args, recipe, *overrides):
        values = {name: value for name, value in values.items() if name not in void}
        args = VanillaTransformerTrainingArguments(**values)
    return args, values


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


def options_without_effect(args: VanillaTransformerTrainingArguments, given: Mapping[str, Any]) -> set[str]:
    """Finds options of a run that do nothing because another, which they need, is off.

    Args:
        args: the run.
        given: its options by name.

    Returns:
        Names of `given`.
    """
    return {option for option, _, _ in _unmet_needs(args, given)}


def refuse_evaluation_without_text(args: VanillaTransformerTrainingArguments) -> None:
    """Refuses options of evaluation where there is nothing to evaluate on.

    Args:
        args: a run without validation text.

    Raises:
        ValueError: it says when, or by what, to evaluate; the message names the options.
    """
    given = {name: value for name, value in given_values(args).items() if name in _OF_EVALUATION}
    if names := sorted(options_without_effect(args, given)):
        verb = "has" if len(names) == 1 else "have"
        raise ValueError(
            f"{' and '.join(names)} {verb} no effect without validation_data; give that too, or leave it out"
        )


def _without_effect(args: VanillaTransformerTrainingArguments, *layers: Mapping[str, Any]) -> set[str]:
    """Finds options that do nothing because a layer over them has turned off what they belong to; refuses others."""
    void, levels = set(), {name: level for level, layer in enumerate(layers) for name in layer}
    for option, other, value in _unmet_needs(args, levels):
        if levels[option] >= levels.get(other, 0):
            needed = other if value is None else f"{other}={value}"
            raise ValueError(f"{option} has no effect without {needed}; give that too, or leave it out")
        void.add(option)
    return void


def _unmet_needs(
    args: VanillaTransformerTrainingArguments, names: Collection[str]
) -> Iterator[tuple[str, str, str | None]]:
    """Finds those of `_NEEDS` whose option is among the names, and whose other option is off."""
    for option, other, value in _NEEDS:
        given = getattr(args, other)
        active = bool(given) if value is None else str(getattr(given, "value", given)) in value.split(" or ")
        if option in names and not active and (option, getattr(args, option)) != ("eval_strategy", "no"):
            yield option, other, value


def _settled(recipe: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """Puts flags over the recipe, and refuses what a model or tokenizer that is given makes void."""
    values = recipe | flags
    for decides, others in _DECIDES.items():
        if values.get(decides) is None:
            continue
        # What stands where `decides` stands, or overrides it.
        rivals = flags if decides in flags else values
        if void := [name for name in others if name in rivals]:
            raise ValueError(
                f"{' and '.join(void)} would have no effect: {decides}={values[decides]} brings its own; "
                "leave out the one or the other"
            )
        values = {name: value for name, value in values.items() if name not in others}
    return values


def _refuse_keys_twice(node: yaml.Node, path: str) -> None:
    """Refuses a key that is there twice in a value, such as a field of config_overrides: YAML takes the last one."""
    waiting, seen = [node], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):  # what an alias repeats was looked at
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [key for key, _ in node.value]
            names = [key.value for key in keys]
            for number, key in enumerate(keys):
                if key.value in names[:number]:
                    raise ValueError(f"{path}, line {key.start_mark.line + 1}: {key.value} was given before")
            waiting += [value for _, value in node.value]
        else:
            waiting += node.value


def _as_written(value: Any, node: yaml.Node, hint: Any) -> Any:
    """The word itself where YAML 1.1 takes `no`, `off` or `on` for a boolean, and the option is text."""
    kinds = set(_kinds(hint))
    if isinstance(value, bool) and str in kinds and bool not in kinds and node.value.lower() not in ("true", "false"):
        return node.value.lower()
    return value


def _kinds(hint: Any) -> Iterator[Any]:
    yield from get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _converted(value: Any, hint: Any, where: str) -> Any:
    """Makes numbers of what YAML takes for text, such as 5e-3, and refuses what is none."""
    kinds = list(_kinds(hint))
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
