"""§5.4 dropout: rate, scale, gradient, and when it does nothing."""

import pytest
import torch
from torch import nn

from hf_vanilla_transformer.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_section_5_4_drops_each_number_with_probability_p_and_keeps_the_expectation(p):
    count = 1_000_001  # not a multiple of four, the numbers a random integer serves
    output = Dropout(p)(torch.ones(count))
    rounded = round(p * 65536) / 65536
    deviation = (p * (1 - p) / count) ** 0.5
    assert (output == 0).double().mean().item() == pytest.approx(p, abs=5 * deviation + 2**-17)
    kept = output[output != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rounded)), rtol=1e-6, atol=0)


def test_numbers_are_dropped_independently_of_their_place():
    """Also within the four that share a random integer: every pattern of four is as frequent as it should be."""
    p = 0.3
    patterns = Dropout(p)(torch.ones(200_000, 4)).ne(0).long() @ torch.tensor([1, 2, 4, 8])
    frequencies = torch.bincount(patterns, minlength=16).double() / len(patterns)
    for pattern, frequency in enumerate(frequencies.tolist()):
        kept = pattern.bit_count()
        expected = (1 - p) ** kept * p ** (4 - kept)
        assert frequency == pytest.approx(expected, abs=5 * (expected / len(patterns)) ** 0.5)


def test_gradient_passes_where_numbers_did_and_is_scaled_alike():
    input = torch.randn(50, 7, requires_grad=True)
    output = Dropout(0.4)(input)
    (gradient,) = torch.autograd.grad(output.sum(), input)
    torch.testing.assert_close(output, input * gradient)
    assert set(gradient.unique().tolist()) == {0.0, gradient.max().item()}


def test_the_seed_decides_and_calls_differ():
    layer, input = Dropout(0.5), torch.ones(100)
    torch.manual_seed(1)
    first, second = layer(input), layer(input)
    torch.manual_seed(1)
    assert torch.equal(layer(input), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_shape_and_type_are_kept(dtype):
    for shape in ((), (0,), (3,), (2, 3, 5)):
        output = Dropout(0.5)(torch.ones(shape, dtype=dtype))
        assert (output.shape, output.dtype) == (torch.Size(shape), dtype)
        assert set(output.flatten().tolist()) <= {0.0, 2.0}


def test_in_eval_mode_and_without_probability_nothing_happens():
    input = torch.randn(9)
    assert torch.equal(Dropout(0.5).eval()(input), input)
    assert torch.equal(Dropout(0.0)(input), input)
    assert (Dropout(1.0)(input) == 0).all()
    assert Dropout(0.999999)(input).isfinite().all()


def test_it_is_torchs_dropout_to_those_who_look_for_that_and_in_graphs():
    layer = Dropout(0.25)
    assert isinstance(layer, nn.Dropout)
    assert layer.p == 0.25
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.manual_seed(0)
    expected = nn.functional.dropout(torch.ones(64), 0.25, training=True)
    torch.manual_seed(0)
    assert torch.equal(compiled(torch.ones(64)), expected)
