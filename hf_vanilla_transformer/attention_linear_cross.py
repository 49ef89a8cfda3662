"""§3.2.3 "encoder-decoder attention" without softmax: sums over the source, which all target positions read."""

from typing import Any

import torch
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask

from .attention import AttentionFunction, MultiHeadAttention, refuse_without_effect, split_heads
from .attention_linear import LinearAttention, key_mask, read_sums, sums_of_all, without_autocast
from .configuration_vanilla_transformer import VanillaTransformerConfig
from .decoding_cache import RunningSums


class LinearCrossAttention(LinearAttention):
    """Attention over the encoder's output in time linear in both lengths (Katharopoulos et al., 2020).

    sum_j phi(q_i) . phi(k_j) v_j / sum_j phi(q_i) . phi(k_j) over all positions j of the source, so that the two sums
    over j are the same for all positions i of the target. Decoding makes them once, and keeps nothing else of the
    source. There is no implementation to choose.
    """

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
        """Attends from each position of `hidden_states` over all of the source.

        Args:
            hidden_states: (B, T, D), of the target.
            attention_mask: (B, S), True for source tokens and False for padding; or None.
            key_value_states: (B, S, D), the encoder's output.
            cache: that of an encoder-decoder model gets the sums, and has them from then on; another is not read.
            implementation: that of other attentions.
            positions: None, as they act in self-attention.
            **kwargs: those of `PASSED_ON`.

        Returns:
            (B, T, D); and the weights (B, H, T, S) if `output_attentions`, here or in the config, asks for them. They
            are made of the encoder's output again, for there are no keys in the cache.

        Raises:
            TypeError: an argument is unknown, or has no effect.
            ValueError: the cache holds the source's keys and values, which another model made.
        """
        assert key_value_states is not None
        assert positions is None
        if kwargs:
            refuse_without_effect(kwargs, implementation or self.config._attn_implementation)
        query = split_heads(self.q_proj(hidden_states), self.d_k)  # (B, H, T, d_k)
        has_weights = self._is_asked_for_weights(kwargs)
        sums, weights = self._kept_sums(cache), None
        if sums is None or has_weights:
            key, value = self._project(key_value_states)  # (B, G, S, d_k), (B, G, S, d_v)
        with without_autocast(query.device.type):
            queries = self._features_of_queries(query)
            if sums is None or has_weights:
                keys = self._features_of_keys(key, attention_mask)
                weights = self._weights(queries, keys).to(query.dtype) if has_weights else None
                sums = sums or self._new_sums(keys, value.to(keys.dtype), cache)
            heads = self._quotient(*read_sums(queries, *sums)).to(query.dtype)  # (B, H, T, d_v)
        return self.out_proj(heads.transpose(1, 2).flatten(2)), weights

    def _kept_sums(self, cache: Cache | None) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The sums (B, G, F) and (B, G, F, d_v) of an earlier call; None if this is the first."""
        if not isinstance(cache, EncoderDecoderCache) or not cache.is_updated.get(self.layer_idx):
            return None
        state = self._state(cache)
        return state.keys[:, 0], state.values[:, 0]

    def _new_sums(
        self, keys: torch.Tensor, values: torch.Tensor, cache: Cache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sums over the source, which the cache keeps if there is one."""
        if not isinstance(cache, EncoderDecoderCache):
            return sums_of_all(keys, values)
        state = self._state(cache)
        state.update(keys, values)
        cache.is_updated[self.layer_idx] = True
        return state.keys[:, 0], state.values[:, 0]

    def _state(self, cache: EncoderDecoderCache) -> RunningSums:
        assert self.layer_idx is not None
        return RunningSums.of_layer(cache, self.layer_idx, of_source=True)


def source_key_mask(
    config: VanillaTransformerConfig,
    inputs_embeds: torch.Tensor,
    attention_mask: Any,
    encoder_hidden_states: torch.Tensor,
) -> torch.Tensor | None:
    """`key_mask` of the source: which positions of the encoder's output are tokens. Takes what other masks take.

    Args:
        config: the model's config.
        inputs_embeds: (B, T, D), the target.
        attention_mask: (B, S), non-zero for source tokens; or (B, 1, T, S), booleans or numbers to be added to scores,
            that hide the same positions from all queries; or None.
        encoder_hidden_states: (B, S, D).

    Returns:
        (B, S) booleans, True for tokens; or None.

    Raises:
        ValueError: the mask hides anything else.
    """
    return key_mask(config, encoder_hidden_states, attention_mask, of_source=True)


# The attention over the encoder's output, and who makes its mask, by the config's `cross_attention`.
CROSS_ATTENTIONS: dict[str, type[MultiHeadAttention]] = {
    "softmax": MultiHeadAttention,
    "linear": LinearCrossAttention,
}
SOURCE_MASKS = {"softmax": create_bidirectional_mask, "linear": source_key_mask}
