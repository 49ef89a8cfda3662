"""§3.5 inside attention: encodings that rotate queries and keys, or that bias scores by distance.

Each stack has one of these modules and calls it once: it says how the positions of queries and keys enter all its
self-attentions. Cross-attention relates two sequences whose positions have no common origin, and gets none.
"""

import math
from typing import Any

import torch
from torch import nn

from .attention import add_bias
from .configuration_vanilla_transformer import VanillaTransformerConfig


class AbsolutePositions(nn.Module):
    """§3.5 as in the paper: positions were added to the embeddings (or there are none), and attention sees no others.

    Args:
        config: the model's config.
        is_causal: whether the stack is a decoder, whose queries see no later keys.
    """

    # Whether positions of keys are read, and whether there has to be a mask of numbers to add to.
    reads_keys = False

    def __init__(self, config: VanillaTransformerConfig, is_causal: bool) -> None:
        super().__init__()

    def forward(
        self,
        attention_mask: Any,
        query_positions: torch.Tensor,
        key_positions: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[Any, Any]:
        """Relates the positions of queries and keys.

        Args:
            attention_mask: the mask of the stack's self-attentions; with `reads_keys`, None or (B or 1, H or 1, T, L)
                numbers to be added to scores.
            query_positions: (B, T) or (1, T) integers from 0.
            key_positions: (B, L) or (1, L), those of all keys; None unless `reads_keys`.
            dtype: type of the hidden states, and so of a bias.

        Returns:
            The mask, with a bias added if it depends on positions only; and what each self-attention needs, or None.
        """
        return attention_mask, None


class RotaryPositions(AbsolutePositions):
    """Rotary positions (Su et al., 2021): pairs of a query's or key's dimensions are turned by an angle per position.

    The product of a query and a key then depends on their distance only: a shift of both turns both alike. The angles
    are those of §3.5, position * base^(-2i / d_k).
    """

    def __init__(self, config: VanillaTransformerConfig, is_causal: bool) -> None:
        super().__init__(config, is_causal)
        assert config.d_k is not None  # the config resolves both
        assert config.rotary_base is not None
        self.d_k, self.base = config.d_k, config.rotary_base

    def forward(
        self,
        attention_mask: Any,
        query_positions: torch.Tensor,
        key_positions: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[Any, Any]:
        """Returns the mask unchanged, and cosines and sines, each (B or 1, 1, T, d_k / 2)."""
        angles = wave_angles(query_positions, self.d_k, self.base).unsqueeze(1)
        return attention_mask, (angles.cos().float(), angles.sin().float())


class AlibiPositions(AbsolutePositions):
    """ALiBi (Press et al., 2022): scores fall by a slope of each head times the distance; nothing is learned.

    The slopes are 2^(-8/h), 2^(-16/h), ..., as in the paper; where h is no power of two, those of the next lower power,
    then every other one of the next higher. The encoder counts distances in both directions alike.
    """

    reads_keys = True

    def __init__(self, config: VanillaTransformerConfig, is_causal: bool) -> None:
        super().__init__(config, is_causal)
        self.num_heads = config.num_heads

    def forward(
        self,
        attention_mask: Any,
        query_positions: torch.Tensor,
        key_positions: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[Any, Any]:
        """Adds -slope * distance to the mask, which becomes (B or 1, H, T, L)."""
        distances = relative_positions(query_positions, key_positions).abs().unsqueeze(1)  # (B, 1, T, L)
        slopes = alibi_slopes(self.num_heads, distances.device)[:, None, None]
        return add_bias(attention_mask, (-slopes * distances).to(dtype)), None


class T5Positions(AbsolutePositions):
    """T5's relative positions (Raffel et al., 2020): a learned bias of each head per bucket of distances.

    All layers of a stack share the biases. Near distances have a bucket each, farther ones share them, logarithmically
    up to `max_relative_distance`; all beyond share the last. In the encoder, one half of the buckets is for keys after
    the query.
    """

    reads_keys = True

    def __init__(self, config: VanillaTransformerConfig, is_causal: bool) -> None:
        super().__init__(config, is_causal)
        assert config.num_relative_buckets is not None  # the config resolves both
        assert config.max_relative_distance is not None
        self.is_causal, self.num_buckets = is_causal, config.num_relative_buckets
        self.max_distance = config.max_relative_distance
        self.biases = nn.Embedding(self.num_buckets, config.num_heads)

    def forward(
        self,
        attention_mask: Any,
        query_positions: torch.Tensor,
        key_positions: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[Any, Any]:
        """Adds the learned biases to the mask, which becomes (B or 1, H, T, L)."""
        distances = relative_positions(query_positions, key_positions)
        buckets = t5_buckets(distances, self.num_buckets, self.max_distance, self.is_causal)
        biases = self.biases(buckets).to(device=buckets.device, dtype=dtype)  # another device may hold the table
        return add_bias(attention_mask, biases.permute(0, 3, 1, 2)), None


class ShawPositions(AbsolutePositions):
    """Relative position representations (Shaw et al., 2018): learned vectors per clipped distance, in each layer.

    Distances beyond `max_relative_distance` count as that one. The vectors are those of `ShawAttention`.
    """

    reads_keys = True

    def __init__(self, config: VanillaTransformerConfig, is_causal: bool) -> None:
        super().__init__(config, is_causal)
        assert config.max_relative_distance is not None  # the config resolves it
        self.max_distance = config.max_relative_distance

    def forward(
        self,
        attention_mask: Any,
        query_positions: torch.Tensor,
        key_positions: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[Any, Any]:
        """Returns the mask unchanged, and clipped distances (B or 1, T, L) from 0 to 2 * `max_relative_distance`."""
        limit = self.max_distance
        return attention_mask, relative_positions(query_positions, key_positions).clamp(-limit, limit) + limit


RELATIONS: dict[str, type[AbsolutePositions]] = {
    "sinusoidal": AbsolutePositions,
    "learned": AbsolutePositions,
    "none": AbsolutePositions,
    "rotary": RotaryPositions,
    "alibi": AlibiPositions,
    "t5_relative": T5Positions,
    "shaw_relative": ShawPositions,
}


def wave_angles(position_ids: torch.Tensor, width: int, base: float) -> torch.Tensor:
    """The angles of §3.5: position * base^(-2i / width).

    Args:
        position_ids: (...) integers.
        width: an even number of dimensions.
        base: 10,000 in the paper.

    Returns:
        (..., width / 2), float64, because the rounding of a float32 angle grows with the position; float32 on devices
        without float64 (mps).
    """
    precision = torch.float32 if position_ids.device.type == "mps" else torch.float64
    index = torch.arange(width // 2, dtype=precision, device=position_ids.device)
    return position_ids.to(precision).unsqueeze(-1) * torch.exp(index * (-2 * math.log(base) / width))


def relative_positions(query_positions: torch.Tensor, key_positions: torch.Tensor | None) -> torch.Tensor:
    """How far each key is after each query.

    Args:
        query_positions: (B, T) or (1, T).
        key_positions: (B, L) or (1, L).

    Returns:
        (B or 1, T, L) integers, negative for keys before the query.
    """
    assert key_positions is not None  # `reads_keys`
    return key_positions.unsqueeze(-2) - query_positions.unsqueeze(-1)


def alibi_slopes(num_heads: int, device: torch.device | str | None = None) -> torch.Tensor:
    """The slopes of ALiBi's heads.

    Args:
        num_heads: H.
        device: where to make them.

    Returns:
        (H,) numbers between 0 and 1.
    """
    power = 2 ** int(math.log2(num_heads))
    heads = torch.arange(num_heads, device=device)
    exponents = torch.where(heads < power, 8 * (heads + 1) / power, 4 * (2 * (heads - power) + 1) / power)
    return torch.exp2(-exponents)


def t5_buckets(distances: torch.Tensor, num_buckets: int, max_distance: int, is_causal: bool) -> torch.Tensor:
    """The bucket of each distance.

    Args:
        distances: (...) integers, negative for keys before the query.
        num_buckets: the number of buckets; in both directions together, unless `is_causal`.
        max_distance: distances from here on share the last bucket.
        is_causal: whether all keys after the query count as at distance 0.

    Returns:
        (...) integers from 0 to `num_buckets` - 1.
    """
    first: int | torch.Tensor = 0
    if is_causal:
        steps = (-distances).clamp(min=0)
    else:
        num_buckets //= 2
        first = (distances > 0) * num_buckets
        steps = distances.abs()
    exact = num_buckets // 2
    ratio = (steps.clamp(min=exact).float() / exact).log() / math.log(max_distance / exact)
    far = (exact + (ratio * (num_buckets - exact)).long()).clamp(max=num_buckets - 1)
    return first + torch.where(steps < exact, steps, far)
