"""§6.1 "hyperparameters": the length penalty and the length limit in a `generation_config`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig

# The paper decodes at most this many tokens more than the source has (§6.1).
MAX_EXTRA_TOKENS = 50

# The `generation_config` of a new model. The last two are our own fields.
PAPER_DECODING: dict[str, Any] = {
    "num_beams": 4,
    "gnmt_length_penalty": 0.6,
    "max_extra_tokens": MAX_EXTRA_TOKENS,
}
# Our fields, each with the fields of transformers that outrank it if set in the same place.
OUTRANKED_BY = {"gnmt_length_penalty": ("length_penalty",), "max_extra_tokens": ("max_new_tokens", "max_length")}


class PaperGenerationConfig(GenerationConfig):
    """§6.1: a `generation_config` that tells chosen values from filled-in defaults.

    `Seq2SeqTrainer` fills unset fields of a model's `generation_config` with transformers' defaults, including
    `max_length` 20 and `length_penalty` 1. This class ignores them: they do not shorten translations, do not replace
    the paper's length penalty, and are not saved.
    """

    def update(self, defaults_only: bool = False, allow_custom_entries: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Sets several fields, as in transformers.

        Args:
            defaults_only: whether the values are defaults, for unset fields only.
            allow_custom_entries: whether to add unknown fields.
            **kwargs: the values.

        Returns:
            The values that were not used.
        """
        unset = {name for name in kwargs if getattr(self, name, None) is None}
        unused = super().update(defaults_only=defaults_only, allow_custom_entries=allow_custom_entries, **kwargs)
        if defaults_only:
            filled_in = {*self._filled_in_fields(), *(name for name in unset if name not in unused)}
            self.__dict__["_filled_in"] = sorted(filled_in)
        return unused

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in self._filled_in_fields():  # it is no longer a default
            self.__dict__["_filled_in"] = [field for field in self._filled_in_fields() if field != name]

    def to_dict(self) -> dict[str, Any]:
        """The chosen values; all others are None."""
        filled_in = self._filled_in_fields()
        values = super().to_dict()
        values.pop("_filled_in", None)
        return {name: None if name in filled_in else value for name, value in values.items()}

    def _filled_in_fields(self) -> list[str]:
        return self.__dict__.get("_filled_in", [])


def chosen_values(config: GenerationConfig | None) -> dict[str, Any]:
    """The chosen values of a `generation_config`.

    Args:
        config: any config, or None.

    Returns:
        Values by name. Our own fields are included even if None, which turns them off.
    """
    values = {} if config is None else config.to_dict()
    return {name: value for name, value in values.items() if value is not None or name in OUTRANKED_BY}


def settled(field: str, places: Sequence[Mapping[str, Any]]) -> tuple[Any, list[str]]:
    """The value of one of our fields, from the first place that sets it or a field that outranks it.

    Args:
        field: a key of `OUTRANKED_BY`.
        places: values by name, in order of precedence. The first are the arguments of a call, where None hides later
            values.

    Returns:
        The value, or None if it is off or outranked; and the outranking fields that take effect.

    Raises:
        ValueError: a call sets two length penalties.
    """
    # The first place that mentions a name decides; None there unsets it.
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


@dataclass(frozen=True)
class LengthLimits:
    """§6.1 "maximum output length": how long the translations of a search may be.

    Args:
        max_extra: tokens that a translation may have more than its source; None for no such limit.
        max_new: tokens that a translation may have; None for no such limit.
    """

    max_extra: int | None
    max_new: int | None

    @classmethod
    def of(cls, places: Sequence[Mapping[str, Any]]) -> "LengthLimits":
        """Reads the limits that take effect.

        Args:
            places: as of the function `settled`.

        Returns:
            Them; both None if none was chosen.
        """
        extra, chosen = settled("max_extra_tokens", places)
        if not chosen:
            return cls(extra, None)
        name = "max_new_tokens" if "max_new_tokens" in chosen else "max_length"
        value = next(place[name] for place in places if name in place)
        return cls(extra, value if name == "max_new_tokens" else value - 1)  # the start token has a length of its own

    def of_sources(self, lengths: Sequence[int], max_positions: int | None) -> list[int]:
        """How many tokens each translation of a batch may have, `</s>` included; the paper's 50 more if nothing is set.

        Args:
            lengths: tokens of the sources.
            max_positions: learned positions of the model; None for no limit.

        Returns:
            A limit for each source.
        """
        limits = [10**9 if self.max_extra is None else length + self.max_extra for length in lengths]
        if self.max_new is not None:
            limits = [min(limit, self.max_new) for limit in limits]
        elif self.max_extra is None:
            limits = [max(lengths) + MAX_EXTRA_TOKENS] * len(lengths)
        most = 10**9 if max_positions is None else max_positions - 1  # the start token has one
        return [max(1, min(limit, most)) for limit in limits]


def check_own_fields(config: GenerationConfig) -> None:
    """Refuses invalid values of our fields.

    Args:
        config: a prepared `generation_config`, which has them.

    Raises:
        ValueError: a value is invalid. The message names the field, its value, and what is allowed.
    """
    extra = config.max_extra_tokens
    if extra is not None and (not isinstance(extra, int) or isinstance(extra, bool) or extra < 0):
        raise ValueError(f"`max_extra_tokens`={extra!r} is not allowed; allowed: an integer of at least 0, or None")
    alpha = config.gnmt_length_penalty
    is_number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if alpha is not None and not (is_number and math.isfinite(alpha)):
        raise ValueError(f"`gnmt_length_penalty`={alpha!r} is not allowed; allowed: a finite number, or None")
