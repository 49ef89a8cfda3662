"""Dynamic int8: what is quantised, how near it stays, and that it decodes."""

import pytest
import torch
from parity import randomise
from torch import nn

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.interop import quantize_int8

SMALL = {"vocab_size": 40, "d_model": 32, "num_heads": 4, "d_ff": 64, "num_encoder_layers": 2, "num_decoder_layers": 2}


@pytest.fixture
def model():
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**SMALL))
    randomise(model, seed=1)
    return model


def inputs():
    ids = torch.randint(3, 40, (3, 8), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@torch.no_grad()
def test_every_linear_layer_is_quantised_and_logits_stay_near(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    quantised = quantize_int8(model.train())
    assert not any(type(module) is nn.Linear for module in quantised.modules())
    assert isinstance(quantised.lm_head, torch.ao.nn.quantized.dynamic.Linear)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    target = torch.randint(3, 40, (3, 6), generator=torch.Generator().manual_seed(1))
    actual = quantised(**inputs(), decoder_input_ids=target).logits
    expected = model.eval()(**inputs(), decoder_input_ids=target).logits
    error = (actual - expected).norm() / expected.norm()
    assert 0 < error < 0.1


@torch.no_grad()
def test_it_decodes_with_a_cache_as_without_and_scores_labels(model):
    quantised = quantize_int8(model)
    for num_beams in (1, 3):
        outputs = quantised.generate(**inputs(), num_beams=num_beams, max_new_tokens=6)
        assert outputs.shape == (3, 7) or outputs.shape[1] < 7
    labels = torch.randint(3, 40, (3, 5))
    assert torch.isfinite(quantised(**inputs(), labels=labels).loss)
