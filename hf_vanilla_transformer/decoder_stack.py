"""§3.1 "Decoder": what a stack of causal layers does with or without an encoder: positions, masks and cache."""

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.cache_utils import Cache, EncoderDecoderCache

from .attention import MultiHeadAttention, config_of_call, config_of_masks
from .attention_linear import DECODER_MASKS
from .attention_patterns import PATTERNS, dense_mask
from .configuration_vanilla_transformer import VanillaTransformerConfig
from .dropout import Dropout
from .embeddings import token_embedding
from .encoder import final_norm, refuse_other_shape
from .modeling_compatibility import cache_for_masks
from .modeling_pretrained import VanillaTransformerPreTrainedModel
from .norms import embedding_norm
from .positions import added_positions, position_ids_from_mask, refuse_unlearned_positions
from .positions_relative import RELATIONS


class TargetInputs(NamedTuple):
    """§3.1: what the layers of a decoder get of the target, and the config of the call."""

    inputs_embeds: torch.Tensor  # (B, T, D)
    position_ids: torch.Tensor  # (B, T) or (1, T)
    attention_mask: Any
    cache: Cache | None
    key_positions: torch.Tensor | None  # (B, L) or (1, L)
    config: VanillaTransformerConfig


class TargetStack(VanillaTransformerPreTrainedModel):
    """§3.1: what a decoder is with or without an encoder: target, positions, causal masks, cache and N layers.

    Args:
        config: the model's config; `num_decoder_layers` is N.
        sees_later: whether some queries see later keys.
    """

    def __init__(self, config: VanillaTransformerConfig, sees_later: bool = False) -> None:
        super().__init__(config)
        self.embed_tokens = token_embedding(config, config.vocab_size)
        self.embed_positions = added_positions(config)
        self.embedding_norm = embedding_norm(config)
        self.relate_positions = RELATIONS[config.position_encoding](config, is_causal=not sees_later)
        self.restrict_attention = PATTERNS[config.attention_pattern](config)
        self.reads_key_positions = self.relate_positions.reads_keys or self.restrict_attention.reads_keys
        self.make_mask = DECODER_MASKS[config.attention]
        self.word_dropout = nn.Dropout1d(config.word_dropout)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList([self._make_layer(config, index) for index in range(config.num_decoder_layers)])
        self._no_split_modules = [type(self.layers[0]).__name__]  # only this class: FSDP refuses names of absent ones
        self.final_norm = final_norm(config)
        self.gradient_checkpointing = False  # transformers makes no cache if this is set
        self.post_init()

    def _make_layer(self, config: VanillaTransformerConfig, index: int) -> nn.Module:
        raise NotImplementedError

    def _make_cache(self) -> Cache:
        raise NotImplementedError

    def _read_target(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        cache: Cache | None,
        inputs_embeds: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        use_cache: bool | None,
        output_attentions: bool | None,
        block_sequence_ids: torch.Tensor | None = None,
        may_be_packed: bool = False,
    ) -> TargetInputs:
        """Embeds the target and makes mask, positions and cache; the arguments are those of `forward`.

        `block_sequence_ids` (B, T) are transformers': tokens of one block, from 0, see each other. `may_be_packed` says
        whether `position_ids` that do not count on begin another text, which sees nothing of those before.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give the decoder either `input_ids` or `inputs_embeds`, and not both")
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
        cache_of_mask = cache
        if use_cache and cache is None:
            cache = self._make_cache()

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
        expanded_mask = attention_mask if padding_mask is None else None
        end_of_positions = end if position_ids is None else None  # shapes do not bound given positions
        given_positions = position_ids
        if position_ids is None and padding_mask is not None:
            position_ids = position_ids_from_mask(padding_mask)[:, -length:]
        elif position_ids is None:
            position_ids = (torch.arange(length, device=inputs_embeds.device) + past_length).unsqueeze(0)
        refuse_unlearned_positions(self.config, position_ids, end_of_positions)

        if isinstance(cache_of_mask, EncoderDecoderCache):
            cache_of_mask = cache_of_mask.self_attention_cache
        config = config_of_call(self.config, output_attentions)
        if config is not self.config and not isinstance(attention_mask, torch.Tensor | None):
            raise ValueError(
                f"`output_attentions` cannot be had with a {type(attention_mask).__name__}, which generation with a "
                f"static cache makes for {self.config._attn_implementation!r}; use a dynamic cache, or eager attention"
            )
        # By position, because the cache's name depends on transformers' version.
        masks = config_of_masks(config, self.reads_key_positions)
        attention_mask = self.make_mask(
            masks,
            inputs_embeds,
            attention_mask,
            cache_for_masks(cache_of_mask, masks._attn_implementation),
            position_ids=given_positions if may_be_packed else None,
            block_sequence_ids=block_sequence_ids,
        )
        key_positions = None
        if self.reads_key_positions:
            num_keys = end if attention_mask is None else attention_mask.shape[-1]
            key_positions = _positions_of_keys(
                self.config, given_positions, padding_mask, expanded_mask, end, num_keys, inputs_embeds.device
            )
        return TargetInputs(inputs_embeds, position_ids, attention_mask, cache, key_positions, config)


def _positions_of_keys(
    config: VanillaTransformerConfig,
    position_ids: torch.Tensor | None,
    padding_mask: torch.Tensor | None,
    expanded_mask: Any,
    end: int,
    num_keys: int,
    device: torch.device,
) -> torch.Tensor:
    """The positions (B or 1, L) of cached and new keys; those of keys that are masked have no meaning.

    Without `position_ids` they are numbered as the queries are: by the tokens of a mask (B, L), else by place.
    """
    if position_ids is not None and position_ids.shape[1] == num_keys:  # nothing is cached
        return position_ids
    sees = None
    if position_ids is not None and expanded_mask is not None:
        sees = dense_mask(expanded_mask, device)
        padding_mask = sees[:, -1]  # the last new token sees all keys but padding
    if padding_mask is None:
        positions = torch.arange(num_keys, device=device).unsqueeze(0)
    else:  # static caches have room for more than there is yet
        padding_mask = nn.functional.pad(padding_mask.to(device), (0, num_keys - padding_mask.shape[1]))
        positions = position_ids_from_mask(padding_mask)
    if position_ids is not None and not torch.compiler.is_compiling():
        new = slice(int(end) - position_ids.shape[1], int(end))
        is_other = positions[:, new] != position_ids
        if padding_mask is not None:
            is_other = is_other & padding_mask[:, new].ne(0)
        is_unknown = is_other.any()
        if sees is not None:  # nothing numbers what only earlier queries see, such as another of several packed texts
            is_unknown = is_unknown | (sees & ~sees[:, -1:]).any()
        if bool(is_unknown):
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


def kept_positions(hidden_states: torch.Tensor, logits_to_keep: int | torch.Tensor) -> torch.Tensor:
    """§3.4: selects the hidden states that get logits.

    Args:
        hidden_states: (B, T, D).
        logits_to_keep: how many of the last (0: all), or positions: (N,) for all rows, (B, N) for each, or a boolean
            mask (B, T).

    Returns:
        (B, N, D); (N, D) by a boolean mask.
    """
    if isinstance(logits_to_keep, int):
        return hidden_states[:, -logits_to_keep:]
    if logits_to_keep.dim() == 1:
        return hidden_states[:, logits_to_keep]
    if logits_to_keep.dtype == torch.bool:
        return hidden_states[logits_to_keep]
    return hidden_states.take_along_dim(logits_to_keep.unsqueeze(-1), dim=1)
