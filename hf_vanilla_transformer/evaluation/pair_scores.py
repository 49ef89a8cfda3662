"""Forced scoring: how probable a model finds given translations, sentence by sentence and token by token."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.batching import padded_batch, token_batches
from ..tokenization_ids import text_to_ids
from ..tokenization_tags import tagged, tags_to_add
from ..translation_batches import refuse_training_mode
from ..translation_pieces import max_source_length
from ..translation_scoring import forced_log_probs
from .likelihood import LabelLikelihood


@dataclass(frozen=True)
class PairScore:
    """How probable a model finds one translation of one source.

    Args:
        tokens: tokens of the translation, `</s>` at the end.
        token_log_probs: log-probability of each token, given the source and the tokens before it, in nats.
        num_characters: Unicode characters of the translation, its end counted as one.
        has_empty_side: whether source or translation has no visible character. Such a pair is scored like any other;
            the only token of an empty text is `</s>`.
    """

    tokens: tuple[str, ...]
    token_log_probs: tuple[float, ...]
    num_characters: int
    has_empty_side: bool = False

    @property
    def log_prob(self) -> float:
        """Log-probability of the whole translation: the sum over its tokens, in nats, at most 0."""
        return math.fsum(self.token_log_probs)

    @property
    def num_tokens(self) -> int:
        """Number of tokens, `</s>` included."""
        return len(self.tokens)

    @property
    def nats_per_token(self) -> float:
        """Negative mean log-probability of its tokens."""
        return LabelLikelihood(-self.log_prob, self.num_tokens).nll_per_token

    @property
    def perplexity(self) -> float:
        """exp(nats per token)."""
        return LabelLikelihood(-self.log_prob, self.num_tokens).perplexity

    @property
    def nats_per_character(self) -> float:
        """Negative log-probability per character: unlike nats per token, comparable between vocabularies."""
        return -self.log_prob / self.num_characters

    def to_line(self, per_token: bool = False) -> str:
        r"""Writes the score as tab-separated columns.

        Args:
            per_token: whether to add a column of `token:log-probability`, separated by spaces. White space in a token,
                which few tokenizers make, is written as its code: `\u0020`.

        Returns:
            Log-probability, number of tokens, nats per token; without an end of line.
        """
        columns = [f"{self.log_prob:.6f}", str(self.num_tokens), f"{self.nats_per_token:.6f}"]
        if per_token:
            tokens = (re.sub(r"\s", lambda match: f"\\u{ord(match[0]):04x}", token) for token in self.tokens)
            values = zip(tokens, self.token_log_probs, strict=True)
            columns.append(" ".join(f"{token}:{log_prob:.6f}" for token, log_prob in values))
        return "\t".join(columns)

    def to_json(self) -> str:
        """Writes all fields and properties as one line of JSON.

        Returns:
            An object; numbers are not rounded. An infinite one is written as `Infinity`, which Python's reader accepts.
        """
        derived = ("log_prob", "num_tokens", "nats_per_token", "perplexity", "nats_per_character")
        return json.dumps({**{name: getattr(self, name) for name in derived}, **asdict(self)}, ensure_ascii=False)


@dataclass
class ScoreTotals:
    """Sums over pairs, to which one pair at a time is added.

    Args:
        num_pairs: number of pairs.
        num_tokens: number of tokens of all translations.
        num_characters: number of characters of all translations, the end of each counted as one.
        num_empty: how many of the pairs have an empty side.
        nll: negative log-probability of all translations, in nats.
    """

    num_pairs: int = 0
    num_tokens: int = 0
    num_characters: int = 0
    num_empty: int = 0
    nll: float = 0.0

    def add(self, score: PairScore) -> None:
        """Adds one pair.

        Args:
            score: of the pair.
        """
        self.num_pairs += 1
        self.num_tokens += score.num_tokens
        self.num_characters += score.num_characters
        self.num_empty += score.has_empty_side
        self.nll -= score.log_prob

    @property
    def nats_per_token(self) -> float:
        """Negative mean log-probability of all tokens, so that sentences have weight by their length."""
        return LabelLikelihood(self.nll, self.num_tokens).nll_per_token

    @property
    def perplexity(self) -> float:
        """exp(nats per token)."""
        return LabelLikelihood(self.nll, self.num_tokens).perplexity

    @property
    def nats_per_character(self) -> float:
        """Negative log-probability per character, over all characters."""
        return self.nll / max(self.num_characters, 1)

    def as_dict(self) -> dict[str, float]:
        """Returns all fields and properties by name."""
        derived = ("nats_per_token", "perplexity", "nats_per_character")
        return {**asdict(self), **{name: getattr(self, name) for name in derived}}

    def describe(self) -> str:
        """Describes the totals in one line of text."""
        empty = f" ({self.num_empty} with an empty side)" if self.num_empty else ""
        return (
            f"{self.num_pairs} pairs{empty}, {self.num_tokens} tokens: {self.nats_per_token:.4f} nats per token, "
            f"perplexity {self.perplexity:.3f}, {self.nats_per_character:.4f} nats per character"
        )


@torch.inference_mode()
def score_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Iterable[tuple[str, str]],
    batch_tokens: int = 4096,
    read_ahead: int = 1024,
    tag: str | None = None,
) -> Iterator[PairScore]:
    """Scores given translations, and yields one score for each, in their order.

    Args:
        model: a sequence-to-sequence model, or an ensemble; in eval mode.
        tokenizer: its tokenizer.
        pairs: of source and translation; may be a stream.
        batch_tokens: tokens of a side that are scored at a time, padding included; a longer sentence is scored alone.
        read_ahead: pairs that are read and sorted by length together. With 1, each pair is scored before the next one
            is read.
        tag: what to put in front of each source, such as "2de" for the token `<2de>`.

    Yields:
        A score for every pair, empty ones too.

    Raises:
        ValueError: the model is in training mode; `batch_tokens` or `read_ahead` is less than 1; a source has no token,
            not even `</s>`; a side has more tokens than the model has learned positions; or the tokenizer has no such
            tag.
    """
    for name, value in (("batch_tokens", batch_tokens), ("read_ahead", read_ahead)):
        if value < 1:
            raise ValueError(f"`{name}`={value} is not allowed; allowed: an integer of at least 1")
    refuse_training_mode(model)
    tags = tags_to_add(tokenizer, tag)
    stream, num_read = ((tagged(source, tags), target) for source, target in pairs), 0
    while window := list(islice(stream, read_ahead)):
        yield from _score_window(model, tokenizer, window, batch_tokens, num_read)
        num_read += len(window)


def _score_window(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    window: list[tuple[str, str]],
    batch_tokens: int,
    num_before: int,
) -> Iterator[PairScore]:
    sources = text_to_ids(tokenizer, [source for source, _ in window])
    labels = text_to_ids(tokenizer, [target for _, target in window], as_target=True)
    if [] in sources:
        raise ValueError(
            f"pair {num_before + sources.index([])} (from 0): the tokenizer makes no token of the source, so there is "
            "nothing to translate; use a tokenizer that adds </s>, or leave out the pair"
        )
    limit = max_source_length(model)
    for index, sides in enumerate(zip(sources, labels, strict=True)):
        if limit is not None and max(map(len, sides)) > limit:
            raise ValueError(
                f"pair {num_before + index} (from 0) has {len(sides[0])} and {len(sides[1])} tokens, but the model has "
                f"{limit} learned positions; leave out the pair, or score with a model that has sinusoids"
            )
    log_probs: list[tuple[float, ...]] = [()] * len(window)
    # Without </s>, an empty translation has no token, and its log-probability is 0.
    indices = [index for index, ids in enumerate(labels) if ids]
    lengths = [max(len(sources[index]), len(labels[index])) for index in indices]
    for batch_indices in token_batches(lengths, batch_tokens):
        chosen = [indices[index] for index in batch_indices]
        examples = [{"input_ids": sources[index], "labels": labels[index]} for index in chosen]
        batch = {
            name: tensor.to(model.device) for name, tensor in padded_batch(examples, model.config.pad_token_id).items()
        }
        for index, row in zip(chosen, forced_log_probs(model, **batch).tolist(), strict=True):
            log_probs[index] = tuple(row[: len(labels[index])])
    for (source, target), ids, values in zip(window, labels, log_probs, strict=True):
        yield PairScore(
            tokens=tuple(tokenizer.convert_ids_to_tokens(ids)),
            token_log_probs=values,
            num_characters=len(target) + 1,
            has_empty_side=not (source.strip() and target.strip()),
        )
