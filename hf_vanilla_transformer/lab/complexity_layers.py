"""The layers of the paper's Table 1 and efficient attention, of equal width: what they are, and their operations."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from ..attention import MultiHeadAttention
from ..attention_linear import CHUNK, LinearAttention
from ..attention_patterns import LocalPattern
from ..configuration_vanilla_transformer import VanillaTransformerConfig

KERNEL_SIZE = 3


@dataclass(frozen=True)
class LayerType:
    """One row of Table 1, or a layer to set beside its rows.

    Args:
        name: what to call it.
        option: a word for it.
        complexity: operations of a layer as the paper states them, of length n, width d and kernel width k.
        exponent: that of n in them.
        make: makes the layer, given the width and the number of heads; maps (B, n, d) to (B, n, d).
        operations: multiplications and additions of all its matrix products for one sequence, given n, d and the
            number of heads.
        is_compiled: whether it is compiled: it then has no backward pass on a CPU.
    """

    name: str
    option: str
    complexity: str
    exponent: int
    make: Callable[[int, int], nn.Module]
    operations: Callable[[int, int, int], float]
    is_compiled: bool = False


class _Attention(nn.Module):
    def __init__(self, implementation: str, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.implementation = implementation
        self.attention = MultiHeadAttention(
            VanillaTransformerConfig(vocab_size=4, d_model=d_model, num_heads=num_heads, d_ff=d_model)
        )

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.attention(states, implementation=self.implementation)[0]


class _Linear(nn.Module):
    def __init__(self, is_causal: bool, d_model: int, num_heads: int) -> None:
        super().__init__()
        config = VanillaTransformerConfig(
            vocab_size=4, d_model=d_model, num_heads=num_heads, d_ff=d_model, attention="linear"
        )
        self.attention = LinearAttention(config, is_causal=is_causal)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.attention(states)[0]


class _Windowed(_Attention):
    """Flex attention over a window, compiled: its kernel leaves out the blocks that no query of it sees."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__("flex_attention", d_model, num_heads)
        self.compiled: Callable[..., Any] = torch.compile(flex_attention)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.attention(states, implementation=self._attend)[0]

    def _attend(
        self, module: nn.Module, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, None]:
        blocks = near_blocks(query.shape[2], WINDOW)
        return self.compiled(query, key, value, block_mask=blocks, scale=kwargs["scaling"]).transpose(1, 2), None


@functools.cache
def near_blocks(length: int, window: int, is_causal: bool = False) -> BlockMask:
    """The mask of flex attention over a window: which blocks hold it, made without n² booleans.

    Args:
        length: n.
        window: positions to either side.
        is_causal: whether only those before count.

    Returns:
        The mask, each block of queries with the blocks of keys to be computed for it.
    """
    count, aside = -(-length // _FLEX_BLOCK), -(-window // _FLEX_BLOCK)
    blocks = torch.arange(count)
    first = (blocks - aside).clamp(min=0)
    last = blocks if is_causal else (blocks + aside).clamp(max=count - 1)
    seen = (first[:, None] + blocks).clamp(max=count - 1)  # of which the first `last - first + 1` count
    numbers = (last - first + 1)[None, None].int()
    config = VanillaTransformerConfig(vocab_size=4, attention_pattern="local", attention_window=window)
    may_attend = LocalPattern(config).may_attend

    def is_near(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return may_attend(query, key)

    def is_near_before(batch: Any, head: Any, query: Any, key: Any) -> Any:
        return may_attend(query, key) & (query >= key)

    may_see = is_near_before if is_causal else is_near
    return BlockMask.from_kv_blocks(
        numbers, seen[None, None].int(), BLOCK_SIZE=_FLEX_BLOCK, mask_mod=may_see, seq_lengths=(length, length)
    )


class _Recurrent(nn.Module):
    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.gru = nn.GRU(d_model, d_model, batch_first=True)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.gru(states)[0]


class _Convolution(nn.Module):
    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(d_model, d_model, KERNEL_SIZE, padding=KERNEL_SIZE // 2)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.convolution(states.transpose(1, 2)).transpose(1, 2)


def attention_operations(length: int, d_model: int, num_heads: int) -> float:
    """Counts multiplications and additions of attention over all pairs of positions, projections included.

    Args:
        length: n.
        d_model: d.
        num_heads: h, which changes nothing.

    Returns:
        The operations of all matrix products.
    """
    return 8 * length * d_model**2 + 4 * length**2 * d_model  # four projections; products with keys and values


def _windowed_operations(length: int, d_model: int, num_heads: int) -> float:
    return windowed_operations(length, d_model, WINDOW)


def windowed_operations(length: int, d_model: int, window: int, is_causal: bool = False) -> float:
    """Counts multiplications and additions of attention over the blocks of `near_blocks`, projections included.

    Args:
        length: n.
        d_model: d.
        window: as there.
        is_causal: as there.

    Returns:
        The operations of all matrix products.
    """
    blocks, aside = -(-length // _FLEX_BLOCK), -(-window // _FLEX_BLOCK)
    seen = sum(min(i, aside) + 1 + (0 if is_causal else min(blocks - 1 - i, aside)) for i in range(blocks))
    return 8 * length * d_model**2 + 4 * min(length**2, seen * _FLEX_BLOCK**2) * d_model


def _linear_operations(is_causal: bool, length: int, d_model: int, num_heads: int) -> float:
    return linear_operations(length, d_model, num_heads, d_model // num_heads, is_causal)


def linear_operations(length: int, d_model: int, num_heads: int, features: int, is_causal: bool) -> float:
    """Counts multiplications and additions of linear attention, its four projections included, for one sequence.

    Args:
        length: n.
        d_model: d.
        num_heads: h.
        features: F of each head; what it takes to compute them is not counted.
        is_causal: whether sums grow from chunk to chunk.

    Returns:
        The operations of all matrix products.
    """
    projections = 8 * length * d_model**2
    if is_causal and length <= CHUNK:
        return projections + 2 * length**2 * (num_heads * features + d_model)
    whole = -(-length // CHUNK) * CHUNK if is_causal else length
    sums = 2 * whole * features * (2 * d_model + num_heads)  # of keys times values; read by queries, with denominators
    inside = 2 * whole * CHUNK * (num_heads * features + d_model)
    return projections + sums + (inside if is_causal else 0)


WINDOW = 64  # positions to either side
_FLEX_BLOCK = 128  # positions, flex attention's own default

EAGER, SDPA = "self-attention, eager", "self-attention, sdpa"
GRU, CONVOLUTION = "GRU", f"convolution, k = {KERNEL_SIZE}"
WINDOWED = f"self-attention, restricted to r = {WINDOW} (flex)"
LINEAR, CAUSAL = "linear attention", "linear attention, causal"

LAYER_TYPES = {
    each.name: each
    for each in (
        LayerType(EAGER, "eager", "n² · d", 2, partial(_Attention, "eager"), attention_operations),
        LayerType(SDPA, "sdpa", "n² · d", 2, partial(_Attention, "sdpa"), attention_operations),
        LayerType(GRU, "gru", "n · d²", 1, _Recurrent, lambda length, d_model, _: 12 * length * d_model**2),
        LayerType(
            CONVOLUTION,
            "convolution",
            "k · n · d²",
            1,
            _Convolution,
            lambda length, d_model, _: 2 * KERNEL_SIZE * length * d_model**2,
        ),
        LayerType(WINDOWED, "windowed", "r · n · d", 1, _Windowed, _windowed_operations, is_compiled=True),
        LayerType(LINEAR, "linear", "n · d²/h", 1, partial(_Linear, False), partial(_linear_operations, False)),
        LayerType(CAUSAL, "causal", "n · d²/h", 1, partial(_Linear, True), partial(_linear_operations, True)),
    )
}

# What is measured unless layers are named: Table 1 as far as it needs no compiler.
TABLE_1 = (EAGER, SDPA, GRU, CONVOLUTION)

# Why a compiled layer has no row of steps with a backward pass; torch 2.13 raises NotImplementedError.
NO_BACKWARD = "absent: flex attention has no backward pass on a CPU"

# The row of Table 1 that is missing there, and why.
ABSENT = (
    "self-attention, restricted",
    "r · n · d",
    1,
    "absent: a mask over a window saves nothing, and flex attention, which does, has to be compiled first: `--layers "
    "windowed`",
)
