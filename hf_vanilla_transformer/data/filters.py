"""What of a corpus is left out, and the count of it: nothing disappears without a number in the log."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass
class FilterCounts:
    """How many pairs there were, and why some were left out: each of these under the first reason that applies."""

    read: int = 0
    kept: int = 0
    empty: int = 0
    duplicate: int = 0
    too_long: int = 0
    beyond_positions: int = 0
    unequal: int = 0

    def __add__(self, other: "FilterCounts") -> "FilterCounts":
        return FilterCounts(*(mine + its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class Filters:
    """What is left out of a corpus besides pairs with an empty side, of which nothing can be learned.

    Args:
        max_length: the most tokens of a side; None for any number.
        max_length_ratio: the most times that one side may have the other's tokens; None for any number.
        drop_duplicates: whether to leave out pairs whose text was seen before.
        max_positions: how many positions the model has learned, and so the most tokens of a side; None where it has
            any number.
        extra_tokens: tokens that an example has besides those of its text, and that take positions too.
    """

    max_length: int | None = None
    max_length_ratio: float | None = None
    drop_duplicates: bool = False
    max_positions: int | None = None
    extra_tokens: int = 0

    def apply(
        self, lengths: Sequence[np.ndarray], blank: np.ndarray, text_hash: np.ndarray | None = None
    ) -> tuple[np.ndarray, FilterCounts]:
        """Decides which pairs, or texts without a target, are kept.

        Args:
            lengths: tokens of each source, and of each target where there are targets: arrays (N,).
            blank: whether a side has no visible character (N,).
            text_hash: equal for equal pairs (N,); only for `drop_duplicates`.

        Returns:
            The indices of those that are kept, ascending, and the counts.
        """
        longest, shortest = np.maximum.reduce(list(lengths)), np.minimum.reduce(list(lengths))
        left, counts = np.ones(len(blank), dtype=bool), {"read": len(blank)}
        reasons = {"empty": blank}
        if self.drop_duplicates:
            assert text_hash is not None
            reasons["duplicate"] = _seen_before(text_hash, ~blank)
        if self.max_length is not None:
            reasons["too_long"] = longest > self.max_length
        if self.max_positions is not None:
            reasons["beyond_positions"] = longest + self.extra_tokens > self.max_positions
        if self.max_length_ratio is not None:
            reasons["unequal"] = longest > self.max_length_ratio * shortest
        for reason, applies in reasons.items():
            counts[reason] = int((left & applies).sum())
            left &= ~applies
        return np.flatnonzero(left), FilterCounts(**counts, kept=int(left.sum()))

    def describe(self, name: str, counts: FilterCounts) -> str:
        """One line for the log: what was kept of `name`, and how much each filter left out."""
        reasons = [f"{counts.empty} with an empty side"]
        if self.drop_duplicates:
            reasons.append(f"{counts.duplicate} seen before")
        if self.max_length is not None:
            reasons.append(f"{counts.too_long} longer than max_length={self.max_length} tokens")
        if self.max_positions is not None:
            reasons.append(f"{counts.beyond_positions} longer than the model's {self.max_positions} learned positions")
        if self.max_length_ratio is not None:
            reasons.append(f"{counts.unequal} beyond max_length_ratio={self.max_length_ratio}")
        return f"{name}: {counts.kept} of {counts.read} kept; left out: {', '.join(reasons)}"


def _seen_before(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Which of the values that count have an equal one that counts before them."""
    places = np.flatnonzero(counted)
    _, first = np.unique(values[places], return_index=True)
    seen = counted.copy()
    seen[places[first]] = False
    return seen


__all__ = ["FilterCounts", "Filters"]
