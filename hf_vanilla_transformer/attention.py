"""§3.2: scaled dot-product attention, and the multi-head attention that is used in three places."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_vanilla_transformer import VanillaTransformerConfig
from .modeling_compatibility import PASSED_ON

# Up to this many keys, attention trains faster on a CPU with plain products than with torch's kernel.
_SHORT = 64
# How many numbers the CPU takes at a time. Of fewer keys, torch's softmax takes one after the other: with AVX-512, 15
# keys take ten times as long as 16.
_VECTOR = {"AVX512": 16, "AVX2": 8}.get(torch.backends.cpu.get_cpu_capability(), 1)

# Equation 1 as transformers calls it; see `scaled_dot_product_attention`.
AttentionFunction = Callable[..., tuple[torch.Tensor, torch.Tensor | None]]


def scaled_dot_product_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Equation 1: Attention(Q, K, V) = softmax(Q K^T / sqrt(d_k)) V, written out as the "eager" attention.

    The other implementations (sdpa, flash, flex) are those of transformers and have the same signature.

    Args:
        module: the calling layer, whose `training` flag is read.
        query: (B, H, T, d_k).
        key: (B, H, S, d_k); or with fewer heads, each for a group of the query's.
        value: (B, H, S, d_v), likewise.
        attention_mask: None, or a mask to add to the scores, broadcast to (B, H, T, S): 0 where the query may attend,
            the lowest finite number where it may not (transformers' mask for eager attention). A boolean mask, True
            where the query may attend, works as well.
        scaling: 1 / sqrt(d_k).
        dropout: probability of dropping a weight in training mode.
        **kwargs: used only by other implementations.

    Returns:
        The weighted values (B, T, H, d_v), and the weights (B, H, T, S).
    """
    products = _product(query, key.transpose(-2, -1))  # (B, H, T, S)
    if attention_mask is None:
        scores = products * scaling
    elif attention_mask.dtype == torch.bool:
        scores = (products * scaling).masked_fill(~attention_mask, torch.finfo(products.dtype).min)
    else:
        scores = torch.add(attention_mask, products, alpha=scaling)
        if scores.dtype == torch.float16:  # whose lowest number becomes -inf with 16 less, and a row of these NaN
            scores = scores.clamp(min=torch.finfo(scores.dtype).min)
    weights = _softmax(scores)
    if dropout and module.training:
        weights = nn.functional.dropout(weights, p=dropout, training=True)
    output = _product(weights, value)  # (B, H, T, d_v)
    return output.transpose(1, 2).contiguous(), weights


def _softmax(scores: torch.Tensor) -> torch.Tensor:
    """The softmax of Equation 1 over (B, H, T, S); few keys on a CPU are filled up with some of no weight."""
    num_keys = scores.shape[-1]
    if num_keys >= _VECTOR or scores.dtype != torch.float32 or not is_eager_on_cpu(scores):
        return torch.softmax(scores, dim=-1)
    filled = nn.functional.pad(scores, (0, _VECTOR - num_keys), value=-torch.inf)
    return torch.softmax(filled, dim=-1)[..., :num_keys]


def is_eager_on_cpu(states: torch.Tensor) -> bool:
    """Whether torch computes now, and on a CPU: where a detour may be faster. A compiler finds its own.

    Args:
        states: any tensor of the computation.
    """
    return states.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.jit.is_tracing()


def _product(of_heads: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
    """Multiplies (B, H, T, x) by (B, G, x, y), each of G matrices being that of H / G heads; returns (B, H, T, y)."""
    if shared.shape[1] == of_heads.shape[1]:
        return torch.matmul(of_heads, shared)
    # The heads of a group are more rows of one head.
    rows = of_heads.reshape(of_heads.shape[0], shared.shape[1], -1, of_heads.shape[-1])
    return torch.matmul(rows, shared).view(*of_heads.shape[:3], -1)


class MultiHeadAttention(nn.Module):
    """§3.2.2 "Multi-Head Attention": h attentions in parallel, each on its own projections of the inputs.

    MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O with head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V). One linear
    layer holds the matrices of all heads. With fewer `num_key_value_heads`, groups of heads share keys and values
    (Shazeer, 2019; Ainslie et al., 2023). The three uses of §3.2.3 are the encoder's self-attention, the decoder's
    masked self-attention (`is_causal`), and the decoder's attention over the encoder's output (`key_value_states`).

    Args:
        config: gives d_model, num_heads, num_key_value_heads, d_k, d_v, and the attention implementation.
        layer_idx: index of the decoder layer, which is its index in the key/value cache; None in the encoder.
        is_causal: whether a position attends only to itself and to earlier positions.
    """

    def __init__(self, config: VanillaTransformerConfig, layer_idx: int | None = None, is_causal: bool = False) -> None:
        super().__init__()
        assert config.d_k is not None  # the config resolves all three
        assert config.d_v is not None
        assert config.num_key_value_heads is not None
        self.config = config
        self.layer_idx = layer_idx
        # transformers treats a module without this attribute as causal.
        self.is_causal = is_causal
        self.num_key_value_groups = config.num_heads // config.num_key_value_heads  # a name that transformers reads
        self.d_k, self.d_v = config.d_k, config.d_v
        self.scaling = config.d_k**-0.5
        self.attention_dropout = config.attention_dropout
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.d_model, config.num_heads * config.d_k, bias=bias)
        self.k_proj = nn.Linear(config.d_model, config.num_key_value_heads * config.d_k, bias=bias)
        self.v_proj = nn.Linear(config.d_model, config.num_key_value_heads * config.d_v, bias=bias)
        self.out_proj = nn.Linear(config.num_heads * config.d_v, config.d_model, bias=bias)

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
        """Attends from each position of `hidden_states` over the keys and values.

        Args:
            hidden_states: (B, T, D), projected to queries, and in self-attention also to keys and values.
            attention_mask: which keys each query may see, in the form the attention implementation expects; or None.
            key_value_states: (B, S, D), the encoder's output, in cross-attention.
            cache: the key/value cache; read and extended in place.
            implementation: the attention implementation, as a name or a function; None leaves it to the config.
            positions: what the stack's module of `positions_relative` returned, in self-attention.
            **kwargs: those of `PASSED_ON`, for the attention implementation.

        Returns:
            (B, T, D), and the weights (B, H, T, S) or None if the implementation does not return them.

        Raises:
            TypeError: an argument is unknown, or has no effect with this attention implementation.
        """
        implementation = implementation or self.config._attn_implementation
        if kwargs:
            refuse_without_effect(kwargs, implementation)
        hidden_states = _autocast(hidden_states)
        query = split_heads(self.q_proj(hidden_states), self.d_k)  # (B, H, T, d_k)
        if key_value_states is None:
            query, key, value = self._own_keys_and_values(query, hidden_states, cache, positions)
        else:
            key, value = self._keys_and_values_of_encoder(key_value_states, cache)
        if positions is not None:
            attention_mask = self._bias(query, attention_mask, positions)
        if key_value_states is not None and isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2:
            # Flash attention takes masks (B, S), but also applies them to the queries: it would drop the queries at
            # positions where the source is padded.
            implementation = "sdpa"
            # The mask is finite, so a source of nothing but padding gives no NaN.
            attention_mask = additive_mask(attention_mask[:, None, None, :] != 0, query.dtype)
        attention = implementation if callable(implementation) else attention_function(implementation)
        if attention is sdpa_attention_forward:
            attention_mask = _of_the_type_of(query, attention_mask)
        if attention is sdpa_attention_forward and self.training and _is_faster_written_out(query, key):
            attention = _written_out
        if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            attention = functools.partial(_in_float32, attention)
        heads, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=self.scaling,
            dropout=self.attention_dropout if self.training else 0.0,
            **kwargs,
        )
        if positions is not None:
            heads = self._relative_values(heads, weights, positions)
        return self.out_proj(heads.flatten(2)), weights  # (B, T, H * d_v) to (B, T, D)

    def _place(self, query: torch.Tensor, key: torch.Tensor, positions: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Marks the positions of queries and new keys in themselves; here not at all."""
        return query, key

    def _bias(self, query: torch.Tensor, attention_mask: Any, positions: Any) -> Any:
        """Adds what depends on queries and on positions to the mask; here nothing."""
        return attention_mask

    def _relative_values(self, heads: torch.Tensor, weights: torch.Tensor | None, positions: Any) -> torch.Tensor:
        """Adds values that depend on positions to the weighted values (B, T, H, d_v); here none."""
        return heads

    def _own_keys_and_values(
        self, query: torch.Tensor, hidden_states: torch.Tensor, cache: Cache | None, positions: Any
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        key, value = self._project(hidden_states)
        if positions is not None:
            query, key = self._place(query, key, positions)
        if cache is not None:
            own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
            key, value = own.update(key, value, self.layer_idx)
        return query, key, value

    def _keys_and_values_of_encoder(
        self, key_value_states: torch.Tensor, cache: Cache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not isinstance(cache, EncoderDecoderCache):
            return self._project(key_value_states)
        # The encoder's output is the same at every step, so its keys and values are projected only once.
        if cache.is_updated.get(self.layer_idx):
            layer = cache.cross_attention_cache.layers[self.layer_idx]
            return layer.keys, layer.values
        cache.is_updated[self.layer_idx] = True
        return cache.cross_attention_cache.update(*self._project(key_value_states), self.layer_idx)

    def _project(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states = _autocast(states)
        return split_heads(self.k_proj(states), self.d_k), split_heads(self.v_proj(states), self.d_v)


def _autocast(states: torch.Tensor) -> torch.Tensor:
    """Converts the input of several projections once; autocast would convert it for each of them."""
    device = states.device.type
    is_enabled = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return states.to(torch.get_autocast_dtype(device)) if is_enabled else states


def _of_the_type_of(query: torch.Tensor, attention_mask: Any) -> Any:
    """Converts a mask of numbers, which autocast on an accelerator would convert to one of infinities.

    Infinities make NaN of a query that may attend to nothing, such as padding. On a CPU, attention is not autocast.
    """
    is_number = isinstance(attention_mask, torch.Tensor) and attention_mask.is_floating_point()
    if not is_number or attention_mask.dtype == query.dtype or query.device.type == "cpu":
        return attention_mask
    return attention_mask.clamp(min=torch.finfo(query.dtype).min).to(query.dtype)


def _is_faster_written_out(query: torch.Tensor, key: torch.Tensor) -> bool:
    """Whether Equation 1 trains faster with plain products: up to twice as fast on a CPU, for sentences.

    For longer texts, the weights kept for the backward pass would be a large part of all activations.
    """
    return key.shape[-2] <= _SHORT and is_eager_on_cpu(query)


def _written_out(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Equation 1 in place of sdpa, which takes None as the causal mask and returns no weights."""
    if attention_mask is None and module.is_causal and query.shape[-2] > 1:
        attention_mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    return scaled_dot_product_attention(module, query, key, value, attention_mask, **kwargs)[0], None


def _in_float32(
    attention: AttentionFunction, module: nn.Module, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Runs attention in float32, because torch's backward pass in bf16 on a CPU is several times slower."""
    if isinstance(mask, torch.Tensor) and mask.is_floating_point():
        mask = mask.float()
    with torch.autocast("cpu", enabled=False):
        return attention(module, query.float(), key.float(), value.float(), mask, **kwargs)


def refuse_without_effect(arguments: dict[str, Any], implementation: str | AttentionFunction) -> None:
    """Refuses arguments of an attention that it does not know, or that do nothing.

    Args:
        arguments: the keyword arguments.
        implementation: that of the attention.

    Raises:
        TypeError: there is one; the message names it.
    """
    unknown = [name for name in arguments if name not in PASSED_ON]
    if unknown:
        raise TypeError(f"MultiHeadAttention.forward() does not know {', '.join(f'`{name}`' for name in unknown)}")
    if arguments.get("kernel_options") is not None and implementation != "flex_attention":
        raise TypeError(f"`kernel_options` are for flex attention, and have no effect with {implementation!r}")


def attention_function(name: str) -> AttentionFunction:
    """Looks up an attention implementation.

    Args:
        name: as in the config: "eager" is Equation 1 written out; the others are those of transformers.

    Returns:
        The function, with the signature of `scaled_dot_product_attention`.
    """
    return ALL_ATTENTION_FUNCTIONS.get_interface(name, scaled_dot_product_attention)


def passed_to_attention(arguments: dict[str, Any]) -> dict[str, Any]:
    """Selects a stack's arguments for its attention; decorators of transformers add others."""
    return {name: value for name, value in arguments.items() if name in PASSED_ON}


def config_of_call(config: VanillaTransformerConfig, output_attentions: bool | None) -> VanillaTransformerConfig:
    """The config of one call, with eager attention if the attention weights are requested.

    Fused implementations do not return weights. The model's own config is not changed, because others may use it.

    Args:
        config: the model's config.
        output_attentions: the caller's argument; None leaves it to the config.

    Returns:
        `config`, or a copy with `_attn_implementation="eager"`.
    """
    is_wanted = config.output_attentions if output_attentions is None else output_attentions
    if not is_wanted or config._attn_implementation == "eager":
        return config
    eager = copy.copy(config)
    eager._attn_implementation = "eager"
    return eager


def config_of_masks(config: VanillaTransformerConfig, are_numbers: bool) -> VanillaTransformerConfig:
    """The config by which transformers makes masks.

    Args:
        config: the config of the call.
        are_numbers: whether the mask has to be one of numbers, because a bias or a pattern is added to it.

    Returns:
        `config`, or a copy for which masks are those of eager attention. Flex attention keeps its own, which patterns
        restrict; biases do not come with it.
    """
    is_flex = config._attn_implementation == "flex_attention"
    return config_of_call(config, output_attentions=True) if are_numbers and not is_flex else config


def additive_mask(may_attend: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask to be added to the scores of Equation 1.

    Args:
        may_attend: (...) booleans, True where the query may attend.
        dtype: type of the scores.

    Returns:
        (...) in that type: 0 where the query may attend, the lowest finite number where it may not.
    """
    lowest = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=may_attend.device)
    return torch.where(may_attend, torch.zeros((), dtype=dtype, device=may_attend.device), lowest)


def add_bias(attention_mask: torch.Tensor | None, bias: torch.Tensor) -> torch.Tensor:
    """Adds a bias to a mask of numbers; what is masked stays finite, and masked.

    Args:
        attention_mask: (B or 1, H or 1, T, L), the lowest finite number where a query may not attend, or False;
            None if it may attend everywhere.
        bias: (B or 1, H or 1, T, L) numbers, which may be a mask themselves.

    Returns:
        (B or 1, H or 1, T, L) numbers.
    """
    if attention_mask is None:
        return bias
    if attention_mask.dtype == torch.bool:
        attention_mask = additive_mask(attention_mask, bias.dtype)
    biased = attention_mask + bias.to(attention_mask.dtype)
    return biased.clamp(min=torch.finfo(attention_mask.dtype).min)


def split_heads(states: torch.Tensor, width: int) -> torch.Tensor:
    """Splits a projection of all heads into the heads: (B, L, H * width) to (B, H, L, width)."""
    batch_size, length, _ = states.shape
    return states.view(batch_size, length, -1, width).transpose(1, 2)
