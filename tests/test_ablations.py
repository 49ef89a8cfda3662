"""The Transformer without parts: what is out, that the rest is the model, and that it saves, loads and decodes."""

import copy
import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoModelForSeq2SeqLM

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.lab.ablations import (
    AblatedTransformer,
    AblatedTransformerConfig,
    DecoderLayerWithoutResiduals,
    EncoderLayerWithoutResiduals,
)

SHAPE = {"vocab_size": 40, "d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 2, "num_decoder_layers": 2}
SOURCE = torch.tensor([[5, 6, 7, 2], [8, 9, 2, 1]])
LABELS = torch.tensor([[15, 16, 2], [17, 2, -100]])
CHANGES = [
    {"layer_norm": False},
    {"residual_connections": False},
    {"layer_norm": False, "residual_connections": False},
    {"scale_scores": False},
]


def ablated(**changes):
    torch.manual_seed(0)
    return AblatedTransformer(AblatedTransformerConfig(**{**SHAPE, **changes})).eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=SOURCE, labels=LABELS).logits


def test_with_all_parts_it_is_the_model():
    torch.manual_seed(0)
    own = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**SHAPE)).eval()
    assert ablated().state_dict().keys() == own.state_dict().keys()
    assert torch.equal(logits(ablated()), logits(own))


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_the_parts_that_stay_begin_with_the_weights_of_the_model(changes):
    """So that runs of one seed differ by the part alone."""
    whole, without = ablated().state_dict(), ablated(**changes).state_dict()
    norms = {name for name in whole if "norm" in name}
    assert without.keys() == whole.keys() - (set() if changes.get("layer_norm", True) else norms)
    assert all(torch.equal(without[name], whole[name]) for name in without)
    assert not torch.allclose(logits(ablated(**changes)), logits(ablated()), atol=1e-3)


@pytest.mark.parametrize("position", ["post", "pre"])
def test_no_norm_is_left(position):
    model = ablated(layer_norm=False, norm_position=position)
    assert not any(isinstance(part, nn.LayerNorm) for part in model.modules())


@torch.no_grad()
def test_a_layer_without_residual_connections_is_the_norm_of_the_sub_layers_one_after_the_other():
    model = ablated(residual_connections=False).model
    encoder, decoder = model.encoder.layers[1], model.decoder.layers[1]
    assert (type(encoder), type(decoder)) == (EncoderLayerWithoutResiduals, DecoderLayerWithoutResiduals)
    x, memory = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    attended = encoder.self_attention_norm(encoder.self_attention(x)[0])
    assert torch.allclose(encoder(x), encoder.feed_forward_norm(encoder.feed_forward(attended)), atol=1e-6)
    steps = decoder.self_attention_norm(decoder.self_attention(x)[0])
    steps = decoder.cross_attention_norm(decoder.cross_attention(steps, key_value_states=memory)[0])
    expected = decoder.feed_forward_norm(decoder.feed_forward(steps))
    assert torch.allclose(decoder(x, None, memory), expected, atol=1e-6)


def test_dropout_is_on_each_sub_layer_as_with_residual_connections():
    model = ablated(residual_connections=False, dropout=0.5).train()
    calls = []
    for stack in (model.model.encoder, model.model.decoder):
        for layer in stack.layers:
            layer.dropout.register_forward_hook(lambda module, args, output: calls.append(module))
    model(input_ids=SOURCE, labels=LABELS).loss.backward()
    assert len(calls) == 2 * 2 + 2 * 3


@torch.no_grad()
def test_without_the_scale_it_is_the_model_with_queries_times_the_root_of_d_k():
    without, scaled = ablated(scale_scores=False), ablated()
    for name, weight in scaled.named_parameters():
        if ".q_proj." in name:
            weight *= math.sqrt(8)
    assert torch.allclose(logits(without), logits(scaled), atol=1e-5)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_it_is_saved_and_loaded_as_what_it_is(changes, tmp_path):
    model = ablated(**changes)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert type(loaded) is AblatedTransformer
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_it_decodes_with_a_cache_as_without(changes):
    model = ablated(**changes)
    options = {"num_beams": 3, "max_new_tokens": 6}
    whole = model.generate(SOURCE, use_cache=False, **options)
    assert torch.equal(model.generate(SOURCE, **options), whole)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_every_weight_learns(changes):
    model = copy.deepcopy(ablated(**changes)).train()
    model(input_ids=SOURCE, labels=LABELS).loss.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())


@pytest.mark.parametrize("field", ["attention", "cross_attention"])
def test_linear_attention_has_no_scores_to_leave_unscaled(field):
    with pytest.raises(StrictDataclassError, match=f"`scale_scores`=False .*`{field}`='linear' has none"):
        AblatedTransformerConfig(**SHAPE, scale_scores=False, **{field: "linear"})


def test_without_residual_connections_there_is_no_pre_norm():
    with pytest.raises(StrictDataclassError, match="there is one order of norm and sub-layer only"):
        AblatedTransformerConfig(**SHAPE, residual_connections=False, norm_position="pre")
