"""§5.4 dropout with faster random numbers on a CPU, where torch draws them one after the other on one core."""

import torch
from torch import nn


class Dropout(nn.Dropout):
    """§5.4 "Residual Dropout": in training, zeroes elements with probability p and scales up the others.

    Each element has 16 random bits of its own, so p is rounded to a multiple of 2^-16: 0.1 becomes 0.100006. The scale
    uses the rounded p, so expectations are preserved exactly. On other devices and in compiled graphs, this is torch's
    dropout.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Maps a tensor of any shape to one of the same shape and type."""
        if not self.training:
            return input
        ours = 0 < self.p < 1 and input.device.type == "cpu"
        if not ours or torch.compiler.is_compiling():
            return super().forward(input)
        # Each integer, drawn from the whole range, gives four times 16 random bits.
        count = input.numel()
        integers = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = integers.view(torch.int16)[:count].view(input.shape)
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        # As numbers, because torch compares integers, and converts what comes of it, one after the other.
        is_kept = bits.to(torch.float32).ge_(dropped - 2**15)
        return input * is_kept.to(input.dtype).mul_(2**16 / (2**16 - dropped))
