"""How much of a text is noise, and where: numbers that follow from its length, and places that are drawn."""

from typing import Any

import numpy as np

# Whatever can be counted in: one number, or an array of any shape.
Counts = np.ndarray | int


def noise_counts(num_tokens: Counts, noise_density: float, least_kept: int = 1) -> np.ndarray:
    """How many tokens of texts are noise: their share, rounded, but at least one.

    Args:
        num_tokens: the lengths of texts without `</s>`.
        noise_density: the share of tokens that are noise. Halves are rounded to the even number.
        least_kept: tokens of a text that are never noise, for which the one gives way.

    Returns:
        Counts in the shape of `num_tokens`.

    Raises:
        ValueError: the share, or a length, is out of its range.
    """
    if not 0 < noise_density < 1:
        raise ValueError(f"`noise_density`={noise_density} is not between 0 and 1")
    counts = np.asarray(num_tokens)
    if counts.size and counts.min() < 0:
        raise ValueError(f"`num_tokens` has {counts.min()} in it, which is no length")
    noise = np.maximum(np.rint(counts * noise_density).astype(np.int64), 1)
    return np.clip(noise, 0, np.maximum(counts - least_kept, 0))


def check_span_length(mean_span_length: float) -> None:
    """Refuses spans of less than one token on average.

    Args:
        mean_span_length: tokens of a span, on average.

    Raises:
        ValueError: it is less than 1.
    """
    if not mean_span_length >= 1:
        raise ValueError(f"`mean_span_length`={mean_span_length} is less than one token")


def sorted_choice(random: np.random.Generator, population: int, size: int) -> np.ndarray:
    """Draws a subset of 0 ... population - 1; each of that size has equal probability.

    Args:
        random: where the randomness comes from.
        population: how many there are to choose from.
        size: how many are chosen.

    Returns:
        The chosen numbers, in order.
    """
    return np.sort(random.choice(population, size, replace=False, shuffle=False))


def without_end(tokens: Any, eos_token_id: int) -> list[int]:
    """Reads the ids of a text, and refuses one that has its end in it.

    Args:
        tokens: the ids of a text without `</s>`, a list or an array.
        eos_token_id: the id of `</s>`.

    Returns:
        The ids as plain integers.

    Raises:
        ValueError: `</s>` is among them.
    """
    ids = [int(token) for token in tokens]
    if eos_token_id in ids:
        raise ValueError(
            f"`tokens` has </s> (id {eos_token_id}) at position {ids.index(eos_token_id)}; give a text without it"
        )
    return ids


__all__ = ["Counts", "check_span_length", "noise_counts", "sorted_choice", "without_end"]
