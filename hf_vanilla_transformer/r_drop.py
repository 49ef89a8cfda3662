"""R-Drop (Liang et al. 2021), which needs §5.4's dropout: two passes of a batch are to predict the same."""

import torch

from .loss import IGNORED_LABEL


def r_drop_divergence(logits_1: torch.Tensor, logits_2: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sums over the labels how far the predictions of two passes are apart: (KL(p1 || p2) + KL(p2 || p1)) / 2.

    With L1 and L2 the losses of the two passes, summed over the labels as the divergence is, the loss of R-Drop is

        (L1 + L2) / 2 + alpha * divergence,

    divided like any loss by the number of labels. It is of the size of one pass's loss, so gradients keep their scale.
    The paper does not halve: it minimises L1 + L2 + alpha' * divergence, which is twice this with `alpha` = alpha' / 2.
    So its alpha' = 5 for translation is `alpha` = 2.5 here. Its gradients are twice as large, a difference that Adam
    does not see (but clipping does).

    The gradient goes into both passes; neither is a fixed teacher of the other.

    Args:
        logits_1: (..., V) of the first pass, before the softmax.
        logits_2: (..., V) of the second pass: the same batch, another dropout mask.
        labels: (...) token ids; `IGNORED_LABEL` (-100) where nothing is to be predicted. Those places count for
            nothing, whatever their logits are.

    Returns:
        A scalar in nats, to differentiate; float32 or more.

    Raises:
        ValueError: the shapes do not belong together.
    """
    if logits_1.shape != logits_2.shape or logits_1.shape[:-1] != labels.shape:
        raise ValueError(
            f"logits of shapes {tuple(logits_1.shape)} and {tuple(logits_2.shape)} and labels of shape "
            f"{tuple(labels.shape)} do not belong together; expected (..., V), (..., V) and (...)"
        )
    is_label = labels.ne(IGNORED_LABEL)
    # Selected before anything is computed: multiplied by zero, an infinite logit of padding would still be NaN.
    dtype = torch.promote_types(logits_1.dtype, torch.float32)
    log_probs_1, log_probs_2 = (
        torch.log_softmax(logits[is_label], dim=-1, dtype=dtype) for logits in (logits_1, logits_2)
    )
    # Both divergences in one: sum_v p1 (log p1 - log p2) + sum_v p2 (log p2 - log p1).
    return ((log_probs_1.exp() - log_probs_2.exp()) * (log_probs_1 - log_probs_2)).sum() / 2


__all__ = ["r_drop_divergence"]
