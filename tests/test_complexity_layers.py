"""The layers of Table 1: equal widths, and the operations as torch counts them."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hf_vanilla_transformer.lab.complexity_layers import CONVOLUTION, EAGER, GRU, LAYER_TYPES, SDPA


@pytest.mark.parametrize("name", [EAGER, GRU, CONVOLUTION])  # torch does not count its fused attention
def test_layers_have_equal_widths_and_the_operations_that_torch_counts(name):
    length, d_model = 24, 16
    layer, states = LAYER_TYPES[name].make(d_model, 4), torch.randn(1, length, d_model)
    assert layer(states).shape == states.shape
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer.eval()(states)
    assert counter.get_total_flops() == LAYER_TYPES[name].operations(length, d_model)


def test_both_attentions_are_one_layer():
    states = torch.randn(1, 70, 16)
    eager, fused = (LAYER_TYPES[name].make(16, 4).eval() for name in (EAGER, SDPA))
    fused.load_state_dict(eager.state_dict())
    torch.testing.assert_close(eager(states), fused(states))
