"""§5.3, Equation 3."""

import pytest
import torch
from torch import nn

from hf_vanilla_transformer.training.schedule import inverse_sqrt_factor, inverse_sqrt_schedule, peak_learning_rate


def equation_3(step, d_model, warmup_steps):
    return d_model**-0.5 * min(step**-0.5, step * warmup_steps**-1.5)


@pytest.mark.parametrize(("d_model", "warmup_steps"), [(512, 4000), (1024, 4000), (128, 7), (64, 1)])
def test_section_5_3_learning_rate_is_equation_3_at_every_update(d_model, warmup_steps):
    for update in [*range(1, 20), warmup_steps - 1, warmup_steps, warmup_steps + 1, 10 * warmup_steps, 100_000]:
        if update >= 1:
            learning_rate = peak_learning_rate(d_model, warmup_steps) * inverse_sqrt_factor(update, warmup_steps)
            assert learning_rate == pytest.approx(equation_3(update, d_model, warmup_steps), rel=1e-12)


def test_section_5_3_scheduler_gives_the_optimizer_each_update_its_rate_from_the_first():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=peak_learning_rate(512, 5))
    scheduler = inverse_sqrt_schedule(optimizer, 5)
    for update in range(1, 30):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(equation_3(update, 512, 5), rel=1e-12)
        optimizer.step()
        scheduler.step()


def test_without_warm_up_the_rate_falls_from_its_peak():
    assert [inverse_sqrt_factor(update, 0) for update in (1, 4, 100)] == [1.0, 0.5, 0.1]
