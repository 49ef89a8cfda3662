"""GPT-2 folders in: logits and generated ids against transformers' GPT2LMHeadModel with random weights."""

import json

import pytest
import torch
from parity import assert_keeps_generation_config, assert_near, randomise
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hf_vanilla_transformer import VanillaTransformerForCausalLM
from hf_vanilla_transformer.commands.convert import main
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.interop import load_gpt2, load_gpt2_tokenizer

V, EOS = 31, 30
TOLERANCE = 1e-5


def gpt2(folder, seed=0, **options):
    """A random GPT-2 and the folder it was saved in; no weight is at a value that could go unnoticed."""
    shape = {
        "vocab_size": V, "n_positions": 20, "n_embd": 16, "n_layer": 2, "n_head": 4, "bos_token_id": EOS,
        "eos_token_id": EOS, "pad_token_id": None,
    }  # fmt: skip
    model = GPT2LMHeadModel(GPT2Config(**{**shape, **options})).eval()
    randomise(model, seed)
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(generator=torch.Generator().manual_seed(seed))
        model.transformer.wpe.weight.normal_(generator=torch.Generator().manual_seed(seed + 1))
    model.save_pretrained(folder)
    return model


def batch(side="left"):
    ids = torch.randint(0, V - 1, (3, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    mask[2, :6] = 0
    if side == "right":
        ids, mask = ids.flip(1), mask.flip(1)
    return {"input_ids": ids.masked_fill(mask == 0, EOS), "attention_mask": mask}


@pytest.mark.parametrize(
    "options",
    [{}, {"n_inner": 24, "activation_function": "relu", "tie_word_embeddings": False}],
    ids=["usual", "other"],
)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_and_loss_are_the_original_ones(tmp_path, options, attention):
    theirs = gpt2(tmp_path, **options)
    ours = load_gpt2(tmp_path)
    ours.set_attn_implementation(attention)
    inputs = batch("right")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    with torch.no_grad():
        mine, expected = (model(**inputs, labels=labels, output_hidden_states=True) for model in (ours, theirs))
    is_token = inputs["attention_mask"].bool()
    assert_near(mine.logits[is_token], expected.logits[is_token], TOLERANCE, "logits")
    assert_near(mine.loss, expected.loss, TOLERANCE, "loss")
    for own, other in zip(mine.hidden_states, expected.hidden_states, strict=True):
        assert_near(own[is_token], other[is_token], TOLERANCE, "hidden states")


def test_generated_ids_are_the_original_ones(tmp_path):
    theirs, inputs = gpt2(tmp_path), batch()
    ours = load_gpt2(tmp_path)
    for options in ({}, {"num_beams": 3, "num_return_sequences": 2, "early_stopping": True}):
        options = {**options, "max_new_tokens": 7, "pad_token_id": EOS}
        assert torch.equal(ours.generate(**inputs, **options), theirs.generate(**inputs, **options))


def test_the_names_of_the_first_release_are_read_too(tmp_path):
    """No `transformer.` in front, causal masks among the weights."""
    theirs = gpt2(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor.clone() for name, tensor in load_file(file).items()}
    tensors["h.0.attn.bias"] = torch.ones(20, 20).tril()
    save_file(tensors, file, {"format": "pt"})
    with torch.no_grad():
        assert_near(load_gpt2(tmp_path)(**batch("right")).logits[0], theirs(**batch("right")).logits[0], TOLERANCE, "")


def test_the_generation_config_is_the_original_one(tmp_path):
    assert_keeps_generation_config("gpt2", gpt2(tmp_path / "theirs"), load_gpt2, batch(), EOS, tmp_path)


def test_the_command_converts_a_folder_that_auto_classes_load(tmp_path, capsys):
    theirs = gpt2(tmp_path / "gpt2")
    train_tokenizer(texts=["a b"], vocab_size=260).save_pretrained(tmp_path / "gpt2")
    (tmp_path / "gpt2" / "config.json").write_text(json.dumps(theirs.config.to_dict()))
    assert main(["gpt2", str(tmp_path / "gpt2"), "--output_dir", str(tmp_path / "ours")]) == 0
    assert "Converted: " in capsys.readouterr().out
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert type(ours) is VanillaTransformerForCausalLM
    with torch.no_grad():
        assert_near(ours(**batch("right")).logits[0], theirs(**batch("right")).logits[0], TOLERANCE, "logits")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "ours")) == 260


def test_a_folder_without_a_tokenizer_has_none(tmp_path):
    gpt2(tmp_path)
    assert load_gpt2_tokenizer(tmp_path) is None
    train_tokenizer(texts=["a b"], vocab_size=260).save_pretrained(tmp_path)
    assert isinstance(load_gpt2_tokenizer(tmp_path), PreTrainedTokenizerFast)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True has no counterpart here"),
        ({"model_type": "bert"}, "describes a model of type 'bert'; only 'gpt2' can be converted"),
        ({"n_layer": 3}, "missing: transformer.h.2.ln_1.weight|missing: transformer.h.2.attn"),
        ({"n_embd": 32}, "shape: transformer.wte.weight is"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, changes, message):
    gpt2(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=message):
        load_gpt2(tmp_path)


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        load_gpt2(tmp_path)


def test_a_dropout_of_its_own_for_embeddings_is_mentioned(tmp_path, monkeypatch):
    from hf_vanilla_transformer.interop import gpt2 as module

    lines = []
    monkeypatch.setattr(module.logger, "warning", lines.append)
    gpt2(tmp_path, embd_pdrop=0.3)
    assert load_gpt2(tmp_path).config.dropout == 0.1
    assert "embd_pdrop=0.3 is ignored" in lines[0]
