"""What a mistyped name was probably meant to be."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Finds the name that a word resembles.

    Args:
        word: what was typed.
        names: what there is.

    Returns:
        "; did you mean NAME?", or nothing where no name resembles the word.
    """
    close = difflib.get_close_matches(str(word), sorted(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""
