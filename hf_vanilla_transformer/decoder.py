"""§3.1 "Decoder": a stack of N layers that also attend over the encoder's output; the right half of Figure 1."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention import MultiHeadAttention, config_of_call, config_of_masks, passed_to_attention
from .attention_linear import DECODER_MASKS
from .attention_patterns import PATTERNS
from .attention_relative import self_attention
from .configuration_vanilla_transformer import VanillaTransformerConfig
from .dropout import Dropout
from .embeddings import token_embedding
from .encoder import final_norm, refuse_other_shape
from .feed_forward import FEED_FORWARDS
from .modeling_compatibility import CACHE, AnswersToBothCacheNames, recorder, strict_forward
from .modeling_pretrained import VanillaTransformerPreTrainedModel
from .norms import embedding_norm, norm
from .positions import added_positions, position_ids_from_mask, refuse_unlearned_positions
from .positions_relative import RELATIONS


class DecoderLayer(GradientCheckpointingLayer):
    """§3.1: masked self-attention, attention over the encoder's output, feed-forward, each with "Add & Norm"."""

    def __init__(self, config: VanillaTransformerConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attention = self_attention(config, layer_idx, is_causal=True)
        self.self_attention_norm = norm(config)
        self.cross_attention = MultiHeadAttention(config, layer_idx)
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


DECODER_LAYERS: dict[str, type[DecoderLayer]] = {"post": DecoderLayer, "pre": PreNormDecoderLayer}


@dataclass
class DecoderOutput(AnswersToBothCacheNames, BaseModelOutputWithPastAndCrossAttentions):
    """Output of the `Decoder`: transformers' output, with two names for the cache."""


class Decoder(VanillaTransformerPreTrainedModel):
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
        self.embed_tokens = token_embedding(config, config.vocab_size)
        self.embed_positions = added_positions(config)
        self.embedding_norm = embedding_norm(config)
        self.relate_positions = RELATIONS[config.position_encoding](config, is_causal=True)
        self.restrict_attention = PATTERNS[config.attention_pattern](config)
        self.reads_key_positions = self.relate_positions.reads_keys or self.restrict_attention.reads_keys
        self.make_mask = DECODER_MASKS[config.attention]
        self.dropout = Dropout(config.dropout)
        layer = DECODER_LAYERS[config.norm_position]
        self._no_split_modules = [layer.__name__]  # only this class: FSDP refuses names of absent ones
        self.layers = nn.ModuleList([layer(config, index) for index in range(config.num_decoder_layers)])
        self.final_norm = final_norm(config)
        self.gradient_checkpointing = False  # transformers makes no cache if this is set
        self.post_init()

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
            position_ids: (B, T); by default, positions continue those of the cache and skip padding.
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
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give the decoder either `input_ids` or `inputs_embeds`, and not both")
        if encoder_hidden_states is None:
            raise ValueError("the decoder attends over the encoder's output: give it `encoder_hidden_states` (B, S, D)")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            # Each layer runs again in the backward pass and would extend the cache again.
            if cache is not None:
                raise ValueError(
                    "gradient checkpointing cannot train with a cache of earlier positions; leave `cache` away, or "
                    "call `gradient_checkpointing_disable()`"
                )
            use_cache = False
        if use_cache and cache is None:
            cache = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))

        if cache is not None:
            _refuse_one_cache_for_two(self.layers)
        batch_size, length, _ = inputs_embeds.shape
        past_length = cache.get_seq_length() if cache is not None else 0
        end = past_length + length
        padding_mask = (
            attention_mask if isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2 else None
        )
        if padding_mask is not None:
            refuse_other_shape("attention_mask", padding_mask, (batch_size, end), "the target with what is cached")
        if encoder_attention_mask is not None and encoder_attention_mask.dim() == 2:
            source_shape = (batch_size, encoder_hidden_states.shape[1])
            refuse_other_shape("encoder_attention_mask", encoder_attention_mask, source_shape, "the source")
        end_of_positions = end if position_ids is None else None  # shapes do not bound given positions
        given_positions = position_ids
        if position_ids is None and padding_mask is not None:
            position_ids = position_ids_from_mask(padding_mask)[:, -length:]
        elif position_ids is None:
            position_ids = (torch.arange(length, device=inputs_embeds.device) + past_length).unsqueeze(0)
        refuse_unlearned_positions(self.config, position_ids, end_of_positions)

        self_attention_cache = cache
        if isinstance(cache, EncoderDecoderCache):
            self_attention_cache = cache.self_attention_cache
        config = config_of_call(self.config, kwargs.get("output_attentions"))
        if config is not self.config and not isinstance(attention_mask, torch.Tensor | None):
            raise ValueError(
                f"`output_attentions` cannot be had with a {type(attention_mask).__name__}, which generation with a "
                f"static cache makes for {self.config._attn_implementation!r}; use a dynamic cache, or eager attention"
            )
        # By position, because the cache's name depends on transformers' version.
        masks = config_of_masks(config, self.reads_key_positions)
        attention_mask = self.make_mask(masks, inputs_embeds, attention_mask, self_attention_cache)
        encoder_attention_mask = create_bidirectional_mask(
            config, inputs_embeds, encoder_attention_mask, encoder_hidden_states=encoder_hidden_states
        )
        key_positions = None
        if self.reads_key_positions:
            num_keys = end if attention_mask is None else attention_mask.shape[-1]
            key_positions = _positions_of_keys(
                self.config, given_positions, attention_mask, end, num_keys, inputs_embeds.device
            )
        hidden_states = self.through_layers(
            inputs_embeds,
            position_ids,
            attention_mask,
            encoder_hidden_states,
            encoder_attention_mask,
            cache,
            key_positions,
            implementation=config._attn_implementation,
            **passed_to_attention(kwargs),
        )
        return DecoderOutput(last_hidden_state=hidden_states, **{CACHE: cache})

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
        hidden_states = self.dropout(self.embedding_norm(self.embed_positions(inputs_embeds, position_ids)))
        attention_mask = self.restrict_attention(attention_mask, position_ids, key_positions, hidden_states.dtype)
        attention_mask, positions = self.relate_positions(
            attention_mask, position_ids, key_positions, hidden_states.dtype
        )
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                attention_mask,
                encoder_hidden_states,
                encoder_attention_mask=encoder_attention_mask,
                cache=cache,
                positions=positions,
                **kwargs,
            )
        return self.final_norm(hidden_states)


def _positions_of_keys(
    config: VanillaTransformerConfig,
    position_ids: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    end: int,
    num_keys: int,
    device: torch.device,
) -> torch.Tensor:
    """The positions (B or 1, L) of cached and new keys; those of keys that are masked have no meaning."""
    if position_ids is None and attention_mask is None:
        return torch.arange(num_keys, device=device).unsqueeze(0)
    if position_ids is not None and position_ids.shape[1] == num_keys:  # nothing is cached
        return position_ids
    # The last new token sees all keys but padding. Static caches have room for more than there is yet.
    is_seen = torch.ones(1, num_keys, dtype=torch.bool, device=device)
    if attention_mask is not None:
        last = attention_mask[:, 0, -1]
        is_seen = last if last.dtype == torch.bool else last == 0
    positions = position_ids_from_mask(is_seen)
    if position_ids is not None and not torch.compiler.is_compiling():
        new = slice(int(end) - position_ids.shape[1], int(end))
        if bool(((positions[:, new] != position_ids) & is_seen[:, new]).any()):
            raise ValueError(
                f"`position_encoding`={config.position_encoding!r} with `attention_pattern`="
                f"{config.attention_pattern!r} has to know the positions of all keys, and a cache does not hold them; "
                "leave `position_ids` away, or use no cache"
            )
    return positions


def _refuse_one_cache_for_two(layers: nn.ModuleList) -> None:
    """Refuses a cache in which one layer would find the keys of another."""
    attentions = [getattr(layer, "self_attention", None) for layer in layers]
    places = [each.layer_idx for each in attentions if isinstance(each, MultiHeadAttention)]
    if len(set(places)) < len(places):
        raise ValueError(
            f"layers of the decoder have the places {', '.join(map(str, places))} in the cache, of which one is there "
            "twice; give each attention a `layer_idx` of its own, or pass use_cache=False"
        )
