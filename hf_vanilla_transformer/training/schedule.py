"""§5.3: the learning rate that rises in a line and falls with the square root of the number of updates."""

import torch
from torch.optim.lr_scheduler import LambdaLR


def peak_learning_rate(d_model: int, warmup_steps: int) -> float:
    """The highest learning rate of Equation 3, reached at update `warmup_steps`: (d_model * warmup_steps)^-0.5.

    Args:
        d_model: D.
        warmup_steps: updates until the peak, at least 1.

    Returns:
        The peak: 7.0e-4 for the base model with 4,000 updates of warm-up.
    """
    return (d_model * warmup_steps) ** -0.5


def inverse_sqrt_factor(update: int, warmup_steps: int) -> float:
    """§5.3 Equation 3, divided by its peak: min(update / warmup_steps, (update / warmup_steps)^-0.5).

    lrate = d_model^-0.5 min(step^-0.5, step warmup_steps^-1.5) is `peak_learning_rate` times this.

    Args:
        update: which update of the weights, from 1.
        warmup_steps: updates until the peak; 0 means no warm-up, and falling from 1.

    Returns:
        A number from 0 to 1.
    """
    progress = update / max(warmup_steps, 1)
    return min(progress, progress**-0.5)


def inverse_sqrt_schedule(optimizer: torch.optim.Optimizer, warmup_steps: int, first_update: int = 0) -> LambdaLR:
    """§5.3 for torch: the first update already has its share of the learning rate, where transformers' has 0.

    Args:
        optimizer: its learning rate is the peak.
        warmup_steps: updates until the peak.
        first_update: updates that an earlier run did, where this one goes on with its schedule.

    Returns:
        A scheduler to be stepped once an update.
    """
    # The scheduler counts the updates that are done; the next one is one further.
    return LambdaLR(optimizer, lambda updates_done: inverse_sqrt_factor(first_update + updates_done + 1, warmup_steps))
