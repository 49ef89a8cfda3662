"""What each attention head looks at, and which heads can be switched off, by public hooks on the model."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..attention import MultiHeadAttention
from ..data.batching import padded_batch, token_batches
from ..loss import IGNORED_LABEL
from ..modeling_pretrained import VanillaTransformerPreTrainedModel
from ..tokenization_ids import text_to_ids
from ..tokenization_tags import tagged, tags_to_add
from ..translation_batches import refuse_training_mode
from ..translation_pieces import max_source_length
from ..translation_scoring import shift_right

# The three uses of multi-head attention (section 3.2.3 of the paper), and what a reader calls them.
KINDS = {"encoder": "encoder self-attention", "decoder": "decoder self-attention", "cross": "cross-attention"}


@dataclass(frozen=True, order=True)
class Head:
    """One head of one attention.

    Args:
        kind: of `KINDS`.
        layer: which layer of the encoder or decoder, from 1.
        number: which head of the layer, from 1.
    """

    kind: str
    layer: int
    number: int

    def __str__(self) -> str:
        return f"{self.kind} {self.layer}.{self.number}"


@dataclass(frozen=True)
class HeadStatistics:
    """What a head looks at, as means over its queries; weights of one query sum to 1.

    Queries are the tokens of sentences. Left out are, in the encoder, the end of sentence, and in the decoder's
    self-attention `<s>`, which sees nothing but itself. None is what a kind of attention does not have.

    Args:
        confidence: mean of the greatest weight, in which the end of sentence does not count as a key (Voita et al.,
            2019, "Analyzing Multi-Head Self-Attention", section 4).
        entropy: of the weights over all keys, in nats.
        previous: weight of the token before the query, over the queries that have one. In self-attention only, as the
            next four.
        same: weight of the query's own token.
        following: weight of the token after the query, over the queries that have one; in the encoder only.
        most_previous: share of the queries, from 0 to 1, whose greatest weight is that of the token before.
        most_following: likewise of the token after; in the encoder only.
        end: weight of the end of the source; not in the decoder's self-attention.
        start: weight of `<s>`; in the decoder's self-attention only.
    """

    confidence: float
    entropy: float
    previous: float | None = None
    same: float | None = None
    following: float | None = None
    most_previous: float | None = None
    most_following: float | None = None
    end: float | None = None
    start: float | None = None


def attentions(model: PreTrainedModel) -> dict[tuple[str, int], MultiHeadAttention]:
    """Finds the attentions of a model.

    Args:
        model: of this package.

    Returns:
        Every attention, by kind and layer.

    Raises:
        ValueError: the model is of another package, or one of its attentions was replaced by another class.
    """
    if not isinstance(model, VanillaTransformerPreTrainedModel):
        raise ValueError(
            f"heads are read from models of this package, and this is a {type(model).__name__}; Marian, fairseq and "
            "torch.nn.Transformer checkpoints become one by `vanilla-transformer convert`"
        )
    encoder, decoder = model.get_encoder(), model.get_decoder()
    found = {("encoder", number): layer.self_attention for number, layer in enumerate(encoder.layers, start=1)}
    found |= {("decoder", number): layer.self_attention for number, layer in enumerate(decoder.layers, start=1)}
    found |= {("cross", number): layer.cross_attention for number, layer in enumerate(decoder.layers, start=1)}
    for (kind, number), attention in found.items():
        if not isinstance(attention, MultiHeadAttention):
            raise ValueError(
                f"the {KINDS[kind]} of layer {number} is a {type(attention).__name__}, whose heads are not known; "
                "only MultiHeadAttention is analysed"
            )
    return found


def heads_of(model: PreTrainedModel) -> list[Head]:
    """Lists all heads of a model: encoder, decoder, cross-attention, each from the first layer on.

    Args:
        model: of this package.

    Returns:
        The heads.

    Raises:
        ValueError: as in `attentions`.
    """
    return [
        Head(kind, layer, number)
        for (kind, layer), attention in attentions(model).items()
        for number in range(1, attention.config.num_heads + 1)
    ]


@contextmanager
def heads_off(model: PreTrainedModel, heads: Iterable[Head]) -> Iterator[None]:
    """Switches heads off for a block: what they contribute to the concatenation of section 3.2.2 becomes 0.

    A hook before the output projection does this, so it holds for every way in which the model can be called, cached
    decoding included. Hooks on the decoder make `generate()` call `forward()`, which is slower. Afterwards the model
    is what it was.

    Args:
        model: of this package.
        heads: which; none leaves the model alone.

    Yields:
        Nothing.

    Raises:
        ValueError: the model has no such head, or as in `attentions`.
    """
    chosen, known = set(heads), set(heads_of(model))
    if unknown := sorted(chosen - known):
        raise ValueError(f"this model has no head {unknown[0]}; `heads_of(model)` lists all it has")
    with ExitStack() as stack:
        for place, attention in attentions(model).items():
            indices = [head.number - 1 for head in chosen if (head.kind, head.layer) == place]
            if indices:
                hook = partial(_without_heads, indices=indices, width=attention.d_v)
                stack.callback(attention.out_proj.register_forward_pre_hook(hook).remove)
        yield


def _without_heads(
    module: nn.Module, args: tuple[torch.Tensor, ...], indices: list[int], width: int
) -> tuple[torch.Tensor, ...]:
    heads = args[0].unflatten(-1, (-1, width)).clone()  # (B, T, H, d_v)
    heads[..., indices, :] = 0
    return (heads.flatten(-2), *args[1:])


@torch.inference_mode()
def attention_statistics(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    batch_tokens: int = 4096,
    tag: str | None = None,
) -> dict[Head, HeadStatistics]:
    """Measures what all heads look at while the model reads sources and their given translations.

    Args:
        model: of this package, in eval mode.
        tokenizer: its tokenizer.
        pairs: of source and translation; those with a side without a visible character are left out.
        batch_tokens: tokens of a side at a time, padding included; a longer sentence is read alone.
        tag: what to put in front of each source, such as "2de" for the token `<2de>`.

    Returns:
        The statistics of each head, in the order of `heads_of`.

    Raises:
        ValueError: there is no pair with two visible sides, a side has more tokens than the model has learned
            positions, the model is in training mode, or the tokenizer has no such tag; or as in `attentions`.
    """
    refuse_training_mode(model)
    tags, places = tags_to_add(tokenizer, tag), list(attentions(model))
    kept = [(tagged(source, tags), target) for source, target in pairs if source.strip() and target.strip()]
    if not kept:
        raise ValueError("no pair has a source and a translation with visible characters: nothing to attend to")
    sources = text_to_ids(tokenizer, [source for source, _ in kept])
    labels = text_to_ids(tokenizer, [target for _, target in kept], as_target=True)
    lengths = [max(len(source), len(target)) for source, target in zip(sources, labels, strict=True)]
    limit = max_source_length(model)
    if limit is not None and max(lengths) > limit:
        raise ValueError(
            f"a sentence has {max(lengths)} tokens, but the model has {limit} learned positions; leave the sentence out"
        )
    eos = model.config.eos_token_id  # one id, several, or None
    ends = torch.tensor([] if eos is None else eos)
    totals: dict[tuple[str, int], _Totals] = {place: _Totals() for place in places}
    for indices in token_batches(lengths, batch_tokens):
        examples = [{"input_ids": sources[index], "labels": labels[index]} for index in indices]
        batch = padded_batch(examples, model.config.pad_token_id)
        is_source, is_target = batch["attention_mask"] != 0, batch["labels"] != IGNORED_LABEL
        is_end = torch.isin(batch["input_ids"], ends) & is_source
        outputs = model(
            input_ids=batch["input_ids"].to(model.device),
            attention_mask=batch["attention_mask"].to(model.device),
            decoder_input_ids=shift_right(model, batch["labels"]).to(model.device),
            use_cache=False,
            output_attentions=True,
            return_dict=True,
        )
        for kind, layer in places:
            total = totals[kind, layer]
            if kind == "encoder":
                weights = outputs.encoder_attentions[layer - 1].cpu().double()  # not every device has float64
                _add_shape(total, weights, is_source & ~is_end, ~is_end, is_end)
                _add_neighbours(total, weights, is_source & ~is_end, is_source)
            elif kind == "decoder":
                weights = outputs.decoder_attentions[layer - 1].cpu().double()
                queries = is_target.clone()
                queries[:, 0] = False
                _add_shape(total, weights, queries, torch.ones_like(is_target), None)
                _add_neighbours(total, weights, queries, None)
                total.add("start", weights[..., 0], queries)
            else:
                weights = outputs.cross_attentions[layer - 1].cpu().double()
                _add_shape(total, weights, is_target, ~is_end, is_end)
    return {
        Head(kind, layer, number): statistics
        for kind, layer in places
        for number, statistics in enumerate(totals[kind, layer].means(), start=1)
    }


class _Totals:
    """Sums over queries, for all heads of one attention."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}
        self.counts: dict[str, Any] = {}

    def add(self, name: str, values: torch.Tensor, queries: torch.Tensor) -> None:
        """Adds values (B, H, T) at those of the queries (B, T) that count."""
        values = torch.where(queries.unsqueeze(1), values, 0.0)
        self.sums[name] = self.sums.get(name, 0) + values.sum((0, 2))
        self.counts[name] = self.counts.get(name, 0) + queries.sum()

    def means(self) -> list[HeadStatistics]:
        # 0 where no query has such a neighbour, as in sentences of one token.
        means = {name: (total / self.counts[name].clamp(min=1)).tolist() for name, total in self.sums.items()}
        return [HeadStatistics(**dict(zip(means, row, strict=True))) for row in zip(*means.values(), strict=True)]


def _add_shape(
    total: _Totals, weights: torch.Tensor, queries: torch.Tensor, candidates: torch.Tensor, ends: torch.Tensor | None
) -> None:
    """Adds what can be said of any attention; weights (B, H, T, S), queries (B, T), keys that count (B, S)."""
    of_candidates = weights.masked_fill(~candidates[:, None, None, :], 0.0)
    total.add("confidence", of_candidates.amax(-1), queries)
    total.add("entropy", torch.special.entr(weights).sum(-1), queries)  # entr(0) is 0: masked keys add nothing
    if ends is not None:
        total.add("end", (weights * ends[:, None, None, :]).sum(-1), queries)


def _add_neighbours(
    total: _Totals, weights: torch.Tensor, queries: torch.Tensor, following: torch.Tensor | None
) -> None:
    """Adds shares of neighbours in self-attention (B, H, L, L); `following` are keys (B, L), or None if all are hidden.

    The end of sentence is the neighbour of the last token.
    """
    most = weights.argmax(-1)  # (B, H, L)
    places = torch.arange(weights.shape[-1], device=weights.device)
    total.add("same", weights.diagonal(dim1=-2, dim2=-1), queries)
    total.add("previous", weights.diagonal(-1, -2, -1), queries[:, 1:])
    total.add("most_previous", (most == places - 1).double()[..., 1:], queries[:, 1:])
    if following is not None:
        has_following = queries[:, :-1] & following[:, 1:]
        total.add("following", weights.diagonal(1, -2, -1), has_following)
        total.add("most_following", (most == places + 1).double()[..., :-1], has_following)
