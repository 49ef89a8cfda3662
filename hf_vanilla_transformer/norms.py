"""§3.1 the "Norm" of "Add & Norm": layer normalisation, or one of its two simpler successors."""

import math

import torch
from torch import nn

from .configuration_vanilla_transformer import VanillaTransformerConfig


class ScaleNorm(nn.Module):
    """ScaleNorm (Nguyen and Salazar, 2019): g x / |x|, a single learned length g for all positions, at first sqrt(D).

    Args:
        d_model: D, width of the vectors.
        eps: lower bound of the length that is divided by, so that a vector of zeros stays one.
    """

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.eps, self.initial_length = eps, math.sqrt(d_model)
        self.length = nn.Parameter(torch.tensor([self.initial_length]))  # FSDP takes no scalars

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps (..., D) to vectors of the learned length; computes half precision in float32."""
        states = hidden_states.to(torch.promote_types(hidden_states.dtype, torch.float32))
        return (self.length * states / states.norm(dim=-1, keepdim=True).clamp(min=self.eps)).to(hidden_states.dtype)


def norm(config: VanillaTransformerConfig) -> nn.Module:
    """§3.1: the normalisation that follows each addition, or with `norm_position="pre"` precedes each sub-layer.

    Args:
        config: gives d_model, the kind of norm, and its epsilon.

    Returns:
        `nn.LayerNorm` (the paper's; Ba et al., 2016), `nn.RMSNorm` (Zhang and Sennrich, 2019: no mean is subtracted, no
        bias added), or `ScaleNorm`.
    """
    return NORMS[config.norm](config.d_model, eps=config.layer_norm_eps)


def embedding_norm(config: VanillaTransformerConfig) -> nn.Module:
    """§3.4, §3.5: what follows the sums of embeddings and positions: a norm as in BERT and BART, in the paper nothing.

    Args:
        config: says whether, and gives what `norm` reads.

    Returns:
        A module from (B, L, D) to (B, L, D).
    """
    return norm(config) if config.embedding_norm else nn.Identity()


NORMS: dict[str, type[nn.Module]] = {"layer_norm": nn.LayerNorm, "rms_norm": nn.RMSNorm, "scale_norm": ScaleNorm}
