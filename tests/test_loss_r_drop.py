"""R-Drop: the divergence is that of the definition, and its gradient that of the divergence."""

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from hf_vanilla_transformer.loss import label_smoothed_cross_entropy
from hf_vanilla_transformer.loss_r_drop import r_drop_divergence

LABELS = torch.tensor([[3, 0, -100], [5, -100, -100]])


def logits(seed, dtype=torch.float64, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(2, 3, 7, generator=generator, dtype=torch.float64)).to(dtype)


def by_definition(logits_1, logits_2, labels):
    """The mean of both directions, from torch's distributions, summed over the labels."""
    p1, p2 = Categorical(logits=logits_1.double()), Categorical(logits=logits_2.double())
    return ((kl_divergence(p1, p2) + kl_divergence(p2, p1)) / 2)[labels != -100].sum()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0, 100.0])
def test_divergence_is_that_of_torch_distributions(scale):
    pair = logits(0, scale=scale), logits(1, scale=scale)
    torch.testing.assert_close(r_drop_divergence(*pair, LABELS), by_definition(*pair, LABELS), rtol=1e-9, atol=1e-13)


def test_gradient_is_that_of_finite_differences_in_both_passes():
    pair = logits(0).requires_grad_(), logits(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: r_drop_divergence(a, b, LABELS), pair)


def test_gradient_is_the_derived_one():
    # dD/dz1 = (p1 (a - KL(p1 || p2)) + p1 - p2) / 2 with a = log p1 - log p2, at each label.
    pair = logits(0).requires_grad_(), logits(1).requires_grad_()
    r_drop_divergence(*pair, LABELS).backward()
    for mine, other in (pair, pair[::-1]):
        p, q = mine.detach().softmax(-1), other.detach().softmax(-1)
        log_ratio = p.log() - q.log()
        divergence = (p * log_ratio).sum(-1, keepdim=True)
        expected = (p * (log_ratio - divergence) + p - q) / 2 * (LABELS != -100).unsqueeze(-1)
        torch.testing.assert_close(mine.grad, expected)


def test_float32_is_as_exact_as_float32_can_be():
    # Two passes through dropout differ little: the hard case, as the divergence is of second order.
    for distance in (1.0, 0.1, 0.01):
        first = logits(0, torch.float32)
        second = first + distance * logits(1, torch.float32)
        expected = by_definition(first, second, LABELS)
        torch.testing.assert_close(r_drop_divergence(first, second, LABELS).double(), expected, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    pair = logits(0, dtype), logits(1, dtype)
    divergence = r_drop_divergence(*pair, LABELS)
    assert divergence.dtype == torch.float32
    torch.testing.assert_close(divergence.double(), by_definition(*pair, LABELS), rtol=1e-5, atol=0)
    for tensor in pair:
        tensor.requires_grad_()
    r_drop_divergence(*pair, LABELS).backward()
    assert pair[0].grad.dtype == dtype


def test_equal_passes_have_no_divergence_and_no_gradient():
    first, second = logits(0).requires_grad_(), logits(0).requires_grad_()
    divergence = r_drop_divergence(first, second, LABELS)
    divergence.backward()
    assert divergence == 0
    assert not first.grad.any()
    assert not second.grad.any()


def test_the_passes_may_be_exchanged_and_logits_shifted():
    first, second = logits(0), logits(1)
    divergence = r_drop_divergence(first, second, LABELS)
    assert divergence > 0
    torch.testing.assert_close(r_drop_divergence(second, first, LABELS), divergence)
    torch.testing.assert_close(r_drop_divergence(first + 50, second - 50, LABELS), divergence)


@pytest.mark.parametrize("filler", [float("nan"), float("inf"), 1e30])
def test_places_without_a_label_count_for_nothing_whatever_stands_there(filler):
    ignored = (LABELS == -100).unsqueeze(-1)
    pair = [logits(seed).masked_fill(ignored, filler).requires_grad_() for seed in (0, 1)]
    divergence = r_drop_divergence(*pair, LABELS)
    divergence.backward()
    torch.testing.assert_close(divergence, by_definition(logits(0), logits(1), LABELS))
    assert all(tensor.grad.isfinite().all() and not (tensor.grad * ignored).any() for tensor in pair)


def test_no_labels_at_all_are_no_divergence():
    pair = logits(0).requires_grad_(), logits(1).requires_grad_()
    divergence = r_drop_divergence(*pair, torch.full_like(LABELS, -100))
    divergence.backward()
    assert divergence == 0
    assert not pair[0].grad.any()


def test_the_documented_loss_is_half_the_papers_with_half_its_alpha():
    first, second = logits(0), logits(1)
    (loss_1, _), (loss_2, _) = (label_smoothed_cross_entropy(each, LABELS, 0.1) for each in (first, second))
    divergence = r_drop_divergence(first, second, LABELS)
    paper = loss_1 + loss_2 + 5 * by_definition(first, second, LABELS)
    torch.testing.assert_close((loss_1 + loss_2) / 2 + 2.5 * divergence, paper / 2)


@pytest.mark.parametrize(
    ("second", "labels"),
    [(torch.zeros(2, 3, 8), LABELS), (torch.zeros(2, 3, 7), LABELS[:, :2]), (torch.zeros(7), LABELS)],
)
def test_shapes_that_do_not_belong_together_are_named(second, labels):
    with pytest.raises(ValueError, match=r"\(2, 3, 7\).*do not belong together"):
        r_drop_divergence(logits(0), second, labels)
