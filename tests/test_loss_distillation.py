"""Word-level distillation: the loss is that of the definition, fused or not, with smoothing and with R-Drop."""

import pytest
import torch
from torch.nn import functional as F

from hf_vanilla_transformer import loss as loss_module
from hf_vanilla_transformer.loss import projected_label_smoothed_cross_entropy
from hf_vanilla_transformer.loss_distillation import Teachers, teachers_cross_entropy
from hf_vanilla_transformer.loss_r_drop import r_drop_divergence

B, T, D, V = 4, 5, 6, 11


@pytest.fixture(params=["one chunk", "many chunks", "many blocks"])
def chunks(request, monkeypatch):
    if request.param != "one chunk":
        monkeypatch.setattr(loss_module, "_CHUNK_ROWS_ON_CPU", 3 if request.param == "many chunks" else 8)
    if request.param == "many blocks":
        monkeypatch.setattr(loss_module, "_BLOCK_ELEMENTS_ON_CPU", 2 * V)


def problem(passes=1, dtype=torch.float64, share=0.3, scale=1.5):
    """Hidden states of one or two passes, the projection, labels, and two teachers of other widths."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)

    labels = torch.randint(V, (B, T), generator=generator)
    labels[0, 3:] = labels[2, 1:] = -100
    hidden = torch.cat([drawn(B, T, D) for _ in range(passes)]).requires_grad_()
    teachers = Teachers(share, (drawn(B, T, D), drawn(B, T, 3)), (drawn(V, D), drawn(V, 3)))
    return hidden, drawn(V, D).requires_grad_(), torch.cat([labels] * passes), teachers


def predicted(teachers):
    products = zip(teachers.hidden_states, teachers.weights, strict=True)
    return sum(F.softmax(states.double() @ weight.double().t(), dim=-1) for states, weight in products) / 2


def reference(hidden, weight, labels, epsilon, alpha, teachers):
    """By torch's own cross-entropy, once with labels and once with probabilities, in float64."""
    passes = len(labels) // B
    logits, q = hidden.double() @ weight.double().t(), predicted(teachers).repeat(passes, 1, 1)
    hard = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=epsilon, reduction="sum")
    is_label = labels != -100
    soft = F.cross_entropy(logits[is_label], q[is_label], reduction="sum")
    loss = (1 - teachers.share) * hard + teachers.share * soft
    if alpha:
        loss = loss + 2 * alpha * r_drop_divergence(*logits.chunk(2), labels.chunk(2)[0])
    return loss, F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_fused_value_and_gradients_are_those_of_torch_in_float64(share, epsilon, alpha):
    hidden, weight, labels, teachers = problem(2 if alpha else 1, share=share)
    loss, nll = projected_label_smoothed_cross_entropy(hidden, weight, labels, epsilon, alpha, teachers)
    expected_loss, expected_nll = reference(hidden, weight, labels, epsilon, alpha, teachers)
    torch.testing.assert_close((loss, nll), (expected_loss, expected_nll), rtol=1e-12, atol=0)
    gradients = torch.autograd.grad(0.7 * loss, (hidden, weight))
    expected = torch.autograd.grad(0.7 * expected_loss, (hidden, weight))
    torch.testing.assert_close(gradients, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_fused_loss_has_second_derivatives(alpha):
    hidden, weight, labels, teachers = problem(2 if alpha else 1)
    loss, _ = projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1, alpha, teachers)
    expected, _ = reference(hidden, weight, labels, 0.1, alpha, teachers)
    penalties = []
    for each in (loss, expected):
        first = torch.autograd.grad(each, (hidden, weight), create_graph=True)
        penalties.append(torch.autograd.grad(sum(gradient.square().sum() for gradient in first), (hidden, weight)))
    torch.testing.assert_close(*penalties, rtol=1e-8, atol=1e-10)


def test_under_autocast_it_is_near_float64():
    hidden, weight, labels, teachers = problem(2, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1, 1.0, teachers)
    expected, _ = reference(hidden, weight, labels, 0.1, 1.0, teachers)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-2, atol=0)
    for gradient, other in zip(
        torch.autograd.grad(loss, (hidden, weight)), torch.autograd.grad(expected, (hidden, weight)), strict=True
    ):
        assert (gradient - other).norm() < 0.02 * other.norm()


def test_definition_is_torchs_cross_entropy_with_probabilities_and_nothing_where_there_is_no_label():
    hidden, weight, labels, teachers = problem()
    logits, is_label = (hidden @ weight.t()).detach(), labels != -100
    expected = F.cross_entropy(logits[is_label], predicted(teachers)[is_label], reduction="sum")
    logits[~is_label] = float("inf")
    torch.testing.assert_close(teachers_cross_entropy(logits, predicted(teachers), labels), expected)


def test_a_model_that_is_its_own_only_teacher_has_nothing_to_learn():
    hidden, weight, labels, _ = problem()
    own = Teachers(1.0, (hidden.detach(),), (weight.detach(),))
    loss, _ = projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1, 0.0, own)
    assert max(gradient.abs().max() for gradient in torch.autograd.grad(loss, (hidden, weight))) < 1e-12
    log_probs = F.log_softmax(hidden @ weight.t(), dim=-1)[labels != -100]
    torch.testing.assert_close(loss, -(log_probs.exp() * log_probs).sum())  # the entropy


def test_probabilities_of_an_ensemble_are_the_mean_of_probabilities():
    *_, teachers = problem()
    torch.testing.assert_close(teachers.probabilities(torch.float64), predicted(teachers))
    assert teachers.probabilities(torch.bfloat16).dtype == torch.float32


@pytest.mark.parametrize(
    ("share", "states", "message"),
    [(1.5, 1, "share=1.5 is not a number from 0 to 1"), (0.5, 0, "0 teachers' hidden states and 1 projections")],
)
def test_what_is_no_teacher_is_named(share, states, message):
    with pytest.raises(ValueError, match=message):
        Teachers(share, (torch.zeros(1, 2, D),) * states, (torch.zeros(V, D),))
