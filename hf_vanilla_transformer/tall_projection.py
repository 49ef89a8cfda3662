"""§3.4 "pre-softmax linear transformation" of few rows, as one step of decoding asks for it."""

import torch

# With few rows, a matrix of so many numbers, more than caches hold, is best read in its own order.
_FEW_ROWS, _MANY_NUMBERS = 8, 2**22


class TallProjection:
    """The pre-softmax projection (§3.4) of few rows, on a CPU.

    There torch multiplies few rows by a tall matrix on one core, and pays for fresh memory at each step. So the matrix
    is cut into a slice for each core, and the logits go to memory that is kept.

    Args:
        weight: (V, D).
        bias: (V,), or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.vocab_size, self.d_model = weight.shape
        count = torch.get_num_threads()
        self.slices = weight.view(count if self.vocab_size % count == 0 else 1, -1, self.d_model)  # (C, V / C, D)
        self.bias = bias
        self._parts, self._logits = weight.new_empty(0), weight.new_empty(0)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Maps (B, K, D) to logits (B, K, V), which are good until the next call."""
        rows = states.reshape(-1, self.d_model)  # (R, D)
        if self._logits.numel() < len(rows) * self.vocab_size:
            self._parts, self._logits = (rows.new_empty(len(rows) * self.vocab_size) for _ in range(2))
        parts, logits = (memory[: len(rows) * self.vocab_size] for memory in (self._parts, self._logits))
        logits, copies = logits.view(len(rows), self.vocab_size), (len(self.slices), -1, -1)
        if len(rows) == 1:
            torch.bmm(self.slices, rows.t().expand(copies), out=logits.view(len(self.slices), -1, 1))
        elif len(rows) <= _FEW_ROWS and self.slices.numel() > _MANY_NUMBERS:
            parts = parts.view(len(self.slices), -1, len(rows))
            torch.bmm(self.slices, rows.t().expand(copies), out=parts)  # (C, V / C, R)
            logits.copy_(parts.view(self.vocab_size, -1).t())
        elif len(self.slices) > 1:
            parts = parts.view(len(self.slices), len(rows), -1)
            torch.bmm(rows.expand(copies), self.slices.transpose(1, 2), out=parts)  # (C, R, V / C)
            logits.view(len(rows), len(self.slices), -1).copy_(parts.transpose(0, 1))
        else:
            torch.mm(rows, self.slices[0].t(), out=logits)
        if self.bias is not None:
            logits += self.bias
        return logits.view(*states.shape[:-1], self.vocab_size)
