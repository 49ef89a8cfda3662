"""The layers of Table 1: equal widths, and the operations as torch counts them."""

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from torch.utils.flop_counter import FlopCounterMode

from hf_vanilla_transformer.lab.complexity_layers import (
    CAUSAL,
    CONVOLUTION,
    EAGER,
    GRU,
    LAYER_TYPES,
    LINEAR,
    SDPA,
    WINDOW,
    WINDOWED,
)


@pytest.mark.parametrize("name", [EAGER, GRU, CONVOLUTION, LINEAR, CAUSAL])  # torch does not count fused attention
@pytest.mark.parametrize("length", [24, 150])
def test_layers_have_equal_widths_and_the_operations_that_torch_counts(name, length):
    d_model = 16
    layer, states = LAYER_TYPES[name].make(d_model, 4), torch.randn(1, length, d_model)
    assert layer(states).shape == states.shape
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer.eval()(states)
    assert counter.get_total_flops() == LAYER_TYPES[name].operations(length, d_model, 4)


def test_both_attentions_are_one_layer():
    states = torch.randn(1, 70, 16)
    eager, fused = (LAYER_TYPES[name].make(16, 4).eval() for name in (EAGER, SDPA))
    fused.load_state_dict(eager.state_dict())
    torch.testing.assert_close(eager(states), fused(states))


@pytest.mark.slow  # some seconds: even uncompiled, flex attention is traced
def test_the_window_is_attention_with_a_mask():
    length = 200
    windowed, full = (LAYER_TYPES[name].make(16, 4).eval() for name in (WINDOWED, SDPA))
    windowed.compiled = flex_attention
    full.load_state_dict(windowed.state_dict())
    states, places = torch.randn(1, length, 16), torch.arange(length)
    mask = ((places[:, None] - places[None]).abs() <= WINDOW)[None, None]
    with torch.no_grad():
        expected = full.attention(states, mask, implementation="sdpa")[0]
        torch.testing.assert_close(windowed(states), expected)
        assert (full(states) - expected).abs().max() > 1e-3
    per_row = [LAYER_TYPES[WINDOWED].operations(n, 16, 4) / n for n in (1024, 8192)]
    assert per_row[0] == pytest.approx(per_row[1], rel=0.1)
