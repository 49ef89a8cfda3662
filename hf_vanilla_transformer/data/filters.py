"""What of a corpus is left out, and the count of it: nothing disappears without a number in the log."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Filters:
    """What is left out of a corpus besides pairs with an empty side, of which nothing can be learned.

    Args:
        max_length: the most tokens of a side; None for any number.
        max_length_ratio: the most times that one side may have the other's tokens; None for any number.
        drop_duplicates: whether to leave out pairs whose text was seen before.
    """

    max_length: int | None = None
    max_length_ratio: float | None = None
    drop_duplicates: bool = False


@dataclass
class FilterCounts:
    """How many pairs there were, and why some were left out."""

    read: int = 0
    kept: int = 0
    empty: int = 0
    too_long: int = 0
    unequal: int = 0
    duplicate: int = 0

    def describe(self, name: str, filters: Filters) -> str:
        """One line for the log: what was kept of `name`, and how much each filter left out."""
        reasons = [f"{self.empty} with an empty side"]
        if filters.max_length is not None:
            reasons.append(f"{self.too_long} longer than max_length={filters.max_length} tokens")
        if filters.max_length_ratio is not None:
            reasons.append(f"{self.unequal} beyond max_length_ratio={filters.max_length_ratio}")
        if filters.drop_duplicates:
            reasons.append(f"{self.duplicate} seen before")
        return f"{name}: {self.kept} of {self.read} kept; left out: {', '.join(reasons)}"


__all__ = ["FilterCounts", "Filters"]
