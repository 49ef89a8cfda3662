"""§3.4 "pre-softmax linear transformation" of few rows, as one step of decoding asks for it."""

import torch

# With more rows torch's own product is as fast, and gives logits that lie row by row.
_FEW_ROWS = 64


class TallProjection:
    """The pre-softmax projection (§3.4) of few rows, on a CPU.

    There torch multiplies few rows by a tall matrix on one core, and pays for fresh memory at each step. So the matrix
    is cut into a slice for each core, is read in its own order, and the logits go to memory that is kept.

    Args:
        weight: (V, D).
        bias: (V,), or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        count = torch.get_num_threads()
        self.slices = weight.view(count if len(weight) % count == 0 else 1, -1, weight.shape[1])  # (C, V / C, D)
        self._memory = weight.new_empty(0)

    @staticmethod
    def is_for(weight: torch.Tensor) -> bool:
        """Whether this can be done, and pays: for float32 on a CPU, where no gradient is wanted."""
        is_plain = type(weight) in (torch.Tensor, torch.nn.Parameter) and weight.dtype == torch.float32
        is_wanted = not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        return is_plain and weight.device.type == "cpu" and is_wanted

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Maps (B, K, D) to logits (B, K, V), which are good until the next call; few rows lie side by side."""
        vocab_size, d_model = self.weight.shape
        rows = states.reshape(-1, d_model)  # (R, D)
        if self._memory.numel() < len(rows) * vocab_size:
            self._memory = rows.new_empty(len(rows) * vocab_size)
        logits = self._memory[: len(rows) * vocab_size]
        if len(rows) <= _FEW_ROWS:
            columns = rows.t().expand(len(self.slices), -1, -1)
            torch.bmm(self.slices, columns, out=logits.view(len(self.slices), -1, len(rows)))  # (C, V / C, R)
            logits = logits.view(vocab_size, len(rows)).t()
        else:
            logits = torch.mm(rows, self.weight.t(), out=logits.view(len(rows), vocab_size))
        if self.bias is not None:
            logits += self.bias
        return logits.unflatten(0, states.shape[:-1])
