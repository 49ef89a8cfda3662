"""R-Drop (Liang et al. 2021), based on §5.4's dropout: two passes of a batch should predict the same."""

import torch

from .loss import IGNORED_LABEL


def r_drop_divergence(logits_1: torch.Tensor, logits_2: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sums the divergence of two passes' predictions over the labels: (KL(p1 || p2) + KL(p2 || p1)) / 2.

    If L1 and L2 are the losses of the two passes, summed over the labels like the divergence, the loss of R-Drop is

        (L1 + L2) / 2 + alpha * divergence,

    divided by the number of labels like any loss. It has the scale of one pass's loss, and so do its gradients.
    Liang et al. do not halve: they minimise L1 + L2 + alpha' * divergence, twice this with `alpha` = alpha' / 2. So
    their alpha' = 5 for translation is `alpha` = 2.5 here. Their gradients are twice as large, which matters to
    gradient clipping but not to Adam.

    The gradient flows into both passes; neither is a fixed teacher of the other.

    Args:
        logits_1: (..., V) of the first pass, before the softmax.
        logits_2: (..., V) of the second pass: the same batch with another dropout mask.
        labels: (...) token ids; `IGNORED_LABEL` (-100) where nothing is to be predicted. Those positions do not
            count, whatever their logits are.

    Returns:
        A scalar in nats with a gradient, float32 or float64.

    Raises:
        ValueError: the shapes do not match.
    """
    if logits_1.shape != logits_2.shape or logits_1.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits of shapes {tuple(logits_1.shape)} and {tuple(logits_2.shape)} and labels of shape "
            f"{tuple(labels.shape)} do not belong together; expected (..., V), (..., V) and (...)"
        )
    is_label = labels.ne(IGNORED_LABEL)
    # Labels are selected first: an infinite logit of padding, multiplied by zero, would still be NaN.
    dtype = torch.promote_types(logits_1.dtype, torch.float32)
    log_probs_1, log_probs_2 = (
        torch.log_softmax(logits[is_label], dim=-1, dtype=dtype) for logits in (logits_1, logits_2)
    )
    # Both divergences at once: sum_v p1 (log p1 - log p2) + sum_v p2 (log p2 - log p1).
    return ((log_probs_1.exp() - log_probs_2.exp()) * (log_probs_1 - log_probs_2)).sum() / 2


__all__ = ["r_drop_divergence"]
