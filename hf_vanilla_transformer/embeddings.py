"""§3.4 and §3.5: token embeddings multiplied by sqrt(d_model), and the position encodings that are added to them."""

import math

import torch
from torch import nn

from .configuration_vanilla_transformer import VanillaTransformerConfig


class TokenEmbedding(nn.Embedding):
    """§3.4 "Input Embedding" and "Output Embedding" of Figure 1: a learned vector a token, times sqrt(d_model).

    The factor belongs to the lookup, not to the matrix, so that the matrix can be shared with the pre-softmax
    projection, which does not have it.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Looks up and scales.

        Args:
            input: (B, L) token ids.

        Returns:
            (B, L, D) embeddings, ready for a position encoding to be added.
        """
        return super().forward(input) * math.sqrt(self.embedding_dim)


def token_embedding(config: VanillaTransformerConfig, vocab_size: int) -> nn.Embedding:
    """§3.4: the embedding of one side of the model.

    Args:
        config: gives d_model, and whether embeddings are scaled.
        vocab_size: rows: the tokens of that side.

    Returns:
        The paper's scaled embedding, or a plain one.
    """
    kind = TokenEmbedding if config.scale_embeddings else nn.Embedding
    return kind(vocab_size, config.d_model)


class SinusoidalPositions(nn.Module):
    """§3.5 "Positional Encoding": sines and cosines of geometrically spaced frequencies.

    PE(pos, 2i) = sin(pos / 10000^(2i / d_model)) and PE(pos, 2i + 1) = cos(pos / 10000^(2i / d_model)). Values are
    computed where they are needed, so there is no table to outgrow, to save or to lose when weights are loaded.
    """

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()
        self.d_model = config.d_model
        self.layout = config.sinusoid_layout
        self.offset = config.position_offset

    def forward(self, embeddings: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Adds the encoding of each position to the embedding that stands there.

        Args:
            embeddings: (B, L, D).
            position_ids: (B, L) or (1, L) integers from 0.

        Returns:
            (B, L, D) sums in the type of `embeddings`.
        """
        encodings = sinusoids(position_ids + self.offset, self.d_model, self.layout)
        return embeddings + encodings.to(embeddings.dtype)


class LearnedPositions(nn.Embedding):
    """Table 3 row E: a learned vector a position, in place of the sinusoids."""

    def __init__(self, config: VanillaTransformerConfig) -> None:
        assert config.max_position_embeddings is not None  # the config refuses learned positions without it
        super().__init__(config.max_position_embeddings, config.d_model)

    def forward(self, embeddings: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Adds the learned vector of each position to the embedding that stands there.

        Args:
            embeddings: (B, L, D).
            position_ids: (B, L) or (1, L) integers from 0 to `max_position_embeddings` - 1.

        Returns:
            (B, L, D) sums.

        Raises:
            ValueError: a position was never learned.
        """
        # Looking at the values would break a compiled graph, and there embedding() checks the range itself.
        if not torch.compiler.is_compiling() and position_ids.device.type != "meta":
            last = int(position_ids.max())
            if last >= self.num_embeddings:
                raise ValueError(
                    f"there is no learned position {last}: `max_position_embeddings`={self.num_embeddings} allows 0 to "
                    f"{self.num_embeddings - 1}; shorten the input, or train with `position_encoding`='sinusoidal'"
                )
        return embeddings + super().forward(position_ids)


class NoPositions(nn.Module):
    """No position encoding at all: what is left when §3.5 is taken away."""

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()

    def forward(self, embeddings: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Returns `embeddings` (B, L, D) as they are."""
        return embeddings


POSITION_ENCODINGS: dict[str, type[nn.Module]] = {
    "sinusoidal": SinusoidalPositions,
    "learned": LearnedPositions,
    "none": NoPositions,
}


def sinusoids(position_ids: torch.Tensor, d_model: int, layout: str = "interleaved") -> torch.Tensor:
    """§3.5: the sinusoidal encoding of any positions.

    Args:
        position_ids: (...) integers.
        d_model: D, an even number.
        layout: a `sinusoid_layout` of the config, which describes the three.

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


def position_ids_from_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """Numbers the tokens of each sentence from 0, whichever side its padding stands on.

    Args:
        attention_mask: (B, L), non-zero where there is a token.

    Returns:
        (B, L) positions; those of padding carry no meaning.
    """
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)
