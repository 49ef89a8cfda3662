"""8-bit weights by torchao and transformers: how near they stay, that they decode, and that they can be saved."""

import pytest
import torch
import torch.nn.functional as F
from parity import randomise
from torch import nn
from transformers import AutoModelForSeq2SeqLM, TorchAoConfig

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.interop import export_torch

SHAPE = {"vocab_size": 40, "d_model": 32, "num_heads": 4, "d_ff": 64, "num_encoder_layers": 2, "num_decoder_layers": 2}


@pytest.fixture
def model():
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**SHAPE, dropout=0.0))
    randomise(model, seed=1)
    return model


def inputs():
    ids = torch.randint(3, 40, (3, 8), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


class OnlyLinear(torch.Tensor):
    """A weight that computes F.linear, called as nn.Linear calls it, and nothing else: as quantised tensors may."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is F.linear:
            states, weight, bias = args
            return F.linear(states, weight.as_subclass(torch.Tensor), bias)
        if function.__name__ in ("__get__", "as_subclass", "detach", "requires_grad_", "is_floating_point"):
            return super().__torch_function__(function, types, args, kwargs or {})
        raise NotImplementedError(f"{function.__name__} of a quantised tensor")


def only_linear(model, folder):
    for module in model.modules():
        if type(module) is nn.Linear:
            module.weight = nn.Parameter(module.weight.detach().as_subclass(OnlyLinear), requires_grad=False)
    return model


def torchao_after_loading(model, folder):
    quantization = pytest.importorskip("torchao.quantization")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    return model


def torchao_while_loading(model, folder):
    quantization = pytest.importorskip("torchao.quantization")
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder, quantization_config=TorchAoConfig(quantization.Int8WeightOnlyConfig()))


@pytest.mark.parametrize("quantise", [only_linear, torchao_after_loading, torchao_while_loading])
@torch.no_grad()
def test_quantised_tensors_decode_and_score_as_the_whole_model_does(model, quantise, tmp_path):
    """Decoding against full forwards without a cache, the loss against the logits; all of the same quantised model."""
    quantised = quantise(model.eval(), tmp_path).eval()
    assert type(quantised.get_decoder().layers[0].feed_forward.fc1.weight) is not nn.Parameter
    greedy = quantised.generate(**inputs(), num_beams=1, max_new_tokens=6)
    ids = torch.zeros(3, 1, dtype=torch.long)
    while ids.shape[1] < greedy.shape[1]:
        following = quantised(**inputs(), decoder_input_ids=ids, use_cache=False).logits[:, -1].argmax(-1)
        has_ended = ids[:, 1:].eq(quantised.config.eos_token_id).any(-1)
        following = following.masked_fill(has_ended, quantised.config.pad_token_id)
        ids = torch.cat([ids, following[:, None]], dim=1)
    assert torch.equal(greedy, ids)
    beams = {"num_beams": 3, "max_new_tokens": 6, "return_dict_in_generate": True, "output_scores": True}
    expected, actual = (quantised.generate(**inputs(), **beams, use_cache=cached) for cached in (False, True))
    assert torch.equal(actual.sequences, expected.sequences)
    torch.testing.assert_close(actual.sequences_scores, expected.sequences_scores, rtol=1e-4, atol=1e-5)

    labels = torch.randint(3, 40, (3, 5))
    quantised.train()
    logits = quantised(**inputs(), labels=labels, return_logits=True).logits
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
    for return_logits in (True, False):
        loss = quantised(**inputs(), labels=labels, return_logits=return_logits).loss
        torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("scheme", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
@torch.no_grad()
def test_torchao_models_stay_near_and_are_the_same_after_saving(model, scheme, tmp_path):
    """As the README says: by transformers' own argument, on a CPU."""
    quantization = pytest.importorskip("torchao.quantization")
    model.eval().save_pretrained(tmp_path / "float32")
    config = TorchAoConfig(getattr(quantization, scheme)())
    quantised = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "float32", quantization_config=config).eval()
    whole = [module for module in quantised.modules() if isinstance(module, nn.Linear)]
    whole = [module for module in whole if type(module.weight) is nn.Parameter]
    assert whole == [quantised.lm_head]  # tied to the embeddings, which stay as they are

    target = torch.randint(3, 40, (3, 6), generator=torch.Generator().manual_seed(1))
    actual = quantised(**inputs(), decoder_input_ids=target).logits
    expected = model(**inputs(), decoder_input_ids=target).logits
    assert 0 < (actual - expected).norm() / expected.norm() < 0.05
    chosen, best = (
        each.generate(**inputs(), num_beams=1, max_new_tokens=8, min_new_tokens=8) for each in (quantised, model)
    )
    assert (chosen == best).float().mean() > 0.7  # all of them, with this seed

    quantised.save_pretrained(tmp_path / "int8")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("int8", "float32")]
    assert sizes[0] < 0.6 * sizes[1]
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "int8").eval()
    assert torch.equal(loaded(**inputs(), decoder_input_ids=target).logits, actual)
    beams = [each.generate(**inputs(), num_beams=3, max_new_tokens=6) for each in (loaded, quantised)]
    assert torch.equal(*beams)
    with pytest.raises(ValueError, match="weights of the model are quantised"):
        export_torch(loaded, tmp_path / "graphs")
