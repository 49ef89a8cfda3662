"""§3.3: the position-wise feed-forward network, and its gated variant."""

import torch
from torch import nn
from transformers.activations import ACT2FN

from .configuration_vanilla_transformer import VanillaTransformerConfig
from .dropout import Dropout


class FeedForward(nn.Module):
    """§3.3 "Feed Forward", Equation 2: FFN(x) = max(0, x W_1 + b_1) W_2 + b_2, the same at every position.

    Args:
        config: gives d_model, d_ff, the activation in place of max(0, x), and the dropout after it (none in the paper).
    """

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, config.d_ff)
        self.activation = ACT2FN[config.activation_function]
        self.activation_dropout = Dropout(config.activation_dropout)
        self.fc2 = nn.Linear(config.d_ff, config.d_model)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps (B, L, D) through (B, L, F) to (B, L, D)."""
        return self.fc2(self.activation_dropout(self.activation(self.fc1(hidden_states))))


class GatedFeedForward(nn.Module):
    """The variant `feed_forward="gated"` (Shazeer, 2020): FFN(x) = (activation(x W) * x V) W_2, without biases.

    With `activation_function` "sigmoid" it is GLU, with "relu" ReGLU, with "gelu" GEGLU, with "silu" SwiGLU. It has
    three matrices: a d_ff of two thirds gives as many parameters as the plain network has.

    Args:
        config: gives d_model, d_ff, the activation of the gate, and the dropout after the product.
    """

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.activation = ACT2FN[config.activation_function]
        self.fc1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.activation_dropout = Dropout(config.activation_dropout)
        self.fc2 = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps (B, L, D) through (B, L, F) to (B, L, D)."""
        gated = self.activation(self.gate(hidden_states)) * self.fc1(hidden_states)
        return self.fc2(self.activation_dropout(gated))


FEED_FORWARDS: dict[str, type[nn.Module]] = {"plain": FeedForward, "gated": GatedFeedForward}
