"""Lines of input that cannot be used: they stop the program, or are counted and read as empty lines."""

import sys
from typing import Literal


class BadLines:
    """Decides what becomes of lines that cannot be used; to be given to readers of `data` as `on_error`.

    Args:
        mode: "stop" raises at the first; "skip" counts them.

    Attributes:
        numbers: of the lines that were skipped, from 1.
    """

    def __init__(self, mode: Literal["stop", "skip"]) -> None:
        self.mode = mode
        self.numbers: set[int] = set()
        self._first = ""

    def __call__(self, number: int, error: ValueError) -> None:
        """Takes note of a line.

        Args:
            number: of the line, from 1.
            error: what is wrong with it.

        Raises:
            ValueError: the mode is "stop"; the message says what is wrong, and how to skip such lines.
        """
        if self.mode == "stop":
            raise ValueError(f"{error}. To read such lines as empty ones: --on_error skip") from error
        self._first = self._first or str(error)
        self.numbers.add(number)

    def report(self) -> None:
        """Says on standard error how many lines were skipped, if any, and what was wrong with the first."""
        if count := len(self.numbers):
            what = f"{count:,} line{'' if count == 1 else 's'} skipped, empty in the output"
            print(f"{what}. The first: {self._first}", file=sys.stderr)
