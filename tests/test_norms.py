"""Normalisations by themselves, against their formulas and torch's own."""

import math

import pytest
import torch
from torch import nn

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerModel
from hf_vanilla_transformer.norms import NORMS, ScaleNorm, norm

SMALL = {"vocab_size": 20, "d_model": 6, "num_heads": 2, "d_ff": 8, "num_encoder_layers": 1, "num_decoder_layers": 1}


def build(kind, **fields):
    module = norm(VanillaTransformerConfig(**SMALL, norm=kind, **fields)).double()
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return module


def by_hand(kind, module, row, eps):
    mean = sum(row) / len(row)
    if kind == "layer_norm":
        variance = sum((x - mean) ** 2 for x in row) / len(row)
        weight, bias = module.weight.tolist(), module.bias.tolist()
        return [w * (x - mean) / math.sqrt(variance + eps) + b for w, x, b in zip(weight, row, bias, strict=True)]
    if kind == "rms_norm":
        square = sum(x * x for x in row) / len(row)
        return [w * x / math.sqrt(square + eps) for w, x in zip(module.weight.tolist(), row, strict=True)]
    return [module.length.item() * x / math.sqrt(sum(x * x for x in row)) for x in row]


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("eps", [1e-6, 0.1])
def test_each_norm_is_its_formula(kind, eps):
    module, x = build(kind, layer_norm_eps=eps), torch.randn(2, 3, 6, dtype=torch.float64)
    expected = [[by_hand(kind, module, row, eps) for row in rows] for rows in x.tolist()]
    torch.testing.assert_close(module(x), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-13)


def test_the_norm_of_the_paper_is_torchs_layer_norm_and_what_a_model_has_by_default():
    model = VanillaTransformerModel(VanillaTransformerConfig(**SMALL))
    norms = [
        part for name, part in model.named_modules() if name.endswith("norm") and not isinstance(part, nn.Identity)
    ]
    assert {type(part) for part in norms} == {nn.LayerNorm}
    assert len(norms) == 2 + 3


def test_scale_norm_gives_all_positions_one_length_and_starts_with_that_of_layer_norm():
    module, x = ScaleNorm(64, 1e-6), torch.randn(5, 64) * 7
    torch.testing.assert_close(module(x).norm(dim=-1), torch.full((5,), 8.0), rtol=1e-6, atol=0)
    assert nn.LayerNorm(64, elementwise_affine=False)(x).norm(dim=-1).mean().item() == pytest.approx(8.0, rel=1e-3)
    assert torch.equal(module(torch.zeros(1, 64)), torch.zeros(1, 64))
    assert module(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["rms_norm", "scale_norm"])
def test_a_new_model_starts_with_norms_that_leave_the_size_as_it_is(kind):
    """Also after loading without these weights, which transformers then initialises."""
    model = VanillaTransformerModel(VanillaTransformerConfig(**SMALL, norm=kind))
    values = {p.item() for name, part in model.named_parameters() if "norm" in name for p in part.flatten()}
    assert len(values) == 1
    assert values.pop() == pytest.approx(1.0 if kind == "rms_norm" else math.sqrt(6))
