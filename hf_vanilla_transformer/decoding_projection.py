"""§3.4 "pre-softmax linear transformation" of a few rows, as in one decoding step."""

import torch

# With more rows, torch's own product is as fast, and gives row-major logits.
_FEW_ROWS = 64


class SlicedProjection:
    """The pre-softmax projection (§3.4) of a few rows, on a CPU.

    There torch multiplies a few rows by a tall matrix on one core, and allocates memory at each step. This class cuts
    the matrix into one slice per core (if V is divisible by their number), reads it in memory order, and reuses the
    memory of the logits.

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
        """Whether this works and pays: float32 on a CPU, with gradients and autocast disabled."""
        is_plain = type(weight) in (torch.Tensor, torch.nn.Parameter) and weight.dtype == torch.float32
        is_wanted = not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        return is_plain and weight.device.type == "cpu" and is_wanted

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Maps (B, K, D) to logits (B, K, V), valid until the next call; those of few rows are column-major."""
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
