"""Learning from monolingual text: what each objective makes of it, and which of them need which tokens.

    span_corruption     T5: spans are taken out, and written after the sentinels that stand for them
    denoising           BART: a text is damaged in up to five ways, and written as it was
    masking             BERT: an encoder says which tokens are masked
    next_tokens         GPT and prefix language models: a decoder says how a text goes on
    amounts             how much of a text is noise, which all of them share

Each is a class: called with the ids of a text and a random generator, it makes an example. `lengths` says beforehand
how long that will be, from the length of the text alone, so that batches are planned once for every epoch.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..tokenization import sentinel_ids
from .amounts import Counts
from .denoising import Denoising, StepOptions
from .masking import MaskedLanguageModelling
from .next_tokens import CausalLanguageModelling, PrefixLanguageModelling
from .span_corruption import SpanCorruption


class PlainTextObjective(Protocol):
    """What makes an example of a text without a translation."""

    def lengths(self, num_tokens: Counts) -> tuple[np.ndarray, np.ndarray]:
        """How many tokens `input_ids` and `labels` have, of texts of `num_tokens` without `</s>`."""

    def __call__(self, tokens: Any, random: np.random.Generator) -> dict[str, Any]:
        """Makes `input_ids`, `labels` and what else a model is given of the ids of a text without `</s>`."""


def plain_text_objective(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    noise_density: float,
    mean_span_length: float,
    denoising_steps: Sequence[str],
) -> PlainTextObjective:
    """Builds an objective for the text of a tokenizer.

    Args:
        name: span_corruption, masked_lm, causal_lm, prefix_lm or denoising.
        tokenizer: of the text; gives the special tokens.
        noise_density: the share of the tokens that are noise, where there is noise.
        mean_span_length: tokens of a span or hole, on average.
        denoising_steps: of denoising, by name and in order.

    Returns:
        The objective.

    Raises:
        ValueError: there is none of this name, or the tokenizer lacks a token that it needs.
    """
    end = tokenizer.eos_token_id
    if name == "span_corruption":
        if not (sentinels := sentinel_ids(tokenizer)):
            raise ValueError(
                "span_corruption needs a tokenizer with sentinel tokens; set num_sentinels when it is trained"
            )
        return SpanCorruption(sentinels, end, noise_density, mean_span_length)
    if name == "masked_lm":
        return MaskedLanguageModelling(_mask(name, tokenizer), end, _words(tokenizer), noise_density)
    if name == "denoising":
        needs_mask = {"token_masking", "text_infilling"} & set(denoising_steps)
        mask = _mask(name, tokenizer) if needs_mask else -1
        options = StepOptions(mask, _full_stops(tokenizer), noise_density, mean_span_length)
        return Denoising(tuple(denoising_steps), options, end)
    if name in ("causal_lm", "prefix_lm"):
        if tokenizer.bos_token_id is None:
            raise ValueError(f"{name} needs a tokenizer with a bos_token, from which the first word is predicted")
        return {"causal_lm": CausalLanguageModelling, "prefix_lm": PrefixLanguageModelling}[name](
            tokenizer.bos_token_id, end
        )
    raise ValueError(f"{name!r} is no objective for plain text")


def _mask(name: str, tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.mask_token_id is None:
        raise ValueError(
            f"{name} needs a tokenizer with a mask_token: one that such a run trains has it, and so has one of "
            "`vanilla-transformer train-tokenizer --mask_token`. Add it to another, and save that: "
            'tokenizer.add_special_tokens({"mask_token": "<mask>"})'
        )
    return tokenizer.mask_token_id


def _words(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """All ids that text is made of."""
    others = {*tokenizer.get_added_vocab().values(), *tokenizer.all_special_ids}
    return [number for number in range(len(tokenizer)) if number not in others]


def _full_stops(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The ids of tokens that end as a sentence does."""
    tokens = tokenizer.convert_ids_to_tokens(words := _words(tokenizer))
    return frozenset(
        number for number, token in zip(words, tokens, strict=True) if token and token.endswith((".", "!", "?"))
    )


__all__ = ["PlainTextObjective", "plain_text_objective"]
