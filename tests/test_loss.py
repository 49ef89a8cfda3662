"""§5.4 label smoothing, by definition and fused: against torch's cross-entropy in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from hf_vanilla_transformer import loss as loss_module
from hf_vanilla_transformer.loss import label_smoothed_cross_entropy, projected_label_smoothed_cross_entropy
from hf_vanilla_transformer.loss_r_drop import r_drop_divergence

EPSILONS = [0.0, 0.1, 0.3]


def problem(tokens=50, width=12, vocab=37, dtype=torch.float64, ignored=0.3):
    hidden = torch.randn(5, tokens // 5, width, dtype=dtype)
    weight = torch.randn(vocab, width, dtype=dtype)
    labels = torch.randint(0, vocab, (5, tokens // 5))
    labels[torch.rand(labels.shape) < ignored] = -100
    return hidden, weight, labels


def reference(hidden, weight, labels, epsilon):
    """Sum, unsmoothed sum and both gradients, by torch in float64."""
    hidden, weight = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    logits = (hidden @ weight.t()).flatten(0, -2)
    loss = F.cross_entropy(logits, labels.flatten(), label_smoothing=epsilon, reduction="sum")
    nll = F.cross_entropy(logits, labels.flatten(), reduction="sum")
    return loss, nll, *torch.autograd.grad(loss, (hidden, weight))


class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the elements of what operations return, or only those with a name."""

    def __init__(self, name=""):
        super().__init__()
        self.name, self.seen = name, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if self.name in str(function) and isinstance(result, torch.Tensor):
            self.seen.append(result.numel())
        return result


@pytest.fixture(params=["one chunk", "many chunks", "many blocks"])
def chunks(request, monkeypatch):
    """Runs a test with all tokens in one chunk of logits, with 64 of them at a time, and these in blocks of a few."""
    if request.param != "one chunk":
        monkeypatch.setattr(loss_module, "_CHUNK_ROWS_ON_CPU", 64)
    if request.param == "many blocks":
        monkeypatch.setattr(loss_module, "_BLOCK_ELEMENTS_ON_CPU", 1000)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_section_5_4_definition_equals_torch_in_float64(epsilon):
    hidden, weight, labels = problem()
    loss, nll = label_smoothed_cross_entropy(hidden @ weight.t(), labels, epsilon)
    expected_loss, expected_nll, _, _ = reference(hidden, weight, labels, epsilon)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(nll, expected_nll, rtol=1e-12, atol=0)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_section_5_4_fused_value_and_gradients_equal_torch_in_float64(epsilon):
    hidden, weight, labels = problem(tokens=200)
    hidden.requires_grad_()
    weight.requires_grad_()
    loss, nll = projected_label_smoothed_cross_entropy(hidden, weight, labels, epsilon)
    gradients = torch.autograd.grad(loss * 0.7, (hidden, weight))  # 0.7: a loss that is divided and scaled afterwards
    expected_loss, expected_nll, *expected_gradients = reference(hidden, weight, labels, epsilon)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(nll, expected_nll, rtol=1e-12, atol=0)
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, 0.7 * expected, rtol=1e-10, atol=1e-12)


def test_fused_gradients_by_finite_differences():
    hidden, weight, labels = problem(tokens=10, width=4, vocab=6)
    hidden.requires_grad_()
    weight.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda h, w: projected_label_smoothed_cross_entropy(h, w, labels, 0.1)[0], (hidden, weight)
    )


@pytest.mark.usefixtures("chunks")
def test_fused_float32_is_near_float64_at_a_real_size():
    hidden, weight, labels = problem(tokens=500, width=128, vocab=5000, dtype=torch.float32)
    hidden.requires_grad_()
    weight.data.mul_(128**-0.5)
    weight.requires_grad_()
    loss, nll = projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1)
    gradients = torch.autograd.grad(loss, (hidden, weight))
    expected_loss, expected_nll, *expected_gradients = reference(hidden, weight, labels, 0.1)
    torch.testing.assert_close(loss.double(), expected_loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(nll.double(), expected_nll, rtol=1e-6, atol=0)
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_second_derivatives_of_the_fused_loss_by_finite_differences(epsilon):
    hidden, weight, labels = problem(tokens=10, width=3, vocab=5)
    hidden.requires_grad_()
    weight.requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda h, w: projected_label_smoothed_cross_entropy(h, w, labels, epsilon)[0], (hidden, weight)
    )


def fused(hidden, weight, labels):
    return projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1)[0]


def unfused(hidden, weight, labels):
    return F.cross_entropy((hidden @ weight.t()).flatten(0, -2), labels.flatten(), label_smoothing=0.1, reduction="sum")


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("trained", ["hidden", "weight", "both"])
def test_hessian_products_and_gradient_penalties_equal_those_of_torch(trained):
    hidden, weight, labels = problem(tokens=200)
    inputs = [*([hidden] if trained != "weight" else []), *([weight] if trained != "hidden" else [])]
    for each in inputs:
        each.requires_grad_()
    directions = [torch.randn_like(each) for each in inputs]

    def hessian_product(loss):
        gradients = torch.autograd.grad(loss(hidden, weight, labels), inputs, create_graph=True)
        return torch.autograd.grad(gradients, inputs, directions)

    def penalised(loss):
        value = loss(hidden * 2, weight, labels) / 7  # not the leaf itself, and a gradient that is not 1
        gradients = torch.autograd.grad(value, inputs, create_graph=True)
        return torch.autograd.grad(value + sum(gradient.pow(2).sum() for gradient in gradients), inputs)

    for quantity in (hessian_product, penalised):
        for actual, expected in zip(quantity(fused), quantity(unfused), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def test_second_derivatives_under_autocast_are_float32_and_near_those_without():
    hidden, weight, labels = problem(tokens=200, width=32, vocab=300, dtype=torch.float32)
    weight.mul_(32**-0.5)
    inputs = (hidden.requires_grad_(), weight.requires_grad_())
    directions = [torch.randn_like(each) for each in inputs]
    products = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = fused(*inputs, labels)
        fast = torch.autograd.grad(loss, inputs, retain_graph=True)
        gradients = torch.autograd.grad(loss, inputs, create_graph=True)
        for gradient, expected in zip(gradients, fast, strict=True):
            assert gradient.dtype == torch.float32
            assert (gradient - expected).norm() < (2**-7 if enabled else 1e-5) * expected.norm()
        products.append(torch.cat([each.flatten() for each in torch.autograd.grad(gradients, inputs, directions)]))
    assert products[1].dtype == torch.float32
    assert (products[1] - products[0]).norm() < 2**-6 * products[0].norm()  # bfloat16 keeps 8 bits of every product


def test_autocast_multiplies_in_bfloat16_and_normalises_in_float32():
    hidden, weight, labels = problem(tokens=200, width=32, vocab=300, dtype=torch.float32)
    hidden.requires_grad_()
    weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, nll = projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1)
    assert (loss.dtype, nll.dtype) == (torch.float32, torch.float32)
    gradients = torch.autograd.grad(loss, (hidden, weight))
    assert [gradient.dtype for gradient in gradients] == [torch.float32, torch.float32]
    # What is left after rounding the inputs to bfloat16, as autocast does, is the rounding of logits and products:
    # 8 bits, so 2^-8 of logits of about sqrt(32) and of sums of up to 200 gradients.
    rounded = (hidden.bfloat16(), weight.bfloat16())
    expected_loss, expected_nll, *expected_gradients = reference(*rounded, labels, 0.1)
    torch.testing.assert_close(loss.double(), expected_loss, rtol=2e-3, atol=0)
    torch.testing.assert_close(nll.double(), expected_nll, rtol=2e-3, atol=0)
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        difference = (gradient.double() - expected).norm() / expected.norm()
        assert difference < 2**-6, difference


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_get_gradients_of_their_own_type_summed_in_float32(dtype):
    hidden, weight, labels = problem(tokens=4000, width=8, vocab=20, dtype=dtype, ignored=0.0)
    hidden.requires_grad_()
    weight.requires_grad_()
    loss, _ = projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1)
    assert loss.dtype == torch.float32
    grad_hidden, grad_weight = torch.autograd.grad(loss, (hidden, weight))
    assert (grad_hidden.dtype, grad_weight.dtype) == (dtype, dtype)
    expected_loss, _, _, expected = reference(hidden, weight, labels, 0.1)
    torch.testing.assert_close(loss.double(), expected_loss, rtol=5e-3, atol=0)
    assert (grad_weight.double() - expected).norm() / expected.norm() < 2**-6


def test_extreme_logits_stay_finite():
    hidden = torch.tensor([[1000.0, 0.0], [-1000.0, 500.0]], requires_grad=True)
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], requires_grad=True)
    labels = torch.tensor([2, 0])
    loss, nll = projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1)
    expected_loss, expected_nll, *expected_gradients = reference(hidden, weight, labels, 0.1)
    torch.testing.assert_close(loss.double(), expected_loss)
    torch.testing.assert_close(nll.double(), expected_nll)
    for gradient, expected in zip(torch.autograd.grad(loss, (hidden, weight)), expected_gradients, strict=True):
        torch.testing.assert_close(gradient.double(), expected)


def test_without_smoothing_a_word_that_cannot_be_costs_nothing():
    """0 * infinity is not a number; nothing is multiplied where nothing is smoothed."""
    logits = torch.tensor([[1.0, 2.0, -torch.inf]], dtype=torch.float64)
    loss, nll = label_smoothed_cross_entropy(logits, torch.tensor([0]), 0.0)
    assert loss.item() == nll.item() == pytest.approx(math.log(1 + math.e))


def test_ignored_labels_get_no_gradient_and_no_labels_give_zero():
    hidden, weight, labels = problem()
    hidden.requires_grad_()
    weight.requires_grad_()
    loss, _ = projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1)
    (grad_hidden,) = torch.autograd.grad(loss, hidden)
    assert (grad_hidden[labels == -100] == 0).all()
    assert (grad_hidden[labels != -100] != 0).any(dim=-1).all()
    loss, nll = projected_label_smoothed_cross_entropy(hidden, weight, torch.full_like(labels, -100), 0.1)
    assert (loss.item(), nll.item()) == (0.0, 0.0)
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(loss, (hidden, weight)))


def test_backward_twice_gives_the_same_gradient_twice():
    hidden, weight, labels = problem()
    hidden.requires_grad_()
    loss, _ = projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1)
    (first,) = torch.autograd.grad(loss * 3, hidden, retain_graph=True)
    (second,) = torch.autograd.grad(loss * 3, hidden)
    assert torch.equal(first, second)


@pytest.mark.parametrize("trained", ["hidden", "weight"])
def test_a_frozen_side_gets_no_gradient(trained):
    hidden, weight, labels = problem()
    (hidden if trained == "hidden" else weight).requires_grad_()
    loss, nll = projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1)
    assert not nll.requires_grad
    loss.backward()
    assert (hidden.grad is not None, weight.grad is not None) == (trained == "hidden", trained == "weight")


@pytest.mark.parametrize("label", [-1, 37])
def test_labels_outside_the_vocabulary_are_refused(label):
    hidden, weight, labels = problem()
    labels[0, 0] = label
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1)
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        label_smoothed_cross_entropy(hidden @ weight.t(), labels, 0.1)


def test_without_gradients_none_are_computed():
    hidden, weight, labels = problem()
    weight.requires_grad_()
    with torch.no_grad():
        loss, _ = projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1)
    assert not loss.requires_grad
    expected, _, _, _ = reference(hidden, weight, labels, 0.1)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_training_never_holds_the_logits_of_all_tokens():
    """The largest tensor made on the way has the size of one chunk of logits, or of a gradient."""
    tokens, width, vocab = 2000, 4, 9000
    hidden = torch.randn(tokens, width, requires_grad=True)
    weight = torch.randn(vocab, width, requires_grad=True)
    labels = torch.randint(0, vocab, (tokens,))
    with Sizes() as sizes:
        loss, _ = projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1)
        loss.backward()
    assert max(sizes.seen) <= loss_module._CHUNK_ROWS_ON_CPU * vocab < tokens * vocab


def test_what_is_no_product_passes_over_as_many_logits_as_a_threads_cache_holds(monkeypatch):
    monkeypatch.setattr(loss_module, "_BLOCK_ELEMENTS_ON_CPU", 30_000)
    limit = 30_000 * torch.get_num_threads()
    vocab, tokens = 3000, 700
    hidden, weight, labels = problem(tokens=tokens, vocab=vocab, dtype=torch.float32)
    hidden.requires_grad_()
    with Sizes("softmax") as sizes:
        projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1)
    assert sum(sizes.seen) == labels.ne(-100).sum() * vocab
    assert max(sizes.seen) <= limit


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_without_graph_breaks(backend):
    hidden, weight, labels = problem(tokens=100)
    hidden.requires_grad_()
    weight.requires_grad_()
    compiled = torch.compile(projected_label_smoothed_cross_entropy, fullgraph=True, backend=backend)
    loss, nll = compiled(hidden, weight, labels, 0.1)
    gradients = torch.autograd.grad(loss, (hidden, weight))
    expected_loss, expected_nll, *expected_gradients = reference(hidden, weight, labels, 0.1)
    torch.testing.assert_close((loss, nll), (expected_loss, expected_nll.detach()))
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_label_whose_probability_is_no_number_any_more_has_its_loss_all_the_same(dtype):
    weight = torch.tensor([[300.0], [-300.0], [0.0]])
    hidden = torch.tensor([[1.0], [-1.0]])
    labels = torch.tensor([1, 2])  # 600 and 300 nats: e^-600 and e^-300 are 0 in float32
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss, nll = projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.0)
    assert (loss.item(), nll.item()) == pytest.approx((900, 900), rel=1e-2 if dtype == torch.bfloat16 else 1e-6)


def r_drop_reference(hidden, weight, labels, epsilon, alpha):
    """Both passes by torch's cross-entropy and the divergence by definition, in float64, with both gradients."""
    hidden, weight = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    logits = hidden @ weight.t()
    loss = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), label_smoothing=epsilon, reduction="sum")
    loss = loss + 2 * alpha * r_drop_divergence(*logits.chunk(2), labels.chunk(2)[0])
    nll = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum")
    return loss, nll, *torch.autograd.grad(loss, (hidden, weight))


def two_passes(dtype=torch.float64, **size):
    hidden, weight, labels = problem(dtype=dtype, **size)
    return torch.cat([hidden, hidden + 0.3 * torch.randn_like(hidden)]), weight, torch.cat([labels, labels])


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("alpha", [0.5, 2.5])
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_fused_r_drop_equals_its_definition_in_float64(epsilon, alpha):
    hidden, weight, labels = two_passes(tokens=200)
    loss, nll = projected_label_smoothed_cross_entropy(
        hidden.requires_grad_(), weight.requires_grad_(), labels, epsilon, alpha
    )
    gradients = torch.autograd.grad(loss * 0.7, (hidden, weight))
    expected_loss, expected_nll, *expected_gradients = r_drop_reference(hidden, weight, labels, epsilon, alpha)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(nll, expected_nll, rtol=1e-12, atol=0)
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, 0.7 * expected, rtol=1e-10, atol=1e-12)


def test_fused_r_drop_has_second_derivatives():
    hidden, weight, labels = two_passes(tokens=5, width=3, vocab=5, ignored=0.2)
    inputs = (hidden.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradgradcheck(
        lambda h, w: projected_label_smoothed_cross_entropy(h, w, labels, 0.1, 1.5)[0], inputs
    )


def test_fused_r_drop_under_autocast_is_near_float64():
    hidden, weight, labels = two_passes(torch.float32, tokens=200, width=32, vocab=300)
    weight.mul_(32**-0.5)
    inputs = (hidden.requires_grad_(), weight.requires_grad_())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = projected_label_smoothed_cross_entropy(*inputs, labels, 0.1, 2.5)
    expected_loss, _, *expected_gradients = r_drop_reference(hidden, weight, labels, 0.1, 2.5)
    torch.testing.assert_close(loss.double(), expected_loss, rtol=1e-2, atol=0)
    for gradient, expected in zip(torch.autograd.grad(loss, inputs), expected_gradients, strict=True):
        assert (gradient.double() - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("labels", [torch.tensor([[1, 2], [1, 3]]), torch.tensor([[1, 2], [1, 2], [1, 2]])])
def test_r_drop_is_of_a_batch_that_is_there_twice(labels):
    hidden, weight = torch.randn(*labels.shape, 4), torch.randn(7, 4)
    with pytest.raises(ValueError, match=r"r_drop=2\.5, the second half of the batch repeats the first"):
        projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1, 2.5)


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])  # 3 seconds
def test_fused_r_drop_compiles_without_graph_breaks(backend):
    hidden, weight, labels = two_passes(tokens=20)
    inputs = (hidden.requires_grad_(), weight.requires_grad_())
    compiled = torch.compile(projected_label_smoothed_cross_entropy, fullgraph=True, backend=backend)
    loss, nll = compiled(*inputs, labels, 0.1, 2.5)
    expected_loss, expected_nll, *expected_gradients = r_drop_reference(*inputs, labels, 0.1, 2.5)
    torch.testing.assert_close((loss, nll), (expected_loss, expected_nll))
    for gradient, expected in zip(torch.autograd.grad(loss, inputs), expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected)
