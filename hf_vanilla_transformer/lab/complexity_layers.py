"""The layers of the paper's Table 1, of equal width: what they are, and how many operations they take."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from ..attention import MultiHeadAttention
from ..configuration_vanilla_transformer import VanillaTransformerConfig

KERNEL_SIZE = 3


@dataclass(frozen=True)
class LayerType:
    """One row of Table 1.

    Args:
        name: what to call it.
        complexity: operations of a layer as the paper states them, of length n, width d and kernel width k.
        exponent: that of n in them.
        make: makes the layer, given the width and the number of heads; maps (B, n, d) to (B, n, d).
        operations: multiplications and additions of all its matrix products for one sequence, given n and d.
    """

    name: str
    complexity: str
    exponent: int
    make: Callable[[int, int], nn.Module]
    operations: Callable[[int, int], float]


class _Attention(nn.Module):
    def __init__(self, implementation: str, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.implementation = implementation
        self.attention = MultiHeadAttention(
            VanillaTransformerConfig(vocab_size=4, d_model=d_model, num_heads=num_heads, d_ff=d_model)
        )

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.attention(states, implementation=self.implementation)[0]


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


def _attention_operations(length: int, d_model: int) -> float:
    return 8 * length * d_model**2 + 4 * length**2 * d_model  # four projections; products with keys and values


EAGER, SDPA = "self-attention, eager", "self-attention, sdpa"
GRU, CONVOLUTION = "GRU", f"convolution, k = {KERNEL_SIZE}"

LAYER_TYPES = {
    each.name: each
    for each in (
        LayerType(EAGER, "n² · d", 2, partial(_Attention, "eager"), _attention_operations),
        LayerType(SDPA, "n² · d", 2, partial(_Attention, "sdpa"), _attention_operations),
        LayerType(GRU, "n · d²", 1, _Recurrent, lambda length, d_model: 12 * length * d_model**2),
        LayerType(
            CONVOLUTION,
            "k · n · d²",
            1,
            _Convolution,
            lambda length, d_model: 2 * KERNEL_SIZE * length * d_model**2,
        ),
    )
}

# The row of Table 1 that is not measured, and why.
ABSENT = (
    "self-attention, restricted",
    "r · n · d",
    1,
    "absent: without torch.compile, flex attention computes all n² scores on a CPU, and a mask over a window saves "
    "nothing either",
)
