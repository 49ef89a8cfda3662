"""The presets of a new model: those of the Transformer, and those of the recurrent models that it is compared with."""

from typing import Any

from ..configuration_vanilla_transformer import PRESETS, VanillaTransformerConfig
from ..data.suggestions import did_you_mean
from ..lab.recurrent import RecurrentForConditionalGeneration
from ..lab.recurrent_configuration import RECURRENT_PRESETS, RecurrentConfig
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration

ConfigClass = type[VanillaTransformerConfig] | type[RecurrentConfig]

# What a run can train.
TRAINABLE = (VanillaTransformerForConditionalGeneration, RecurrentForConditionalGeneration)


def config_class_of(preset: str) -> ConfigClass:
    """Finds out what kind of model a preset is of.

    Args:
        preset: such as "tiny" or "recurrent_additive".

    Returns:
        The class of its configuration, which has `from_preset`.

    Raises:
        ValueError: there is no such preset; the message lists all.
    """
    known = [*PRESETS, *RECURRENT_PRESETS]
    if preset not in known:
        hint = did_you_mean(preset, known).removesuffix("?")
        raise ValueError(f"there is no preset {preset!r}{hint}; allowed: {', '.join(known)}")
    return VanillaTransformerConfig if preset in PRESETS else RecurrentConfig


def new_model(config: Any) -> Any:
    """Builds a model of the kind that a configuration is of.

    Args:
        config: a `VanillaTransformerConfig` or a `RecurrentConfig`.

    Returns:
        The model, with its initial weights.
    """
    if isinstance(config, RecurrentConfig):
        return RecurrentForConditionalGeneration(config)
    return VanillaTransformerForConditionalGeneration(config)
