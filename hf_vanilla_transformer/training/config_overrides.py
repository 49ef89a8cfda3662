"""Fields of a model's configuration as they are written on a command line or in a recipe."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from transformers import PreTrainedConfig

from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..data.suggestions import did_you_mean

# What YAML calls them; Python's own names are literals.
_WORDS = {"true": True, "false": False, "null": None}


def parse_overrides(
    overrides: Sequence[Any] | Mapping[str, Any],
    config_class: type[PreTrainedConfig] | None = VanillaTransformerConfig,
) -> dict[str, Any]:
    """Reads `["dropout=0.2", "norm_position=pre"]` as the keyword arguments of a config.

    Args:
        overrides: NAME=VALUE each, the value a Python literal, or true, false or null, or else a string; or, in
            recipes, mappings.
        config_class: whose fields they are; None takes any name.

    Returns:
        Values by name.

    Raises:
        ValueError: one has no "=", or the name of no field of the config.
    """
    values: dict[str, Any] = {}
    for override in [overrides] if isinstance(overrides, Mapping) else overrides:
        if isinstance(override, Mapping):
            values |= override
            continue
        name, separator, text = override.partition("=")
        if not separator:
            raise ValueError(f"{override!r} is not of the form NAME=VALUE, such as norm_position=pre")
        values[name] = _value(text)
    if config_class is None:
        return values
    known = {field.name for field in fields(config_class) if field.init} | set(config_class.attribute_map)
    for name in values:
        if name not in known:
            raise ValueError(f"the configuration has no field {name!r}{did_you_mean(name, known)}")
    return values


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
