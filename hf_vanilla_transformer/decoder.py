"""§3.1 "Decoder": a stack of N layers that also attend over the encoder's output; the right half of Figure 1."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention import MultiHeadAttention, passed_to_attention
from .attention_linear_cross import CROSS_ATTENTIONS, SOURCE_MASKS
from .attention_relative import self_attention
from .configuration_vanilla_transformer import VanillaTransformerConfig
from .decoder_stack import TargetStack
from .dropout import Dropout
from .encoder import refuse_other_shape, through_stack
from .feed_forward import FEED_FORWARDS
from .modeling_compatibility import CACHE, AnswersToBothCacheNames, recorder, strict_forward
from .norms import norm


class DecoderLayer(GradientCheckpointingLayer):
    """§3.1: masked self-attention, attention over the encoder's output, feed-forward, each with "Add & Norm"."""

    def __init__(self, config: VanillaTransformerConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attention = self_attention(config, layer_idx, is_causal=True)
        self.self_attention_norm = norm(config)
        self.cross_attention = CROSS_ATTENTIONS[config.cross_attention](config, layer_idx)
        self.cross_attention_norm = norm(config)
        self.feed_forward = FEED_FORWARDS[config.feed_forward](config)
        self.feed_forward_norm = norm(config)
        self.dropout = Dropout(config.dropout)

    # Tensors that need gradients are positional arguments: reentrant gradient checkpointing sees only those.
    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        positions: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Maps the target (B, T, D) and the encoder's output (B, S, D) to (B, T, D).

        Args:
            hidden_states: (B, T, D).
            attention_mask: hides later positions and padding of the target.
            encoder_hidden_states: (B, S, D).
            encoder_attention_mask: hides padding of the source.
            cache: key/value cache of earlier positions, extended in place.
            positions: what the self-attention needs of `relate_positions`.
            **kwargs: passed on to both attentions.

        Returns:
            (B, T, D).
        """
        attended, _ = self.self_attention(hidden_states, attention_mask, cache=cache, positions=positions, **kwargs)
        hidden_states = self.self_attention_norm(hidden_states + self.dropout(attended))

        attended, _ = self.cross_attention(
            hidden_states, encoder_attention_mask, encoder_hidden_states, cache=cache, **kwargs
        )
        hidden_states = self.cross_attention_norm(hidden_states + self.dropout(attended))

        transformed = self.feed_forward(hidden_states)
        return self.feed_forward_norm(hidden_states + self.dropout(transformed))


class PreNormDecoderLayer(DecoderLayer):
    """The variant `norm_position="pre"`: x + Dropout(Sublayer(LayerNorm(x))); the stack ends with one more norm."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        positions: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Maps the target (B, T, D) and the encoder's output (B, S, D) to (B, T, D); see `DecoderLayer.forward`."""
        attended, _ = self.self_attention(
            self.self_attention_norm(hidden_states), attention_mask, cache=cache, positions=positions, **kwargs
        )
        hidden_states = hidden_states + self.dropout(attended)

        attended, _ = self.cross_attention(
            self.cross_attention_norm(hidden_states),
            encoder_attention_mask,
            encoder_hidden_states,
            cache=cache,
            **kwargs,
        )
        hidden_states = hidden_states + self.dropout(attended)

        transformed = self.feed_forward(self.feed_forward_norm(hidden_states))
        return hidden_states + self.dropout(transformed)


class SandwichDecoderLayer(DecoderLayer):
    """The variant `norm_position="sandwich"` (Ding et al., 2021): x + Dropout(LayerNorm(Sublayer(LayerNorm(x))))."""

    def __init__(self, config: VanillaTransformerConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.self_attention_output_norm = norm(config)
        self.cross_attention_output_norm = norm(config)
        self.feed_forward_output_norm = norm(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        positions: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Maps the target (B, T, D) and the encoder's output (B, S, D) to (B, T, D); see `DecoderLayer.forward`."""
        attended, _ = self.self_attention(
            self.self_attention_norm(hidden_states), attention_mask, cache=cache, positions=positions, **kwargs
        )
        hidden_states = hidden_states + self.dropout(self.self_attention_output_norm(attended))

        attended, _ = self.cross_attention(
            self.cross_attention_norm(hidden_states),
            encoder_attention_mask,
            encoder_hidden_states,
            cache=cache,
            **kwargs,
        )
        hidden_states = hidden_states + self.dropout(self.cross_attention_output_norm(attended))

        transformed = self.feed_forward(self.feed_forward_norm(hidden_states))
        return hidden_states + self.dropout(self.feed_forward_output_norm(transformed))


DECODER_LAYERS: dict[str, type[DecoderLayer]] = {
    "post": DecoderLayer,
    "pre": PreNormDecoderLayer,
    "sandwich": SandwichDecoderLayer,
}


@dataclass
class DecoderOutput(AnswersToBothCacheNames, BaseModelOutputWithPastAndCrossAttentions):
    """Output of the `Decoder`: transformers' output, with two names for the cache."""


class Decoder(TargetStack):
    """§3.1: embeds the target, adds positions and passes the sum through N identical layers.

    Args:
        config: the model's config; `num_decoder_layers` is N.
    """

    _can_record_outputs = {
        "hidden_states": recorder(DecoderLayer, index=0, layers="num_decoder_layers"),
        "attentions": recorder(MultiHeadAttention, index=1, name="self_attention"),
        "cross_attentions": recorder(MultiHeadAttention, index=1, name="cross_attention"),
    }

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        self.make_source_mask = SOURCE_MASKS[config.cross_attention]

    def _make_layer(self, config: VanillaTransformerConfig, index: int) -> nn.Module:
        return DECODER_LAYERS[config.norm_position](config, index)

    def _make_cache(self) -> Cache:
        return EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))

    @strict_forward
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> DecoderOutput:
        """Decodes a batch of target prefixes, given the encoded sources.

        Args:
            input_ids: (B, T) target tokens, shifted right; or `inputs_embeds`. With a cache, only the new ones.
            attention_mask: (B, cached + T) padding mask of the target, non-zero for tokens; or an already expanded
                (B, 1, T, cached + T) mask, which must then be causal itself.
            encoder_hidden_states: (B, S, D), the encoder's output.
            encoder_attention_mask: (B, S), non-zero for source tokens.
            cache: key/value cache of earlier positions; extended in place and returned.
            inputs_embeds: (B, T, D) in place of `input_ids`, already multiplied by sqrt(d_model).
            position_ids: (B, T); by default, positions continue those of the cache and skip the padding of a mask
                (B, cached + T). An expanded mask does not say what is padding, so all places are counted then.
            use_cache: whether to make and return a cache; None leaves it to the config.
            **kwargs: `output_hidden_states`, `output_attentions`, and those of the attention implementation.

        Returns:
            `last_hidden_state` (B, T, D), `cache`, and the requested outputs.

        Raises:
            ValueError: neither or both of `input_ids` and `inputs_embeds` were given, or no encoder output; a mask has
                another length; a position was never learned; there is a cache in training with gradient checkpointing,
                or with a layer that is used twice.
            TypeError: an argument is unknown.
        """
        if encoder_hidden_states is None:
            raise ValueError("the decoder attends over the encoder's output: give it `encoder_hidden_states` (B, S, D)")
        target = self._read_target(
            input_ids,
            attention_mask,
            cache,
            inputs_embeds,
            position_ids,
            use_cache,
            kwargs.get("output_attentions"),
        )
        if encoder_attention_mask is not None and encoder_attention_mask.dim() == 2:
            source_shape = (target.inputs_embeds.shape[0], encoder_hidden_states.shape[1])
            refuse_other_shape("encoder_attention_mask", encoder_attention_mask, source_shape, "the source")
        encoder_attention_mask = self.make_source_mask(
            target.config, target.inputs_embeds, encoder_attention_mask, encoder_hidden_states=encoder_hidden_states
        )
        hidden_states = self.through_layers(
            target.inputs_embeds,
            target.position_ids,
            target.attention_mask,
            encoder_hidden_states,
            encoder_attention_mask,
            target.cache,
            target.key_positions,
            implementation=target.config._attn_implementation,
            **passed_to_attention(kwargs),
        )
        return DecoderOutput(last_hidden_state=hidden_states, **{CACHE: target.cache})

    def through_layers(
        self,
        inputs_embeds: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None,
        cache: Cache | None,
        key_positions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Adds positions and passes the sum through the N layers; used by `forward` and step-by-step decoding.

        Args:
            inputs_embeds: (B, T, D), already multiplied by sqrt(d_model).
            position_ids: (B, T) or (1, T).
            attention_mask: over the target, as the attention implementation expects it.
            encoder_hidden_states: (B, S, D), the encoder's output.
            encoder_attention_mask: over the source, likewise.
            cache: key/value cache of earlier positions, extended in place; or None.
            key_positions: (B, L) or (1, L), the positions of cached and new keys; None unless `reads_key_positions`. A
                key's place in the cache need not be its position.
            **kwargs: `implementation`, and arguments for it.

        Returns:
            (B, T, D), the input of the pre-softmax projection.
        """
        return through_stack(
            self,
            inputs_embeds,
            position_ids,
            attention_mask,
            key_positions,
            encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            cache=cache,
            **kwargs,
        )
