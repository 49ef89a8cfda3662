"""§3.5: position encodings that are added to the embeddings: sinusoids, learned vectors (Table 3 E), or none.

Encodings that act inside self-attention instead are in `positions_relative`.
"""

import math

import torch
from torch import nn

from .configuration_vanilla_transformer import VanillaTransformerConfig


class SinusoidalPositions(nn.Module):
    """§3.5 "Positional Encoding": sines and cosines of geometrically spaced frequencies.

    PE(pos, 2i) = sin(pos / 10000^(2i / d_model)) and PE(pos, 2i + 1) = cos(pos / 10000^(2i / d_model)). Values are
    computed when they are needed, so there is no table to outgrow, to save, or to lose when weights are loaded.
    """

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()
        self.d_model = config.d_model
        self.layout = config.sinusoid_layout
        self.offset = config.position_offset

    def forward(self, embeddings: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Adds to each embedding the encoding of its position.

        Args:
            embeddings: (B, L, D).
            position_ids: (B, L) or (1, L) integers from 0.

        Returns:
            (B, L, D) sums in the type of `embeddings`.
        """
        encodings = sinusoids(position_ids + self.offset, self.d_model, self.layout)
        return embeddings + encodings.to(embeddings.dtype)


class LearnedPositions(nn.Embedding):
    """Table 3 row E: a learned vector per position in place of the sinusoids."""

    def __init__(self, config: VanillaTransformerConfig) -> None:
        assert config.num_learned_positions is not None  # the config refuses learned positions without it
        super().__init__(config.num_learned_positions, config.d_model)

    def forward(self, embeddings: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Adds to each embedding the learned vector of its position.

        Args:
            embeddings: (B, L, D).
            position_ids: (B, L) or (1, L) integers from 0 to `num_learned_positions` - 1; `refuse_unlearned_positions`
                reports others.

        Returns:
            (B, L, D) sums.
        """
        return embeddings + super().forward(position_ids)


class NoPositions(nn.Module):
    """No position encoding: the model without §3.5."""

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()

    def forward(self, embeddings: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Returns `embeddings` (B, L, D) unchanged."""
        return embeddings


# Encodings that act inside attention add nothing to the embeddings.
POSITION_ENCODINGS: dict[str, type[nn.Module]] = {"sinusoidal": SinusoidalPositions, "learned": LearnedPositions}


def added_positions(config: VanillaTransformerConfig) -> nn.Module:
    """§3.5: what adds an encoding of positions to the embeddings of one side of the model.

    Args:
        config: gives `position_encoding`.

    Returns:
        A module from embeddings (B, L, D) and positions (B or 1, L) to sums (B, L, D).
    """
    return POSITION_ENCODINGS.get(config.position_encoding, NoPositions)(config)


def sinusoids(position_ids: torch.Tensor, d_model: int, layout: str = "interleaved") -> torch.Tensor:
    """§3.5: the sinusoidal encoding of any positions.

    Args:
        position_ids: (...) integers.
        d_model: D, an even number.
        layout: one of the three values of `sinusoid_layout`, which the config describes.

    Returns:
        (..., D) float32. Angles are computed in float64, because the rounding of a float32 angle grows with the
        position; on devices without float64 (mps) they are float32.
    """
    precision = torch.float32 if position_ids.device.type == "mps" else torch.float64
    index = torch.arange(d_model // 2, dtype=precision, device=position_ids.device)
    last_index = d_model / 2 if layout != "concatenated_tensor2tensor" else d_model / 2 - 1
    frequencies = torch.exp(index * (-math.log(10000.0) / last_index))
    angles = position_ids.to(precision).unsqueeze(-1) * frequencies
    waves = (angles.sin().float(), angles.cos().float())
    if layout == "interleaved":
        return torch.stack(waves, dim=-1).flatten(-2)
    return torch.cat(waves, dim=-1)


def refuse_unlearned_positions(
    config: VanillaTransformerConfig, position_ids: torch.Tensor, end: int | None = None
) -> None:
    """Refuses positions that were never learned (Table 3 row E).

    Args:
        config: gives `num_learned_positions`; None means no limit.
        position_ids: (B, L) or (1, L).
        end: an exclusive upper bound of the positions, if the shapes give one. The values are read only if it does not
            settle the question, because on an accelerator that waits for all earlier work.

    Raises:
        ValueError: a position was never learned.
    """
    count = config.num_learned_positions
    if count is None or (end is not None and end <= count):
        return
    # Reading the values would break a compiled graph, in which embedding() checks the range itself.
    if torch.compiler.is_compiling() or position_ids.device.type == "meta":
        return
    last = int(position_ids.max())
    if last >= count:
        raise ValueError(
            f"there is no learned position {last}: `num_learned_positions`={count} allows 0 to {count - 1}; shorten "
            "the input, or train with `position_encoding`='sinusoidal'"
        )


def position_ids_from_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """Numbers the tokens of each sentence from 0, with padding on either side.

    Args:
        attention_mask: (B, L), non-zero where there is a token.

    Returns:
        (B, L) positions; those of padding have no meaning.
    """
    return (attention_mask.ne(0).long().cumsum(dim=-1) - 1).clamp(min=0)
