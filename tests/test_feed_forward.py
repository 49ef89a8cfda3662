"""The position-wise feed-forward network by itself."""

import math

import pytest
import torch
from torch import nn

from hf_vanilla_transformer import VanillaTransformerConfig
from hf_vanilla_transformer.feed_forward import FEED_FORWARDS, FeedForward, GatedFeedForward

# The functions themselves, from their definitions.
ACTIVATIONS = {
    "relu": lambda x: max(0.0, x),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "relu2": lambda x: max(0.0, x) ** 2,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
}


def build(**fields):
    config = VanillaTransformerConfig(vocab_size=50, num_heads=1, **{"d_model": 6, "d_ff": 10, **fields})
    module = FEED_FORWARDS[config.feed_forward](config)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -1.0, 1.0)
    return module.double().eval()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_equation_2_with_the_activation_in_place_of_max_0_x(activation):
    module = build(activation_function=activation)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    w_1, b_1, w_2, b_2 = (
        parameter.tolist() for parameter in (module.fc1.weight, module.fc1.bias, module.fc2.weight, module.fc2.bias)
    )
    expected = torch.empty_like(x)
    for b in range(2):
        for t in range(5):
            row = x[b, t].tolist()
            inner = [ACTIVATIONS[activation](sum(row[i] * w_1[j][i] for i in range(6)) + b_1[j]) for j in range(10)]
            for k in range(6):
                expected[b, t, k] = sum(inner[j] * w_2[k][j] for j in range(10)) + b_2[k]
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "activation"), [("glu", "sigmoid"), ("reglu", "relu"), ("geglu", "gelu"), ("swiglu", "silu")]
)
def test_the_gated_variants_are_their_formula(name, activation):
    """Shazeer, 2020, section 2: FFN_GLU(x, W, V, W_2) = (sigmoid(x W) * x V) W_2, and so on; no biases."""
    module = build(feed_forward="gated", activation_function=activation)
    assert type(module) is GatedFeedForward
    assert [name for name, _ in module.named_parameters()] == ["gate.weight", "fc1.weight", "fc2.weight"]
    x = torch.randn(2, 6, dtype=torch.float64)
    w, v, w_2 = (part.weight.tolist() for part in (module.gate, module.fc1, module.fc2))
    for row, actual in zip(x.tolist(), module(x).tolist(), strict=True):
        gate = [ACTIVATIONS[activation](sum(row[i] * w[j][i] for i in range(6))) for j in range(10)]
        inner = [gate[j] * sum(row[i] * v[j][i] for i in range(6)) for j in range(10)]
        assert actual == pytest.approx([sum(inner[j] * w_2[k][j] for j in range(10)) for k in range(6)], abs=1e-12)


def test_two_thirds_of_d_ff_give_a_gated_network_as_many_parameters():
    plain, gated = build(d_model=96, d_ff=384), build(d_model=96, d_ff=256, feed_forward="gated")
    count = sum(p.numel() for p in gated.parameters())
    assert count == sum(p.numel() for name, p in plain.named_parameters() if "bias" not in name)
    assert isinstance(plain, FeedForward)


@pytest.mark.parametrize("size", ["base", "big", "tiny"])
def test_presets_with_gated_networks_have_the_width_that_comes_nearest_in_parameters(size):
    """Shazeer, 2020, section 3.1: d_ff is reduced by a factor of 2/3, to keep the number of parameters."""
    config, gated = (VanillaTransformerConfig.from_preset(name) for name in (size, f"{size}_swiglu"))
    counts = [sum(p.numel() for p in FEED_FORWARDS[each.feed_forward](each).parameters()) for each in (config, gated)]
    assert abs(counts[0] - counts[1]) <= 3 * config.d_model / 2  # of one unit more or less
    differing = {"d_ff", "feed_forward", "activation_function"}
    fields = [{k: v for k, v in each.to_dict().items() if k not in differing} for each in (config, gated)]
    assert fields[0] == fields[1]
    assert abs(gated.d_ff / config.d_ff - 2 / 3) < 0.01


def test_each_position_is_transformed_by_itself_and_alike():
    module = build()
    x = torch.randn(2, 7, 6, dtype=torch.float64)
    order = torch.randperm(7)
    torch.testing.assert_close(module(x)[:, order], module(x[:, order]), rtol=0, atol=1e-14)
    changed = x.clone()
    changed[0, 3] += 1.0
    differs = module(changed).ne(module(x)).any(-1)
    assert differs.nonzero().tolist() == [[0, 3]]


def test_the_inner_layer_has_d_ff_features_and_both_layers_have_biases():
    module = build()
    assert {name: tuple(weight.shape) for name, weight in module.named_parameters()} == {
        "fc1.weight": (10, 6),
        "fc1.bias": (10,),
        "fc2.weight": (6, 10),
        "fc2.bias": (6,),
    }


def test_activation_dropout_acts_on_the_activated_inner_layer_while_training_only(monkeypatch):
    module = build(activation_dropout=0.25)
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    assert torch.equal(module(x), build_copy_without_dropout(module)(x))

    module.train()
    calls = []

    def drop_every_second(dropout, input):
        calls.append((input, dropout.p, dropout.training))
        return input * (torch.arange(10) % 2)

    monkeypatch.setattr(type(module.activation_dropout), "forward", drop_every_second)
    actual = module(x)
    ((dropped, p, training),) = calls
    activated = module.fc1(x).clamp(min=0)
    assert torch.equal(dropped, activated)
    assert (p, training) == (0.25, True)
    expected = (activated * (torch.arange(10) % 2)) @ module.fc2.weight.T + module.fc2.bias
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-14)


def build_copy_without_dropout(module):
    copy = build(activation_dropout=0.0).train()
    copy.load_state_dict(module.state_dict())
    return copy


def test_activation_dropout_drops_its_share_and_scales_the_rest():
    module = build(d_model=2, d_ff=40_000, activation_dropout=0.2, activation_function="tanh").train()
    inner = {}
    module.activation.register_forward_hook(lambda _, __, output: inner.update(before=output))
    module.fc2.register_forward_pre_hook(lambda _, inputs: inner.update(after=inputs[0]))
    module(torch.randn(1, 1, 2, dtype=torch.float64))
    kept = inner["after"].ne(0)
    # A binomial share of 40,000: six standard deviations.
    assert abs(kept.double().mean().item() - 0.8) < 6 * math.sqrt(0.2 * 0.8 / 40_000)
    # The package rounds a rate to a multiple of 2^-16, so by 2^-17 at most.
    torch.testing.assert_close(inner["after"][kept], inner["before"][kept] / 0.8, rtol=2**-17 / 0.8, atol=0)
