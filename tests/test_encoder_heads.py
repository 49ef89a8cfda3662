"""Token types, BERT's transform and the three kinds of pooling, each against its formula."""

import pytest
import torch
from torch import nn

from hf_vanilla_transformer import VanillaTransformerEncoderConfig
from hf_vanilla_transformer.encoder_heads import POOLINGS, prediction_transform, token_types

B, S, D = 3, 5, 8
# Padding on either side, and none.
IS_TOKEN = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]).bool()


def config(**fields):
    return VanillaTransformerEncoderConfig(vocab_size=20, d_model=D, num_heads=2, d_ff=8, **fields)


def states():
    return torch.randn(B, S, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_its_formula_wherever_padding_is(pooling):
    module, hidden = POOLINGS[pooling](config(pooling=pooling)).double(), states()
    pooled = module(hidden, IS_TOKEN)
    for row in range(B):
        tokens = hidden[row][IS_TOKEN[row]]
        expected = sum(tokens) / len(tokens) if pooling == "mean" else tokens[0]
        if pooling == "first_tanh":
            expected = torch.tanh(module.dense.weight @ expected + module.dense.bias)
        torch.testing.assert_close(pooled[row], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_is_in_padding_changes_nothing_and_a_row_of_padding_stays_finite(pooling):
    module, hidden = POOLINGS[pooling](config(pooling=pooling)).double(), states()
    changed = torch.where(IS_TOKEN.unsqueeze(-1), hidden, torch.full_like(hidden, 99.0))
    assert torch.equal(module(hidden, IS_TOKEN), module(changed, IS_TOKEN))
    assert module(hidden, torch.zeros_like(IS_TOKEN)).isfinite().all()


def test_a_mean_of_many_states_in_half_precision_does_not_overflow():
    """The sum of 4,001 numbers of about 20 is more than float16 holds."""
    hidden = torch.randn(1, 4001, D, generator=torch.Generator().manual_seed(0)).add(20).half()
    pooled = POOLINGS["mean"](config())(hidden, torch.ones(1, 4001, dtype=torch.bool))
    assert torch.equal(pooled, hidden.double().mean(1).half())


def test_each_token_gets_the_vector_of_its_type():
    module, embeddings = token_types(config(type_vocab_size=3)).double(), states()
    types = torch.tensor([[0, 0, 1, 2, 2], [2, 1, 0, 1, 0], [1, 1, 1, 1, 1]])
    expected = torch.stack([
        torch.stack([embeddings[row, place] + module.weight[types[row, place]] for place in range(S)])
        for row in range(B)
    ])  # fmt: skip
    assert torch.equal(module(embeddings, types), expected)
    assert torch.equal(module(embeddings), module(embeddings, torch.zeros_like(types)))
    with pytest.raises(ValueError, match=r"`token_type_ids` has the shape \(3, 4\)"):
        module(embeddings, types[:, 1:])


def test_no_types_are_no_parameters():
    module, embeddings = token_types(config()), states()
    assert not list(module.parameters())
    assert module(embeddings, torch.ones(B, S, dtype=torch.long)) is embeddings


def test_the_transform_is_a_norm_of_an_activated_linear_layer():
    given = config(masked_lm_head="transform", activation_function="gelu", norm="rms_norm", layer_norm_eps=0.1)
    module, hidden = prediction_transform(given).double(), states()
    x = hidden @ module.dense.weight.T + module.dense.bias
    x = x * (1 + torch.erf(x / 2**0.5)) / 2
    expected = module.norm.weight * x / (x.pow(2).mean(-1, keepdim=True) + 0.1).sqrt()
    torch.testing.assert_close(module(hidden), expected, rtol=0, atol=1e-12)
    assert isinstance(prediction_transform(config()), nn.Identity)
