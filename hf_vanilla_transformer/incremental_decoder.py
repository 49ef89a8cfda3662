"""§3.1 "Decoder" one position at a time, as §6.1 decodes: only the new position is computed, for all beams at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention import MultiHeadAttention, scaled_dot_product_attention, split_heads
from .decoder import DECODER_LAYERS, Decoder, DecoderLayer
from .embeddings import refuse_unlearned_positions
from .feed_forward import FeedForward
from .tall_projection import TallProjection

# Positions are encoded so many at a time, and more and more.
_ROOM = 32
Function = Callable[[torch.Tensor], torch.Tensor]


class IncrementalDecoder:
    """Runs a decoder position by position; the K beams of a sentence are so many queries of one row.

    The beams share the keys and values of their source, which are projected once. Keys and values of the target are
    shared as well: each position appends those of its K beams, nothing is ever reordered, and a mask says which of them
    are a beam's ancestors.

    Args:
        decoder: the decoder; one that `can_be_stepped`.
        lm_head: the pre-softmax projection.
        encoder_hidden_states: (B, S, D), the encoder's output.
        attention_mask: (B, S), non-zero for source tokens; None if all are.
        cache: an empty cache to fill.
    """

    def __init__(
        self,
        decoder: Decoder,
        lm_head: nn.Module,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        cache: EncoderDecoderCache,
    ) -> None:
        self.decoder, self.cache = decoder, cache
        self.lm_head = _function(lm_head)
        if type(lm_head) is nn.Linear and TallProjection.is_for(lm_head.weight):
            self.lm_head = TallProjection(lm_head.weight, lm_head.bias)
        self.final_norm = _function(decoder.final_norm)
        self.dtype, self.device = encoder_hidden_states.dtype, encoder_hidden_states.device
        self.hidden = torch.finfo(self.dtype).min
        self.encoder_mask: torch.Tensor | None = None
        if attention_mask is not None and not bool(attention_mask.all()):
            self.encoder_mask = self._zeros(*attention_mask.shape).masked_fill(attention_mask == 0, self.hidden)
            self.encoder_mask = self.encoder_mask[:, None, None]  # (B, 1, 1, S)
        self.layers = [_Layer(layer, cache, encoder_hidden_states) for layer in decoder.layers]
        self.length = 0
        self.positions = self._zeros(0, 0)
        self.ancestors: torch.Tensor | None = None

    def start(self, prefix: torch.Tensor) -> torch.Tensor:
        """Reads the prefix (B, P) that all beams of a sentence share; returns the logits (B, 1, V) after it."""
        length = prefix.shape[1]
        mask = self._zeros(length, length).fill_(self.hidden).triu_(1)[None, None] if length > 1 else None
        return self.lm_head(self._forward(prefix, mask, length)[:, -1:])

    def advance(self, tokens: torch.Tensor, parents: torch.Tensor | None = None) -> torch.Tensor:
        """Reads one more token of each beam.

        Args:
            tokens: (B, K).
            parents: (B, K), which beam of the position before each of them continues; None where K is 1.

        Returns:
            The logits (B, K, V) of what follows.
        """
        return self.lm_head(self._forward(tokens, None if parents is None else self._ancestry(parents), 1))

    def keep(self, rows: torch.Tensor) -> None:
        """Goes on with some of the sentences only: those at `rows`, 1-dimensional indices."""
        self.cache.batch_select_indices(rows)
        if self.encoder_mask is not None:
            self.encoder_mask = self.encoder_mask[rows]
        if self.ancestors is not None:
            self.ancestors = self.ancestors[rows]

    def _forward(self, tokens: torch.Tensor, mask: torch.Tensor | None, new_positions: int) -> torch.Tensor:
        end = self.length + new_positions
        states = self.decoder.embed_tokens(tokens) + self._encoded_positions(end)[self.length : end]
        for layer in self.layers:
            states = layer(states, mask, self.encoder_mask)
        self.length = end
        return self.final_norm(states)

    def _ancestry(self, parents: torch.Tensor) -> torch.Tensor:
        batch_size, num_beams = parents.shape
        if self.ancestors is None:  # the prefix, which is everybody's
            ancestors = self._zeros(batch_size, num_beams, self.length)
        else:
            ancestors = self.ancestors.gather(1, parents.unsqueeze(-1).expand(-1, -1, self.ancestors.shape[-1]))
        itself = self._zeros(num_beams, num_beams).fill_(self.hidden).fill_diagonal_(0)
        self.ancestors = torch.cat([ancestors, itself.expand(batch_size, -1, -1)], dim=-1)
        return self.ancestors.unsqueeze(1)  # (B, 1, K, prefix + positions * K)

    def _encoded_positions(self, end: int) -> torch.Tensor:
        # What is added at each position, for many positions at a time; learned positions are limited in number.
        if end > len(self.positions):
            limit = self.decoder.config.num_learned_positions
            count = max(_ROOM, 2 * end)
            count = count if limit is None else max(end, min(count, limit))
            numbers = torch.arange(count, device=self.device)[None]
            refuse_unlearned_positions(self.decoder.config, numbers, count)
            nothing = self._zeros(1, count, self.decoder.config.d_model)
            self.positions = self.decoder.embed_positions(nothing, numbers)[0]
        return self.positions

    def _zeros(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)


class _Layer:
    """A layer of the decoder at the newest position: what `DecoderLayer.forward` computes, without its modules' cost.

    At one position a module's call takes as long as its arithmetic. So functions are looked up once, before the first
    step, and the encoder's output is projected then.
    """

    def __init__(self, layer: nn.Module, cache: EncoderDecoderCache, encoder_hidden_states: torch.Tensor) -> None:
        assert isinstance(layer, DecoderLayer)  # can_be_stepped
        own, cross, feed_forward = layer.self_attention, layer.cross_attention, layer.feed_forward
        self.index: int = own.layer_idx  # type: ignore[assignment]  # a decoder's layers all have one
        self.add_and_norm = ADD_AND_NORM[own.config.norm_position]
        self.norms = [
            _function(norm) for norm in (layer.self_attention_norm, layer.cross_attention_norm, layer.feed_forward_norm)
        ]
        self.own, self.own_cache = _Attention(own, encoder_hidden_states), cache.self_attention_cache.layers[self.index]
        self.cross, self.cross_cache = _Attention(cross, encoder_hidden_states), cache.cross_attention_cache
        self.cross_cache.update(
            *(split_heads(project(encoder_hidden_states), width).contiguous() for project, width in self.cross.sources),
            self.index,
        )
        cache.is_updated[self.index] = True
        self.fc1, self.activation, self.fc2 = (
            _function(part) for part in (feed_forward.fc1, feed_forward.activation, feed_forward.fc2)
        )

    def __call__(
        self, states: torch.Tensor, mask: torch.Tensor | None, encoder_mask: torch.Tensor | None
    ) -> torch.Tensor:
        states = self.add_and_norm(states, self.norms[0], lambda inputs: self._attend_to_target(inputs, mask))
        states = self.add_and_norm(states, self.norms[1], lambda inputs: self._attend_to_source(inputs, encoder_mask))
        return self.add_and_norm(states, self.norms[2], self._feed_forward)

    def _attend_to_target(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        key, value = (split_heads(project(states), width) for project, width in self.own.sources)
        keys, values = self.own_cache.update(key, value)
        return self.own(states, keys, values, mask)

    def _attend_to_source(self, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        cached = self.cross_cache.layers[self.index]
        return self.cross(states, cached.keys, cached.values, mask)

    def _feed_forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(states)))


class _Attention:
    """Multi-head attention (§3.2.2) of few queries over keys and values that are there."""

    def __init__(self, module: MultiHeadAttention, states: torch.Tensor) -> None:
        self.module, self.d_k, self.scaling = module, module.d_k, module.scaling
        self.q_proj, self.out_proj = _function(module.q_proj), _function(module.out_proj)
        self.sources = ((_function(module.k_proj), module.d_k), (_function(module.v_proj), module.d_v))
        # torch's fused attention on a CPU spreads a few queries over all cores, which costs more than it saves.
        is_written_out = states.device.type == "cpu" and states.dtype == torch.float32
        self.attention: Callable[..., tuple[torch.Tensor, Any]] = (
            scaled_dot_product_attention
            if is_written_out
            else ALL_ATTENTION_FUNCTIONS.get_interface(module.config._attn_implementation, scaled_dot_product_attention)
        )

    def __call__(
        self, states: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        query = split_heads(self.q_proj(states), self.d_k)
        heads, _ = self.attention(self.module, query, keys, values, mask, scaling=self.scaling)
        return self.out_proj(heads.flatten(2))


def _post_norm(states: torch.Tensor, norm: Function, sublayer: Function) -> torch.Tensor:
    return norm(states + sublayer(states))


def _pre_norm(states: torch.Tensor, norm: Function, sublayer: Function) -> torch.Tensor:
    return states + sublayer(norm(states))


ADD_AND_NORM: dict[str, Callable[[torch.Tensor, Function, Function], torch.Tensor]] = {
    "post": _post_norm,
    "pre": _pre_norm,
}


def is_changed(module: nn.Module) -> bool:
    """Whether somebody has replaced the `forward` of a module, or put a hook before or after it.

    Hooks of transformers that record outputs do not count: they stay for good once outputs were asked for, and do
    nothing unless they are again.
    """
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return "forward" in vars(module) or any(
        getattr(hook, "__module__", None) != "transformers.utils.output_capturing" for hook in hooks
    )


def can_be_stepped(decoder: Decoder) -> bool:
    """Whether a decoder computes what `IncrementalDecoder` computes: its parts are of their own classes, and unchanged.

    Args:
        decoder: any; its projections, normalisations and activations may be modules of other kinds.

    Returns:
        False where somebody put a part of another class, or a hook, into it.
    """
    kinds = {"self_attention": MultiHeadAttention, "cross_attention": MultiHeadAttention, "feed_forward": FeedForward}
    return not any(is_changed(part) for part in decoder.modules()) and all(
        type(layer) in DECODER_LAYERS.values()
        and all(type(getattr(layer, name)) is kind for name, kind in kinds.items())
        for layer in decoder.layers
    )


def _function(module: nn.Module) -> Function:
    """What a module computes, without the cost of calling a module where it is one of the plain ones."""
    if type(module) is nn.Linear:
        # By position, as nn.Linear does: quantised tensors, which compute F.linear themselves, look for them there.
        matrix, vector = module.weight, module.bias
        return lambda states: F.linear(states, matrix, vector)
    if type(module) is nn.LayerNorm:
        shape, weight, bias, eps = module.normalized_shape, module.weight, module.bias, module.eps
        return lambda states: torch.layer_norm(states, shape, weight, bias, eps)
    if type(module) is nn.ReLU:
        return torch.relu
    return module
