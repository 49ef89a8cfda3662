"""§3.4, §5.4: the loss of a model that predicts tokens, with or without its logits."""

import torch
from torch import nn

from .loss import IGNORED_LABEL, label_smoothed_cross_entropy, projected_label_smoothed_cross_entropy
from .loss_distillation import Teachers, teachers_cross_entropy
from .loss_r_drop import r_drop_divergence
from .modeling_views import is_plain_product


def mean_token_loss(
    head: nn.Module,
    hidden_states: torch.Tensor,
    labels: torch.Tensor,
    logits: torch.Tensor | None,
    epsilon: float,
    num_items_in_batch: torch.Tensor | int | None = None,
    r_drop: float = 0.0,
    teachers: Teachers | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """§5.4: the label-smoothed loss per label; from the logits if they exist, and else without ever holding them.

    Args:
        head: the pre-softmax projection (§3.4).
        hidden_states: (B, L, D), its input.
        labels: (B, L) token ids, -100 where nothing is to be predicted.
        logits: (B, L, V), what `head` made of all of `hidden_states`; None if they were not computed.
        epsilon: epsilon_ls, the share of the label that is spread over the whole vocabulary.
        num_items_in_batch: divisor of the summed loss; None means the number of labels in this call.
        r_drop: alpha of R-Drop; unless it is 0, the second half of the batch repeats the first.
        teachers: what trained models make of the batch, or with `r_drop` of its first half; None without any.

    Returns:
        The loss, with a gradient, and the unsmoothed one, detached: scalars in nats per label, 0 without any label.
    """
    if logits is None and is_plain_product(head):
        weight: torch.Tensor = head.weight  # type: ignore[assignment]
        loss, nll_loss = projected_label_smoothed_cross_entropy(
            hidden_states, weight, labels.to(hidden_states.device), epsilon, r_drop, teachers
        )
    else:
        logits = head(hidden_states) if logits is None else logits
        labels = labels.to(logits.device)
        loss, nll_loss = label_smoothed_cross_entropy(logits, labels, epsilon)
        if teachers is not None:
            predicted = teachers.probabilities(logits.dtype)
            predicted = predicted.repeat(len(logits) // len(predicted), 1, 1)
            loss = (1 - teachers.share) * loss + teachers.share * teachers_cross_entropy(logits, predicted, labels)
        if r_drop:
            (first, second), (half, _) = logits.chunk(2), labels.chunk(2)
            loss = loss + 2 * r_drop * r_drop_divergence(first, second, half)
    divisor = labels.ne(IGNORED_LABEL).sum() if num_items_in_batch is None else num_items_in_batch
    divisor = torch.as_tensor(divisor, device=loss.device).clamp(min=1)
    return loss / divisor, nll_loss / divisor
