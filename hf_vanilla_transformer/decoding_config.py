"""§6.1 "hyperparameters": what a `generation_config` says about the length penalty and the limit of length."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import GenerationConfig

# The paper decodes at most this many tokens more than the source has (§6.1).
MAX_EXTRA_TOKENS = 50

# What the `generation_config` of a new model says. The last two are fields of ours.
PAPER_DECODING: dict[str, Any] = {
    "num_beams": 4,
    "gnmt_length_penalty": 0.6,
    "max_extra_tokens": MAX_EXTRA_TOKENS,
}
# Each of our fields, and those of transformers that outrank it where they are said in the same place.
OUTRANKED_BY = {"gnmt_length_penalty": ("length_penalty",), "max_extra_tokens": ("max_new_tokens", "max_length")}


class PaperGenerationConfig(GenerationConfig):
    """§6.1: a `generation_config` that knows which of its values somebody chose.

    `Seq2SeqTrainer` fills what is unset in a model's `generation_config` with defaults of transformers, `max_length` 20
    and `length_penalty` 1 among them. Here these count for nothing: they do not shorten translations, do not replace
    the penalty of the paper, and are not saved.
    """

    def update(self, defaults_only: bool = False, allow_custom_entries: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Sets several fields, as in transformers.

        Args:
            defaults_only: whether the values are mere defaults, for what is unset.
            allow_custom_entries: whether to add fields that there are not.
            **kwargs: the values.

        Returns:
            Those that were not used.
        """
        unset = {name for name in kwargs if getattr(self, name, None) is None}
        unused = super().update(defaults_only=defaults_only, allow_custom_entries=allow_custom_entries, **kwargs)
        if defaults_only:
            filled_in = {*self._filled_in_fields(), *(name for name in unset if name not in unused)}
            self.__dict__["_filled_in"] = sorted(filled_in)
        return unused

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in self._filled_in_fields():  # now somebody has chosen it
            self.__dict__["_filled_in"] = [field for field in self._filled_in_fields() if field != name]

    def to_dict(self) -> dict[str, Any]:
        """The values that somebody chose; None stands for all others."""
        filled_in = self._filled_in_fields()
        values = super().to_dict()
        values.pop("_filled_in", None)
        return {name: None if name in filled_in else value for name, value in values.items()}

    def _filled_in_fields(self) -> list[str]:
        return self.__dict__.get("_filled_in", [])


def chosen_values(config: GenerationConfig | None) -> dict[str, Any]:
    """What a `generation_config` says, without what nobody chose.

    Args:
        config: any, or None.

    Returns:
        Values by name. Our own fields are there wherever the config has them, for None turns them off.
    """
    values = {} if config is None else config.to_dict()
    return {name: value for name, value in values.items() if value is not None or name in OUTRANKED_BY}


def settled(field: str, places: Sequence[Mapping[str, Any]]) -> tuple[Any, list[str]]:
    """The value of one of our fields: that of the first place that says anything about it or about what outranks it.

    Args:
        field: a key of `OUTRANKED_BY`.
        places: values by name; those that count most first. The first are the arguments of a call, where None hides
            what later places say.

    Returns:
        The value, None where it is off or outranked; and which of the fields that outrank it are said where it counts.

    Raises:
        ValueError: a call asks for two length penalties.
    """
    # The first place that mentions a name decides about it, and None there takes it back.
    mentions = {
        name: next((index for index, place in enumerate(places) if name in place), -1)
        for name in (field, *OUTRANKED_BY[field])
    }
    said = {name: index for name, index in mentions.items() if index >= 0 and places[index][name] is not None}
    rivals = [name for name in OUTRANKED_BY[field] if name in said]
    if field not in said:
        return None, rivals
    place = said[field]
    that_count = [name for name in rivals if said[name] <= place]
    if that_count and place > 0:
        return None, rivals
    value = places[place][field]
    if that_count and field == "gnmt_length_penalty":
        raise ValueError(
            f"`gnmt_length_penalty`={value!r} and `length_penalty`={places[place]['length_penalty']!r} are two "
            "penalties for one search; give one of them"
        )
    return value, that_count


def check_own_fields(config: GenerationConfig) -> None:
    """Refuses values of our fields that make no sense.

    Args:
        config: a prepared `generation_config`, which has them.

    Raises:
        ValueError: with the field, its value, and what is allowed.
    """
    extra = config.max_extra_tokens
    if extra is not None and (not isinstance(extra, int) or isinstance(extra, bool) or extra < 0):
        raise ValueError(f"`max_extra_tokens`={extra!r} is not allowed; allowed: an integer of at least 0, or None")
    alpha = config.gnmt_length_penalty
    is_number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if alpha is not None and not (is_number and math.isfinite(alpha)):
        raise ValueError(f"`gnmt_length_penalty`={alpha!r} is not allowed; allowed: a finite number, or None")
