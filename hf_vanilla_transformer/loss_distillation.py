"""Word-level distillation (Kim & Rush 2016), beside §5.4: a model also learns what others predict for each label.

With q, the mean of the teachers' predictions, the loss of a label is (1 - share) times the label-smoothed one plus
share times the cross-entropy -sum_v q_v log p_v, whose gradient with respect to the logits is p - q.
"""

from dataclasses import dataclass

import torch

from .loss import IGNORED_LABEL


@dataclass(frozen=True)
class Teachers:
    """What trained models of one vocabulary make of a batch: their predictions, which are only computed when needed.

    Args:
        share: of the loss that is learned from them, from 0 to 1.
        hidden_states: (..., D) of each teacher, the output of its decoder, without a gradient; D may differ.
        weights: (V, D) of each, its pre-softmax projection (§3.4).

    Raises:
        ValueError: there is no teacher, not one projection for each, or `share` is out of its range.
    """

    share: float
    hidden_states: tuple[torch.Tensor, ...]
    weights: tuple[torch.Tensor, ...]

    def __post_init__(self) -> None:
        if not self.hidden_states or len(self.hidden_states) != len(self.weights):
            raise ValueError(
                f"{len(self.hidden_states)} teachers' hidden states and {len(self.weights)} projections; give at least "
                "one, and as many of both"
            )
        if not 0 <= self.share <= 1:
            raise ValueError(f"share={self.share} is not a number from 0 to 1")

    def flat(self) -> "Teachers":
        """The same with (N, D) hidden states."""
        return Teachers(self.share, tuple(each.flatten(0, -2) for each in self.hidden_states), self.weights)

    def at(self, rows: torch.Tensor | slice) -> "Teachers":
        """The same for some rows of `flat` hidden states.

        Args:
            rows: 1-dimensional indices, or a slice.
        """
        return Teachers(self.share, tuple(each[rows] for each in self.hidden_states), self.weights)

    def probabilities(self, dtype: torch.dtype) -> torch.Tensor:
        """The mean prediction of the teachers.

        Args:
            dtype: of the matrix products; the softmax is computed in float32 at least.

        Returns:
            (..., V), float32 or float64.
        """
        softmax_dtype = torch.promote_types(dtype, torch.float32)
        total = None
        with torch.no_grad():
            for hidden_states, weight in zip(self.hidden_states, self.weights, strict=True):
                logits = hidden_states.to(dtype) @ weight.to(dtype).t()
                each = torch.softmax(logits, dim=-1, dtype=softmax_dtype)
                total = each if total is None else total.add_(each)
        assert total is not None
        return total.div_(len(self.weights))


def teachers_cross_entropy(logits: torch.Tensor, probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sums the cross-entropy -sum_v q_v log p_v over the labels, by definition.

    Args:
        logits: (..., V) before the softmax.
        probabilities: (..., V), q.
        labels: (...) token ids; `IGNORED_LABEL` (-100) where nothing is to be predicted.

    Returns:
        A scalar in nats with a gradient, float32 or float64.
    """
    log_probs = torch.log_softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    # A product of vectors would be rounded under autocast.
    entropies = -(probabilities.to(log_probs.dtype) * log_probs).sum(-1)
    return torch.where(labels.ne(IGNORED_LABEL), entropies, entropies.new_zeros(())).sum()


__all__ = ["Teachers", "teachers_cross_entropy"]
