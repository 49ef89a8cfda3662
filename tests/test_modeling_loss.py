"""The loss of a model that predicts tokens: the same number and gradients with logits and without, per label."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_vanilla_transformer.loss_distillation import Teachers
from hf_vanilla_transformer.loss_r_drop import r_drop_divergence
from hf_vanilla_transformer.modeling_loss import mean_token_loss

B, L, D, V = 4, 5, 6, 9


def batch():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(V, (B // 2, L), generator=generator)
    labels[0, 3:] = -100
    return torch.randn(B, L, D, generator=generator), torch.cat([labels, labels])  # the second half repeats the first


@pytest.mark.parametrize("r_drop", [0.0, 0.7])
@pytest.mark.parametrize("kind", ["plain", "bias", "hooked", "with logits"])
def test_the_loss_is_the_mean_cross_entropy_over_the_labels(kind, r_drop):
    states, labels = batch()
    head = nn.Linear(D, V, bias=kind == "bias")
    if kind == "hooked":  # then it does more than multiply, and has to be called
        head.register_forward_hook(lambda module, inputs, output: 2 * output)
    states.requires_grad_()
    logits = head(states)
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.2)
    if r_drop:
        first, second = logits.chunk(2)
        expected = expected + 2 * r_drop * r_drop_divergence(first, second, labels[: B // 2]) / labels.ne(-100).sum()
    given = logits if kind == "with logits" else None
    loss, nll_loss = mean_token_loss(head, states, labels, given, 0.2, r_drop=r_drop)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(nll_loss, F.cross_entropy(logits.flatten(0, 1), labels.flatten()).detach())
    gradients = [torch.autograd.grad(each, (states, head.weight), retain_graph=True) for each in (loss, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("r_drop", [0.0, 0.7])
@pytest.mark.parametrize("kind", ["plain", "hooked", "with logits"])
def test_the_share_of_teachers_is_the_cross_entropy_with_their_predictions(kind, r_drop):
    states, labels = batch()
    head = nn.Linear(D, V, bias=False)
    if kind == "hooked":
        head.register_forward_hook(lambda module, inputs, output: 2 * output)
    half = B // 2 if r_drop else B
    teachers = Teachers(0.3, (torch.randn(half, L, 3),), (torch.randn(V, 3),))
    logits, is_label = head(states), labels != -100
    q = (teachers.hidden_states[0] @ teachers.weights[0].t()).softmax(-1).repeat(B // half, 1, 1)
    hard = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.2)
    expected = 0.7 * hard + 0.3 * F.cross_entropy(logits[is_label], q[is_label])
    if r_drop:
        expected = expected + 2 * r_drop * r_drop_divergence(*logits.chunk(2), labels[:half]) / is_label.sum()
    given = logits if kind == "with logits" else None
    loss, _ = mean_token_loss(head, states, labels, given, 0.2, r_drop=r_drop, teachers=teachers)
    torch.testing.assert_close(loss, expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = mean_token_loss(head, states, labels, given, 0.2, r_drop=r_drop, teachers=teachers)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=2e-2, atol=0)


@pytest.mark.parametrize("number", [3, torch.tensor(3)])
def test_the_divisor_is_the_number_in_the_whole_batch_if_that_is_known(number):
    states, labels = batch()
    head = nn.Linear(D, V, bias=False)
    mean, total = (mean_token_loss(head, states, labels, None, 0.1, divisor)[0] for divisor in (None, number))
    torch.testing.assert_close(3 * total, mean * labels.ne(-100).sum())


def test_a_batch_without_labels_costs_nothing():
    states, labels = batch()
    loss, nll_loss = mean_token_loss(nn.Linear(D, V), states, torch.full_like(labels, -100), None, 0.1)
    assert (loss.item(), nll_loss.item()) == (0.0, 0.0)
