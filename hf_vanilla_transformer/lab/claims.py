"""What a source says of an entry of a list of runs: numbers or words, metric by metric, beside another entry."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..data.suggestions import did_you_mean
from ..evaluation.scores import OF_TRANSLATIONS
from ..training.validation_metrics import LIKELIHOOD

Direction = Literal["better", "worse", "same"]
DIRECTIONS = get_args(Direction)
_KEYS = ("source", "against", *LIKELIHOOD, *OF_TRANSLATIONS)


@dataclass(frozen=True)
class Claim:
    """What a source says of an entry.

    Args:
        source: who says it, and where.
        says: of each metric, such as `perplexity`, the source's number for what the entry corresponds to; or a
            direction.
        against: name of the entry that it is compared with; None for the first of the list.
    """

    source: str = ""
    says: Mapping[str, float | Direction] = field(default_factory=dict)
    against: str | None = None


def read_claim(value: Any) -> Claim:
    """Reads the `claim` of an entry of a list.

    Args:
        value: as YAML has it.

    Returns:
        The claim.

    Raises:
        ValueError: it is no claim; the message names key and value.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"claim={value!r:.100} must be a mapping with a `source` and what it says of metrics")
    if unknown := [key for key in value if key not in _KEYS]:
        hint = did_you_mean(str(unknown[0]), _KEYS) or f"; a claim has {', '.join(_KEYS)}"
        raise ValueError(f"claim: unknown key {unknown[0]!r}{hint}")
    for key in ("source", "against"):
        if not isinstance(value.get(key, ""), str):
            raise ValueError(f"claim: {key}={value[key]!r} must be text")
    if not value.get("source"):
        raise ValueError("claim: a `source` is needed, such as `Table 3 (A), h = 1`")
    says: dict[str, float | Direction] = {}
    for metric in (key for key in value if key not in ("source", "against")):
        said = value[metric]
        if said not in DIRECTIONS and (isinstance(said, bool) or not isinstance(said, int | float) or said <= 0):
            raise ValueError(f"claim: {metric}={said!r} is neither a number above 0 nor {', '.join(DIRECTIONS)}")
        says[metric] = said
    return Claim(value["source"], says, value.get("against"))


def check_claim(entry: str, claims: Mapping[str, Claim], entries: list[str]) -> None:
    """Finds out whether what a claim says can be compared.

    Args:
        entry: whose claim it is.
        claims: all of the list, by entry.
        entries: names of all entries, in the order of the list.

    Raises:
        ValueError: there is no entry that it is compared with, or a number has none beside it.
    """
    claim = claims[entry]
    against = claim.against or entries[0]
    if against not in entries:
        raise ValueError(f"claim: against={against!r} is no entry of the list{did_you_mean(against, entries)}")
    if against == entry:
        if words := [metric for metric, said in claim.says.items() if isinstance(said, str)]:
            raise ValueError(
                f"claim: {words[0]}={claim.says[words[0]]} says nothing, as {entry!r} is compared with itself"
            )
        return
    theirs = claims[against].says if against in claims else {}
    for metric, said in claim.says.items():
        if not isinstance(said, str) and not isinstance(theirs.get(metric), int | float):
            raise ValueError(
                f"claim: {metric}={said} needs a number of {against!r} to be compared with; give that entry a claim "
                "with one, or say better, worse or same"
            )
