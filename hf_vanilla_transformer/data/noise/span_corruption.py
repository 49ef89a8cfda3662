"""Learning from monolingual text: the span corruption of T5 (Raffel et al. 2020, §3.1.4 and §3.3.4).

Spans of a text are taken out, each replaced by one sentinel token; the target says what each sentinel stands for:

    text    Thank you for inviting me to your party last week </s>
    input   Thank you <sentinel_0> me to your party <sentinel_1> week </s>
    target  <sentinel_0> for inviting <sentinel_1> last </s>

How many tokens are noise and in how many spans follows from the number of tokens, so both lengths are known before
anything is drawn, and the same batches do for every epoch. Which tokens are noise is drawn: with m noise tokens in s
spans, each way to cut m tokens into s spans is as likely as any other, and so is each choice of s of the places before,
between and after the kept tokens to put them. Together: every mask with m noise tokens in s runs is equally likely.

T5's own mask always begins with kept tokens and ends with a span. In its texts of 512 tokens that hardly matters, but a
sentence of up to 30 tokens has one span, which would always be its end. Here, a span may stand anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .amounts import Counts, check_span_length, noise_counts, sorted_choice, without_end


def span_corruption_lengths(
    num_tokens: Counts, num_sentinels: int, noise_density: float = 0.15, mean_span_length: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    """The lengths of what `span_corruption` makes of texts, by their lengths alone.

    Args:
        num_tokens: the lengths of texts without `</s>`, an array of any shape, or one number.
        num_sentinels: how many sentinels there are.
        noise_density: the share of tokens to take out.
        mean_span_length: tokens of a span, in the mean.

    Returns:
        The lengths of input and of target, each with its `</s>`, in the shape of `num_tokens`.

    Raises:
        ValueError: an option, or a length, that is out of its range.
    """
    counts = np.asarray(num_tokens)
    noise, spans = _noise_and_spans(counts, num_sentinels, noise_density, mean_span_length)
    return counts - noise + spans + 1, noise + spans + 1


def span_corruption(
    tokens: Sequence[int] | np.ndarray,
    sentinel_ids: Sequence[int],
    rng: np.random.Generator,
    noise_density: float = 0.15,
    mean_span_length: float = 3.0,
    *,
    eos_token_id: int,
) -> tuple[list[int], list[int]]:
    """Takes spans out of a text, and makes of it an input and the target that completes it (T5, §3.1.4).

    Of n tokens, round(n * `noise_density`) are noise, but at least one is noise and at least one is kept. They are in
    round(noise / `mean_span_length`) spans, at least one. There are fewer, longer spans where there are not enough
    sentinels, or not enough kept tokens to part them. (Halves are rounded to the even number.) A text of one token is
    kept as it is, and so is an empty one: its target is `</s>` alone.

    Args:
        tokens: the ids of a text, without `</s>` and without sentinels.
        sentinel_ids: the ids of the sentinels, which are used from the first on, in the order of the text.
        rng: where the randomness comes from. The same state gives the same spans.
        noise_density: the share of tokens to take out, between 0 and 1.
        mean_span_length: tokens of a span, in the mean, 1 or more.
        eos_token_id: the id of `</s>`, which ends input and target.

    Returns:
        The ids of input and target. Their lengths are those of `span_corruption_lengths`.

    Raises:
        ValueError: an option is out of its range, or `tokens` has `</s>` in it.
    """
    ids = without_end(tokens, eos_token_id)
    num_noise, num_spans = map(
        int, _noise_and_spans(np.asarray(len(ids)), len(sentinel_ids), noise_density, mean_span_length)
    )
    if num_spans == 0:
        return [*ids, eos_token_id], [eos_token_id]
    num_kept = len(ids) - num_noise
    # The spans' ends, counted in noise tokens: any of the places between two of them, and the last.
    ends = [*(1 + sorted_choice(rng, num_noise - 1, num_spans - 1)).tolist(), num_noise]
    # Where the spans stand, counted in kept tokens before them.
    places = sorted_choice(rng, num_kept + 1, num_spans).tolist()

    source: list[int] = []
    target: list[int] = []
    end_before = position = 0
    for sentinel, end, place in zip(sentinel_ids, ends, places, strict=False):
        start = place + end_before
        stop = place + end
        source += [*ids[position:start], sentinel]
        target += [sentinel, *ids[start:stop]]
        end_before, position = end, stop
    return [*source, *ids[position:], eos_token_id], [*target, eos_token_id]


@dataclass(frozen=True)
class SpanCorruption:
    """T5's objective: spans that are taken out, from the text around them.

    Args:
        sentinel_ids: as of `span_corruption`, and so are the others.
        eos_token_id: likewise.
        noise_density: likewise.
        mean_span_length: likewise.
    """

    sentinel_ids: Sequence[int]
    eos_token_id: int
    noise_density: float = 0.15
    mean_span_length: float = 3.0

    def lengths(self, num_tokens: Counts) -> tuple[np.ndarray, np.ndarray]:
        """How long input and target of texts are, `</s>` included; `num_tokens` are their lengths without it."""
        return span_corruption_lengths(num_tokens, len(self.sentinel_ids), self.noise_density, self.mean_span_length)

    def __call__(self, tokens: Any, random: np.random.Generator) -> dict[str, Any]:
        """Takes spans out of a text.

        Args:
            tokens: its ids, without `</s>`.
            random: where the randomness comes from.

        Returns:
            `input_ids` and `labels`.
        """
        source, target = span_corruption(
            tokens,
            self.sentinel_ids,
            random,
            self.noise_density,
            self.mean_span_length,
            eos_token_id=self.eos_token_id,
        )
        return {"input_ids": source, "labels": target}


def _noise_and_spans(
    num_tokens: np.ndarray, num_sentinels: int, noise_density: float, mean_span_length: float
) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens are noise, and in how many spans; both 0 where there are fewer than two tokens."""
    check_span_length(mean_span_length)
    if num_sentinels < 1:
        raise ValueError(
            f"{num_sentinels} sentinel tokens: span corruption needs at least one; "
            "make a tokenizer with `num_sentinels` of them"
        )
    noise = noise_counts(num_tokens, noise_density)
    most_spans = np.minimum(np.minimum(noise, num_tokens - noise + 1), num_sentinels)
    spans = np.maximum(np.minimum(np.rint(noise / mean_span_length).astype(np.int64), most_spans), 1)
    return noise, np.where(noise > 0, spans, 0)


__all__ = ["SpanCorruption", "span_corruption", "span_corruption_lengths"]
