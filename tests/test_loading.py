"""Loading a model to translate with: everything that is damaged or does not fit is refused in one line."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from commanding import run, save_translator
from safetensors.torch import load_file, save_file
from test_pair_scores import build
from transformers import GPT2Config, GPT2LMHeadModel

from hf_vanilla_transformer.commands import score as score_command
from hf_vanilla_transformer.commands import translate as translate_command
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.inference import load_translator, translate
from hf_vanilla_transformer.lab.ablations import AblatedTransformer
from hf_vanilla_transformer.lab.recurrent import RecurrentForConditionalGeneration
from hf_vanilla_transformer.training.checkpoints import publish_checkpoint, writing_folder

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "model"
    save_translator(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def change(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def refused(folder):
    """What is said of a folder, by the function and by the commands alike."""
    with pytest.raises((OSError, ValueError)) as caught:
        load_translator([folder])
    message = str(caught.value)
    assert "\n" not in message
    assert run(translate_command.main, "--model", folder, "a").error == message
    assert run(score_command.main, "--model", folder, stdin=b"a\tb\n").error == message
    return message


def test_a_whole_folder_is_loaded_in_eval_mode_as_it_was_saved(folder, package_log):
    model, tokenizer = load_translator([folder])
    saved = load_file(folder / WEIGHTS)
    assert saved
    for name, weights in saved.items():
        assert torch.equal(model.state_dict()[name].cpu(), weights)
    assert not model.training
    assert len(tokenizer) == model.config.vocab_size
    assert load_translator([folder], "cpu", "bfloat16")[0].dtype == torch.bfloat16
    assert not package_log.text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_and_named(folder, value):
    weights = load_file(folder / WEIGHTS)
    name = "model.decoder.layers.0.feed_forward.fc1.weight"
    weights[name][3, 1] = value
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    assert f"1 of the {weights[name].numel()} numbers of {name} are not finite" in refused(folder)


@pytest.mark.parametrize("length", [0, 7, 1000, -1])
def test_a_truncated_file_of_weights_is_named(folder, length):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:length])
    assert refused(folder).startswith(f"{folder / WEIGHTS} is damaged or truncated")


@pytest.fixture
def sealed(whole, tmp_path):
    written = shutil.copytree(whole, writing_folder(tmp_path) / "checkpoint-1")
    (written / "optimizer.pt").write_bytes(b"state")
    return publish_checkpoint(written, tmp_path)


def test_a_sealed_checkpoint_is_compared_with_its_seal(sealed):
    assert list(translate(*load_translator([sealed]), ["a"]))
    path = sealed / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # one bit: still a number
    path.write_bytes(content)
    assert "checkpoint-1 is damaged: model.safetensors has changed since it was written" in refused(sealed)
    (sealed / "seal.json").unlink()
    load_translator([sealed])
    (sealed / "seal.json").write_text("{")
    assert "its seal.json cannot be read" in refused(sealed)


def test_what_is_not_loaded_may_be_gone_from_a_sealed_checkpoint(sealed):
    (sealed / "optimizer.pt").unlink()
    load_translator([sealed])
    (sealed / "tokenizer.json").unlink()
    assert "tokenizer.json is missing" in refused(sealed)


def test_weights_that_the_config_does_not_fit_are_refused(folder, package_log):
    change(folder, num_encoder_layers=2)
    assert "has no model.encoder.layers.1." in refused(folder)
    change(folder, num_encoder_layers=1, d_ff=40)
    assert "fc1.bias is (32,) in the file of weights, but (40,) by config.json" in refused(folder)
    change(folder, d_ff=32)
    load_translator([folder])
    weights = load_file(folder / WEIGHTS)
    save_file({**weights, "other": torch.ones(1)}, folder / WEIGHTS, metadata={"format": "pt"})
    load_translator([folder])
    assert "1 weights that the model does not have are ignored, such as other" in package_log.text


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows_is_refused(folder):
    tokenizer = train_tokenizer(texts=["aa ab cc cd"] * 9, vocab_size=266)
    tokenizer.save_pretrained(folder)
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    assert f"has {len(tokenizer)} tokens, but its model has embeddings for {rows}" in refused(folder)


def test_a_folder_without_a_tokenizer_is_said_to_have_none(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert f"the folder {folder} has no tokenizer" in refused(folder)
    (folder / "tokenizer.json").write_text('{"a"')
    assert f"the tokenizer of {folder} cannot be loaded" in refused(folder)


def test_folders_without_a_model_and_names_that_are_none(folder, tmp_path):
    assert refused(folder / WEIGHTS) == f"{folder / WEIGHTS} is a file; give the folder of a model"
    (tmp_path / "run" / "checkpoint-3").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-20").mkdir()
    os.utime(tmp_path / "run" / "checkpoint-3", (1, 1))
    message = refused(tmp_path / "run")
    assert "run has no model: no config.json" in message
    assert message.endswith("checkpoint-20")
    for name in ("no/such/folder", "A dog runs."):
        expected = f"there is no folder {name}, and it is not the name of a model on the Hub"
        assert refused(name).startswith(expected)
    expected = "there is no folder own/name, and no such model could be loaded from the Hub: "
    assert refused("own/name").startswith(expected)


def test_models_that_are_no_sequence_to_sequence_models_are_refused(folder, tmp_path):
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=4, n_head=1, vocab_size=300)).save_pretrained(tmp_path / "gpt2")
    shutil.copy(folder / "tokenizer.json", tmp_path / "gpt2")
    assert "it is a gpt2 model, which is not a sequence-to-sequence model" in refused(tmp_path / "gpt2")
    change(folder, model_type="nothing")
    assert f"the model of {folder} cannot be loaded" in refused(folder)
    (folder / "config.json").write_text("{")
    assert "is not a valid JSON file" in refused(folder)


@pytest.mark.parametrize("kind", [AblatedTransformer, RecurrentForConditionalGeneration])
@pytest.mark.slow
def test_models_of_the_lab_are_loaded_by_a_program_that_has_not_imported_it(kind, whole, tmp_path):
    """Imports torch again, in some four seconds."""
    folder = shutil.copytree(whole, tmp_path / "model")
    kind(kind.config_class(vocab_size=262, d_model=16, dropout=0.0)).save_pretrained(folder)
    program = "import sys; from hf_vanilla_transformer.inference import load_translator, translate; "
    program += "lab = [name for name in sys.modules if name.startswith('hf_vanilla_transformer.lab')]; "
    program += "loaded = load_translator(sys.argv[1:], 'cpu'); "
    program += "print(lab, type(loaded[0]).__name__, len(list(translate(*loaded, ['a b']))))"
    command = [sys.executable, "-c", program, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == f"[] {kind.__name__} 1\n"


def test_models_of_different_vocabularies_are_no_ensemble(whole, tmp_path):
    tokenizer = train_tokenizer(texts=["cc cd"] * 9, vocab_size=262)
    build(tokenizer).save_pretrained(tmp_path / "two")
    tokenizer.save_pretrained(tmp_path / "two")
    with pytest.raises(ValueError, match=r"two and .*model differ"):
        load_translator([whole, tmp_path / "two"])
