"""§3.2.2 self-attention that knows positions: rotated queries and keys, or learned vectors per distance."""

from typing import Any

import torch
from torch import nn

from .attention import MultiHeadAttention, add_bias, is_eager_on_cpu
from .attention_linear import LinearAttention
from .configuration_vanilla_transformer import VanillaTransformerConfig


class RotaryAttention(MultiHeadAttention):
    """Self-attention with rotary positions (Su et al., 2021); see `RotaryPositions`.

    Dimensions are paired as in the paper, each with the next one; with `sinusoid_layout="concatenated"` the first half
    with the second, as in LLaMA.
    """

    def __init__(self, config: VanillaTransformerConfig, layer_idx: int | None = None, is_causal: bool = False) -> None:
        super().__init__(config, layer_idx, is_causal)
        self.are_neighbours = config.sinusoid_layout == "interleaved"

    def _place(self, query: torch.Tensor, key: torch.Tensor, positions: Any) -> tuple[torch.Tensor, torch.Tensor]:
        cosines, sines = positions
        return self._rotated(query, cosines, sines), self._rotated(key, cosines, sines)

    def _rotated(self, states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
        """Turns each pair of dimensions of (B, H, T, d_k) by its angle, in float32."""
        if self.are_neighbours and is_eager_on_cpu(states):
            return _rotated_as_complex(states, cosines, sines)
        if self.are_neighbours:
            first, second = states.unflatten(-1, (-1, 2)).unbind(-1)
        else:
            first, second = states.chunk(2, dim=-1)
        turned = (first * cosines - second * sines, first * sines + second * cosines)  # each (B, H, T, d_k / 2)
        joined = torch.stack(turned, dim=-1).flatten(-2) if self.are_neighbours else torch.cat(turned, dim=-1)
        return joined.to(states.dtype)


def _rotated_as_complex(states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """The same numbers by one product of each pair as a complex number, which takes a third of the time.

    Neither compilers nor exported graphs know such numbers well.
    """
    exact = states.to(torch.promote_types(states.dtype, cosines.dtype))
    pairs = torch.view_as_complex(exact.unflatten(-1, (-1, 2)))
    turned = torch.view_as_real(pairs * torch.complex(cosines, sines))
    return turned.flatten(-2).to(states.dtype)


class ShawAttention(MultiHeadAttention):
    """Self-attention with relative position representations (Shaw et al., 2018), for keys and for values.

    e_ij = x_i W^Q (x_j W^K + a^K_ij)^T / sqrt(d_k), and z_i = sum_j alpha_ij (x_j W^V + a^V_ij). All heads of a layer
    share the vectors a. The sums over j are taken over the 2k + 1 distances, so no (T, L, d_k) tensor is made.
    """

    def __init__(self, config: VanillaTransformerConfig, layer_idx: int | None = None, is_causal: bool = False) -> None:
        super().__init__(config, layer_idx, is_causal)
        assert config.max_relative_distance is not None  # the config resolves it
        count = 2 * config.max_relative_distance + 1
        self.relative_keys = nn.Embedding(count, self.d_k)
        self.relative_values = nn.Embedding(count, self.d_v)

    def _bias(self, query: torch.Tensor, attention_mask: torch.Tensor | None, positions: Any) -> torch.Tensor | None:
        products = torch.matmul(query, _vectors(self.relative_keys, query).t())  # (B, H, T, 2k + 1)
        distances = positions.unsqueeze(1).expand(*products.shape[:2], -1, -1)  # (B, H, T, L)
        return add_bias(attention_mask, products.gather(-1, distances) * self.scaling)

    def _relative_values(self, heads: torch.Tensor, weights: torch.Tensor | None, positions: Any) -> torch.Tensor:
        assert weights is not None  # the model refuses implementations without weights
        distances = positions.unsqueeze(1).expand_as(weights)
        # All weights beyond k are one sum, which a long text would stop from growing in a type of 8 or 11 bits.
        exact = torch.promote_types(weights.dtype, torch.float32)
        by_distance = weights.new_zeros(*weights.shape[:3], self.relative_values.num_embeddings, dtype=exact)
        by_distance = by_distance.scatter_add(-1, distances, weights.to(exact)).to(weights.dtype)  # (B, H, T, 2k + 1)
        added = torch.matmul(by_distance, _vectors(self.relative_values, weights))  # (B, H, T, d_v)
        return heads + added.transpose(1, 2)


def _vectors(table: nn.Module, like: torch.Tensor) -> torch.Tensor:
    # Called as a module, because hooks on it may have to fetch the matrix (offloading).
    count: int = table.num_embeddings  # type: ignore[assignment]
    return table(torch.arange(count, device=like.device)).to(like.dtype)


class LinearRotaryAttention(LinearAttention, RotaryAttention):
    """Linear attention whose features estimate a product of queries and keys: these are rotated before.

    The estimate then depends on the distance only, as the product does. Features that estimate none would make absolute
    positions of it, and are refused by the config.
    """


# By the config's `attention` and `position_encoding`; with other positions, the second.
SELF_ATTENTIONS: dict[tuple[str, str], type[MultiHeadAttention]] = {
    ("softmax", "rotary"): RotaryAttention,
    ("softmax", "shaw_relative"): ShawAttention,
    ("linear", "rotary"): LinearRotaryAttention,
}
PLAIN_SELF_ATTENTIONS: dict[str, type[MultiHeadAttention]] = {"softmax": MultiHeadAttention, "linear": LinearAttention}


def self_attention(
    config: VanillaTransformerConfig, layer_idx: int | None = None, is_causal: bool = False
) -> MultiHeadAttention:
    """§3.2.3: the self-attention of a layer, of the kind that the config and its position encoding need.

    Args:
        config: gives `attention` and `position_encoding`.
        layer_idx: as in `MultiHeadAttention`.
        is_causal: likewise.
    """
    kind = SELF_ATTENTIONS.get((config.attention, config.position_encoding), PLAIN_SELF_ATTENTIONS[config.attention])
    return kind(config, layer_idx, is_causal)
