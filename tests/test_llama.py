"""LLaMA folders in: logits and generated ids against transformers' LlamaForCausalLM with random weights."""

import json

import pytest
import torch
from parity import assert_keeps_generation_config, assert_near, randomise
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from hf_vanilla_transformer import VanillaTransformerForCausalLM
from hf_vanilla_transformer.commands.convert import main
from hf_vanilla_transformer.interop import load_llama, load_llama_tokenizer

V, PAD, EOS = 31, 1, 2
TOLERANCE = 1e-5

SHAPES = {
    "grouped keys": {"num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
    "all else": {"attention_bias": True, "head_dim": 6, "tie_word_embeddings": True, "hidden_act": "gelu"},
}


def llama(folder, seed=0, **options):
    """A random LLaMA and the folder it was saved in; no weight is at a value that could go unnoticed."""
    shape = {
        "vocab_size": V, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        "pad_token_id": PAD, "eos_token_id": EOS, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**{**shape, **options})).eval()
    randomise(model, seed)
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(generator=torch.Generator().manual_seed(seed))
    model.save_pretrained(folder)
    return model


def batch():
    ids = torch.randint(3, V, (3, 8), generator=torch.Generator().manual_seed(0))
    ids[1, :3] = PAD
    ids[2, :6] = PAD
    return {"input_ids": ids, "attention_mask": ids.ne(PAD).long()}


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_logits_and_generated_ids_are_the_original_ones(tmp_path, options):
    theirs, inputs = llama(tmp_path, **options), batch()
    ours = load_llama(tmp_path)
    is_token = inputs["attention_mask"].bool()
    with torch.no_grad():
        assert_near(ours(**inputs).logits[is_token], theirs(**inputs).logits[is_token], TOLERANCE, "logits")
    for search in ({}, {"num_beams": 3, "early_stopping": True}):
        search = {**search, "max_new_tokens": 7}
        assert torch.equal(ours.generate(**inputs, **search), theirs.generate(**inputs, **search))


def test_the_generation_config_is_the_original_one(tmp_path):
    assert_keeps_generation_config("llama", llama(tmp_path / "theirs"), load_llama, batch(), PAD, tmp_path)


def test_the_command_converts_a_folder_that_auto_classes_load(tmp_path):
    theirs = llama(tmp_path / "llama")
    assert main(["llama", str(tmp_path / "llama"), "--output_dir", str(tmp_path / "ours")]) == 0
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert type(ours) is VanillaTransformerForCausalLM
    with torch.no_grad():
        assert_near(ours(**batch()).logits[0], theirs(**batch()).logits[0], TOLERANCE, "logits")
    assert load_llama_tokenizer(tmp_path / "llama") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mlp_bias": True}, "mlp_bias=True has no counterpart here; allowed: False"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
            "rope_type='linear' has no counterpart here",
        ),
        ({"num_hidden_layers": 1}, "no place for: model.layers.1."),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, changes, message):
    llama(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=message):
        load_llama(tmp_path)
