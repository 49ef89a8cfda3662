"""§3.3: the position-wise feed-forward network."""

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
