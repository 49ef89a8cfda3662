"""Learning from monolingual text with both stacks: BART's denoising (Lewis et al. 2020, §2.2), step by step.

A text is damaged, and the decoder writes it as it was. Five kinds of damage, any of which may follow another:

    text                  a dog runs . it barks . </s>
    token_masking         a <mask> runs . it barks <mask> </s>
    token_deletion        a runs . it . </s>
    text_infilling        a <mask> . it <mask> barks . </s>         (holes of any length, also of none)
    sentence_permutation  it barks . a dog runs . </s>
    document_rotation     runs . it barks . a dog </s>

How long the damaged text is follows from the length of the text, as in span corruption, so that the same batches do for
every epoch. So the number of holes is not drawn: m tokens of noise are in round(m / `mean_span_length`) of them. How
long each is, is: Poisson's numbers, given that their sum is m, which are multinomial. Each way of putting the holes
between and around the kept tokens is equally likely.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from .amounts import Counts, check_span_length, noise_counts, sorted_choice, without_end


class DenoisingStep(Protocol):
    """One kind of damage; texts are ids without `</s>`."""

    def length(self, num_tokens: np.ndarray) -> np.ndarray:
        """How long texts of `num_tokens` tokens become."""

    def __call__(self, ids: list[int], random: np.random.Generator) -> list[int]:
        """Damages a text; the state of `random` decides how."""


@dataclass(frozen=True)
class StepOptions:
    """What steps are made of; each takes what it needs.

    Args:
        mask_token_id: the id of `<mask>`.
        full_stops: ids of the tokens that end a sentence.
        noise_density: the share of the tokens that are masked, deleted or in holes.
        mean_span_length: tokens of a hole, on average.
    """

    mask_token_id: int
    full_stops: frozenset[int] = frozenset()
    noise_density: float = 0.3
    mean_span_length: float = 3.0


class _Step:
    """A step that leaves a text as long as it is."""

    def __init__(self, options: StepOptions) -> None:
        self.options = options

    def length(self, num_tokens: np.ndarray) -> np.ndarray:
        """How long texts of `num_tokens` tokens become."""
        return num_tokens

    def _noise(self, num_tokens: Counts) -> np.ndarray:
        return noise_counts(num_tokens, self.options.noise_density)


class TokenMasking(_Step):
    """Covers tokens by `<mask>` each; every choice of so many is equally likely."""

    def __call__(self, ids: list[int], random: np.random.Generator) -> list[int]:
        """Masks a text."""
        ids = list(ids)
        for place in sorted_choice(random, len(ids), int(self._noise(len(ids)))).tolist():
            ids[place] = self.options.mask_token_id
        return ids


class TokenDeletion(_Step):
    """Takes tokens out without a trace; every choice of so many is equally likely."""

    def length(self, num_tokens: np.ndarray) -> np.ndarray:
        """How long texts of `num_tokens` tokens become."""
        return num_tokens - self._noise(num_tokens)

    def __call__(self, ids: list[int], random: np.random.Generator) -> list[int]:
        """Shortens a text."""
        count = len(ids)
        return [ids[place] for place in sorted_choice(random, count, count - int(self._noise(count))).tolist()]


class TextInfilling(_Step):
    """Puts one `<mask>` in the place of each hole, whose length is to be found out, and may be 0."""

    def __init__(self, options: StepOptions) -> None:
        super().__init__(options)
        check_span_length(options.mean_span_length)

    def _holes(self, noise: np.ndarray) -> np.ndarray:
        holes = np.maximum(np.rint(noise / self.options.mean_span_length).astype(np.int64), 1)
        return np.where(noise > 0, holes, 0)

    def length(self, num_tokens: np.ndarray) -> np.ndarray:
        """How long texts of `num_tokens` tokens become."""
        noise = self._noise(num_tokens)
        return num_tokens - noise + self._holes(noise)

    def __call__(self, ids: list[int], random: np.random.Generator) -> list[int]:
        """Makes holes in a text."""
        noise = self._noise(len(ids))
        holes = int(self._holes(noise))
        if not holes:
            return list(ids)
        # Poisson's numbers whose sum is given: each token of noise is in any hole with equal probability.
        sizes = random.multinomial(int(noise), np.full(holes, 1 / holes)).tolist()
        places = set(sorted_choice(random, len(ids) - int(noise) + holes, holes).tolist())
        damaged: list[int] = []
        position = 0
        for place in range(len(ids) - int(noise) + holes):
            if place in places:
                damaged.append(self.options.mask_token_id)
                position += sizes.pop()
            else:
                damaged.append(ids[position])
                position += 1
        return damaged


class SentencePermutation(_Step):
    """Shuffles sentences, which end with full stops; every order is equally likely. One sentence stays as it is."""

    def __call__(self, ids: list[int], random: np.random.Generator) -> list[int]:
        """Shuffles a text."""
        ends = {place + 1 for place, token in enumerate(ids) if token in self.options.full_stops}
        # Three dots in a row are one end.
        inner = sorted(end for end in ends if end + 1 not in ends and end < len(ids))
        bounds = [0, *inner, len(ids)]
        order = random.permutation(len(bounds) - 1).tolist()
        return [token for number in order for token in ids[bounds[number] : bounds[number + 1]]]


class DocumentRotation(_Step):
    """Lets a text begin with any of its tokens; what stood before it follows its end."""

    def __call__(self, ids: list[int], random: np.random.Generator) -> list[int]:
        """Rotates a text."""
        first = int(random.integers(max(len(ids), 1)))
        return [*ids[first:], *ids[:first]]


STEPS: dict[str, Callable[[StepOptions], DenoisingStep]] = {
    "token_masking": TokenMasking,
    "token_deletion": TokenDeletion,
    "text_infilling": TextInfilling,
    "sentence_permutation": SentencePermutation,
    "document_rotation": DocumentRotation,
}
# Those that take a share of the tokens; the others take all of them.
WITH_DENSITY = ("token_masking", "token_deletion", "text_infilling")


@dataclass(frozen=True)
class Denoising:
    """BART's objective: a text, from what steps have made of it, one after the other.

    Args:
        steps: names of `STEPS`, in the order in which they damage a text.
        options: of the steps.
        eos_token_id: the id of `</s>`, which ends input and target.

    Raises:
        ValueError: there is no step, or one of no such name; or an option is out of its range.
    """

    steps: Sequence[str]
    options: StepOptions
    eos_token_id: int
    _made: list[DenoisingStep] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_steps(self.steps)
        object.__setattr__(self, "_made", [STEPS[name](self.options) for name in self.steps])

    def lengths(self, num_tokens: Counts) -> tuple[np.ndarray, np.ndarray]:
        """How long input and target of texts are, `</s>` included; `num_tokens` are their lengths without it."""
        counts = damaged = np.asarray(num_tokens)
        for step in self._made:
            damaged = step.length(damaged)
        return damaged + 1, counts + 1

    def __call__(self, tokens: Any, random: np.random.Generator) -> dict[str, Any]:
        """Damages a text.

        Args:
            tokens: its ids, without `</s>`.
            random: where the randomness comes from.

        Returns:
            `input_ids`, the damaged text, and `labels`, the text.
        """
        ids = without_end(tokens, self.eos_token_id)
        damaged = ids
        for step in self._made:
            damaged = step(damaged, random)
        return {"input_ids": [*damaged, self.eos_token_id], "labels": [*ids, self.eos_token_id]}


def check_steps(steps: Sequence[str]) -> None:
    """Refuses steps that there are not, and none at all.

    Args:
        steps: names, in order.

    Raises:
        ValueError: there is none, one is unknown, or one is named twice.
    """
    if not steps:
        raise ValueError(f"denoising_steps is empty, which would copy every text; name some of {', '.join(STEPS)}")
    for name in steps:
        if name not in STEPS:
            raise ValueError(f"denoising_steps has {name!r}, which is none of {', '.join(STEPS)}")
        if list(steps).count(name) > 1:
            raise ValueError(f"denoising_steps has {name} twice; name each once")


__all__ = [
    "STEPS",
    "WITH_DENSITY",
    "Denoising",
    "DenoisingStep",
    "DocumentRotation",
    "SentencePermutation",
    "StepOptions",
    "TextInfilling",
    "TokenDeletion",
    "TokenMasking",
    "check_steps",
]
