"""§3.2 without softmax: attention in time linear in the length, by features of queries and keys and running sums.

softmax(q . k) is replaced by phi(q) . phi(k), so that sum_j phi(k_j) v_j^T, which does not depend on the query, is
computed once (Katharopoulos et al., 2020). The features, of `attention_features`, decide what that similarity is.
"""

import contextlib
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask

from .attention import AttentionFunction, MultiHeadAttention, refuse_without_effect, split_heads
from .attention_features import FEATURE_MAPS
from .configuration_vanilla_transformer import VanillaTransformerConfig
from .decoding_cache import RunningSums

# Causal sums are kept for every so many positions: each needs as much memory as F positions' keys.
CHUNK = 64


class LinearAttention(MultiHeadAttention):
    """Self-attention in linear time: sum_j phi(q_i) . phi(k_j) v_j / sum_j phi(q_i) . phi(k_j) for each query i.

    In the decoder j runs to i, by sums that grow from chunk to chunk. There is no implementation to choose.
    """

    def __init__(self, config: VanillaTransformerConfig, layer_idx: int | None = None, is_causal: bool = False) -> None:
        super().__init__(config, layer_idx, is_causal)
        assert config.feature_map is not None  # the config resolves it
        self.feature_map = FEATURE_MAPS[config.feature_map](config)
        self.least = self.feature_map.least  # here too, because step-by-step decoding makes a function of the module

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        key_value_states: torch.Tensor | None = None,
        cache: Cache | None = None,
        implementation: str | AttentionFunction | None = None,
        positions: Any = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends from each position of `hidden_states` over all of them, or over all up to it.

        Args:
            hidden_states: (B, T, D). With a cache of K > 1 beams, these are T = K beams at one position.
            attention_mask: (B, T), True for tokens and False for padding; or None.
            key_value_states: None, as this is self-attention.
            cache: has `RunningSums`, or gets them; extended in place.
            implementation: that of other attentions.
            positions: what the stack's module of `positions_relative` returned.
            **kwargs: those of `PASSED_ON`.

        Returns:
            (B, T, D); and the weights (B, H, T, T) if `output_attentions`, here or in the config, asks for them.

        Raises:
            TypeError: an argument is unknown, or has no effect.
            ValueError: weights are asked for, and the cache holds earlier positions, of which there are only sums.
        """
        assert key_value_states is None
        if kwargs:
            refuse_without_effect(kwargs, implementation or self.config._attn_implementation)
        query = split_heads(self.q_proj(hidden_states), self.d_k)  # (B, H, T, d_k)
        key, value = self._project(hidden_states)  # (B, G, T, d_k), (B, G, T, d_v)
        if positions is not None:
            query, key = self._place(query, key, positions)
        has_weights = self._is_asked_for_weights(kwargs)
        with without_autocast(query.device.type):
            queries, keys = self._features_of_queries(query), self._features_of_keys(key, attention_mask)
            sums = self._sums(queries, keys, value.to(keys.dtype), cache, has_weights)
            heads = self._quotient(*sums).to(value.dtype)
            weights = self._weights(queries, keys).to(value.dtype) if has_weights else None
        return self.out_proj(heads.transpose(1, 2).flatten(2)), weights

    def _is_asked_for_weights(self, arguments: dict[str, Any]) -> bool:
        asked = arguments.get("output_attentions")
        return bool(self.config.output_attentions if asked is None else asked)

    def _features_of_queries(self, query: torch.Tensor) -> torch.Tensor:
        """Maps (B, H, T, d_k) to (B, G, R, T, F), for R = H / G queries for each head of keys."""
        features = self.feature_map(query.to(_precision(query)), are_keys=False)
        return features.unflatten(1, (-1, self.num_key_value_groups))

    def _features_of_keys(self, key: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Maps (B, G, L, d_k) to (B, G, L, F), 0 for padding."""
        features = self.feature_map(key.to(_precision(key)), are_keys=True)
        return features if attention_mask is None else features.masked_fill(~attention_mask[:, None, :, None], 0)

    def _quotient(self, numerators: torch.Tensor, denominators: torch.Tensor) -> torch.Tensor:
        """What `_sums` returns as heads (B, H, T, d_v)."""
        return (numerators / denominators.clamp(min=self.least)).flatten(1, 2)

    def _sums(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, cache: Cache | None, has_weights: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Numerators (B, G, R, T, d_v) and denominators (B, G, R, T, 1) of R = H / G queries for each head of keys."""
        if cache is None and not self.is_causal:
            return read_sums(queries, *sums_of_all(keys, values))
        if cache is None:
            return causal_sums(queries, keys, values)
        assert self.layer_idx is not None
        state = RunningSums.of_layer(cache, self.layer_idx)
        if state.length and has_weights:
            raise ValueError(
                f"`output_attentions` asks for the weights of {state.length} earlier positions, of which "
                "`attention`='linear' keeps only sums; pass use_cache=False"
            )
        earlier = (state.keys[:, 0], state.values[:, 0]) if state.length else None
        key_sums, value_sums = state.update(keys, values)
        if key_sums.shape[1] != queries.shape[3]:
            return causal_sums(queries, keys, values, earlier)
        # One position: each query reads the sums of its beam.
        of_beams = _products(queries.permute(0, 3, 1, 2, 4), key_sums, value_sums)  # (B, K, G, R, ...)
        return of_beams[0].permute(0, 2, 3, 1, 4), of_beams[1].permute(0, 2, 3, 1, 4)

    def _weights(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        products = torch.matmul(queries, keys.unsqueeze(2).transpose(-2, -1))  # (B, G, R, T, T)
        if self.is_causal:
            products = products.tril()
        return (products / products.sum(-1, keepdim=True).clamp(min=self.least)).flatten(1, 2)


def causal_sums(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    earlier: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each query, the sums over all keys up to its own position: in linear time, and in memory linear in T.

    Within a chunk of positions products of queries and keys are written out; all earlier chunks are one sum.

    Args:
        queries: (B, G, R, T, F) features of R queries for each head of keys.
        keys: (B, G, T, F) features, 0 for padding.
        values: (B, G, T, d_v).
        earlier: the sums over still earlier positions, (B, G, F) of keys and (B, G, F, d_v) of their products with
            values; or None.

    Returns:
        sum_j phi(q_i) . phi(k_j) v_j, (B, G, R, T, d_v), and sum_j phi(q_i) . phi(k_j), (B, G, R, T, 1).
    """
    length = queries.shape[-2]
    # A graph for any length cannot cut it into chunks, and takes time and memory quadratic in it.
    is_one = torch.compiler.is_exporting() or length <= CHUNK
    size, chunks = (length, 1) if is_one else (CHUNK, -(-length // CHUNK))
    padding = (0, 0, 0, chunks * size - length)
    queries, keys, values = (
        nn.functional.pad(each, padding).unflatten(-2, (chunks, size))
        for each in (queries, keys[:, :, None], values[:, :, None])
    )  # (B, G, R or 1, chunks, size, ...)
    products = torch.matmul(queries, keys.transpose(-2, -1)).tril()
    numerators, denominators = torch.matmul(products, values), products.sum(-1, keepdim=True)
    if chunks > 1 or earlier is not None:
        sums = keys.sum(-2), torch.matmul(keys.transpose(-2, -1), values)  # (B, G, 1, chunks, F), (..., F, d_v)
        before = _products(
            queries, *(_before_each(each, None if earlier is None else earlier[i]) for i, each in enumerate(sums))
        )
        numerators, denominators = numerators + before[0], denominators + before[1]
    return numerators.flatten(3, 4)[:, :, :, :length], denominators.flatten(3, 4)[:, :, :, :length]


def key_mask(
    config: VanillaTransformerConfig,
    inputs_embeds: torch.Tensor,
    attention_mask: Any,
    cache: Cache | None = None,
    is_causal: bool = False,
    of_source: bool = False,
) -> torch.Tensor | None:
    """Which of the new positions are tokens: the only mask that sums can have. Takes what transformers' masks take.

    Args:
        config: the model's config.
        inputs_embeds: (B, T, D), the new positions.
        attention_mask: (B, L), non-zero for tokens, of cached and new positions; or (B, 1, T, L), booleans or numbers
            to be added to scores, that hide padding and, if `is_causal`, later positions; or None.
        cache: holds the cached positions.
        is_causal: whether earlier positions are all that is attended to.
        of_source: whether the positions are those of the encoder's output, which the decoder attends over.

    Returns:
        (B, T) booleans, True for tokens; or None.

    Raises:
        ValueError: the mask hides anything else.
    """
    if attention_mask is None:
        return None
    start, length = 0 if cache is None else cache.get_seq_length(), inputs_embeds.shape[1]
    if isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2:
        return attention_mask[:, start : start + length].to(inputs_embeds.device) != 0
    if (
        isinstance(attention_mask, torch.Tensor)
        and attention_mask.dim() == 4
        and attention_mask.shape[-1] == start + length
    ):
        may_attend = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
        is_token = may_attend[:, 0, -1]  # the last query sees all keys but padding
        expected = is_token[:, None, None]
        if is_causal:
            places = torch.arange(is_token.shape[1], device=is_token.device)
            expected = expected & (places <= places[start : start + length, None])
        if torch.compiler.is_compiling() or bool((may_attend == expected).all()):
            return is_token[:, start : start + length]
    name, field = ("encoder_attention_mask", "cross_attention") if of_source else ("attention_mask", "attention")
    raise ValueError(
        f"`{name}` hides more than padding" + " and later positions" * is_causal + ", which sums cannot leave out for "
        f"single queries (`{field}`='linear'); give a mask (B, {start + length}) of the tokens, or use a model with "
        f"`{field}`='softmax'"
    )


def causal_key_mask(
    config: VanillaTransformerConfig,
    inputs_embeds: torch.Tensor,
    attention_mask: Any,
    cache: Cache | None = None,
    position_ids: torch.Tensor | None = None,
    block_sequence_ids: None = None,
) -> torch.Tensor | None:
    """`key_mask` of the decoder, which also takes masks (B, 1, T, L) that hide later positions.

    Args:
        config: as in `key_mask`.
        inputs_embeds: likewise.
        attention_mask: likewise.
        cache: likewise.
        position_ids: not read, because models refuse packed texts, which sums do not keep apart.
        block_sequence_ids: None, because sums leave out nothing for single queries.

    Raises:
        ValueError: as in `key_mask`.
    """
    return key_mask(config, inputs_embeds, attention_mask, cache, is_causal=True)


# Who makes the masks of the encoder's and of the decoder's self-attentions, by the config's `attention`.
ENCODER_MASKS = {"softmax": create_bidirectional_mask, "linear": key_mask}
DECODER_MASKS = {"softmax": create_causal_mask, "linear": causal_key_mask}


def sums_of_all(keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums over all positions: of features (B, G, L, F), and of their products with values (B, G, L, d_v).

    Returns:
        (B, G, F) and (B, G, F, d_v).
    """
    return keys.sum(2), torch.matmul(keys.transpose(2, 3), values)


def read_sums(
    queries: torch.Tensor, key_sums: torch.Tensor, value_sums: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Numerators (B, G, R, T, d_v) and denominators (B, G, R, T, 1) of queries that all see the same keys.

    Args:
        queries: (B, G, R, T, F) features.
        key_sums: (B, G, F), as `sums_of_all` returns it.
        value_sums: (B, G, F, d_v), likewise.
    """
    return _products(queries, key_sums.unsqueeze(2), value_sums.unsqueeze(2))


def _products(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Products of features (..., T, F) with sums (..., F) and (..., F, d_v)."""
    return torch.matmul(queries, values), torch.matmul(queries, keys.unsqueeze(-1))


def _before_each(sums: torch.Tensor, earlier: torch.Tensor | None) -> torch.Tensor:
    """Sums over all chunks (B, G, 1, chunks, ...) before each, and over `earlier` (B, G, ...)."""
    first = torch.zeros_like(sums[:, :, :, 0]) if earlier is None else earlier.unsqueeze(2)
    return torch.cat([first.unsqueeze(3), sums[:, :, :, :-1]], dim=3).cumsum(3)


def _precision(states: torch.Tensor) -> torch.dtype:
    """At least float32, because sums of many small numbers would lose them."""
    return torch.promote_types(states.dtype, torch.float32)


def without_autocast(device_type: str) -> contextlib.AbstractContextManager[Any]:
    """A context in which products have the type of their factors.

    Args:
        device_type: such as "cpu".
    """
    is_on = torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, enabled=False) if is_on else contextlib.nullcontext()
