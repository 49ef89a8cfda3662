"""The command `convert` on damaged, foreign or harmful files: one line, exit status 2, nothing left behind."""

import argparse
import json
import pickle
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_fairseq import options, random_state
from test_marian import marian, tokenizer_folder
from test_torch_transformer import Translator
from torch import nn
from transformers import AutoModelForSeq2SeqLM, BartConfig, BartForConditionalGeneration

from hf_vanilla_transformer.commands.convert import main

HEADS = ["--num_heads", "4"]
NAMES = ["--source_embedding", "source.weight", "--target_embedding", "target.weight"]
NAMES += ["--projection", "generator.weight", "--ignored", "^positions$"]
MARKER = "code-was-run"


def run(capsys, *words):
    capsys.readouterr()  # what making the files had to say
    try:
        status = main([str(word) for word in words], prog="vanilla-transformer convert")
    except SystemExit as exit:  # of argparse
        status = exit.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def assert_refused(capsys, tmp_path, *words, output="ours"):
    """Exit status 2, one line about what is wrong, and no file or folder more than before; returns the line."""
    before = sorted(tmp_path.rglob("*"))
    status, out, err = run(capsys, *words, "--output_dir", tmp_path / output)
    assert status == 2
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith(("usage:", " "))]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before
    return lines[0]


class Harmful:
    """Unpickled, it leaves a file behind."""

    def __init__(self, folder):
        self.path = str(Path(folder) / MARKER)

    def __reduce__(self):
        return (exec, (f"open({self.path!r}, 'w').close()",))


def state():
    return Translator(True, separate=False).state_dict()


def write_harmful(path):
    torch.save({**state(), "extra": Harmful(path.parent)}, path)


def write_harmful_pickle(path):
    path.write_bytes(pickle.dumps(Harmful(path.parent)))


def write_half(path):
    torch.save(state(), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_flipped_text(path):
    path.write_bytes(bytes(random.Random(0).randrange(256) for _ in range(3000)))


BAD_FILES = {
    "text": (lambda path: path.write_text("The quick brown fox\n"), "damaged, or not a file of tensors"),
    "nothing": (lambda path: path.write_bytes(b""), "damaged, or not a file of tensors"),
    "noise": (write_flipped_text, "damaged, or not a file of tensors"),
    "half": (write_half, "damaged, or not a file of tensors"),
    "whole model": (lambda path: torch.save(Translator(True), path), "test_torch_transformer.Translator"),
    "program": (lambda path: torch.jit.script(nn.Linear(2, 2)).save(path), "TorchScript"),
    "code": (write_harmful, "would run code of the file"),
    "code in a bare pickle": (write_harmful_pickle, "damaged, or not a file of tensors"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("system", ["torch", "fairseq", "marian"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_file_that_is_no_pickle_of_tensors_is_named_and_never_run(kind, system, tmp_path, capsys):
    write, message = BAD_FILES[kind]
    path = tmp_path / "bad.pt"
    if system == "marian":
        marian(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        path = tmp_path / "pytorch_model.bin"
    write(path)
    given = {
        "torch": [path, *HEADS, *NAMES],
        "fairseq": [path, "--source_dictionary", tmp_path / "dict.txt"],
        "marian": [tmp_path],
    }[system]
    line = assert_refused(capsys, tmp_path, system, *given)
    assert str(path) in line
    assert message in line
    assert "torch.save(model.state_dict(), file)" in line
    assert not (tmp_path / MARKER).exists()


STATES = {
    "a list": (lambda: [torch.zeros(2)], "not a state_dict but a list"),
    "a checkpoint of a training program": (lambda: {"model": state(), "epoch": 3}, "this has 'model', 'epoch'"),
    "no tensors": (dict, "this has nothing"),
    "numbered tensors": (lambda: {1: torch.zeros(2)}, "this has 1"),
    "another architecture": (lambda: nn.TransformerEncoderLayer(16, 4).state_dict(), "no embedding of the source"),
    "half of it": (
        lambda: {name: tensor for name, tensor in state().items() if "decoder.layers.1" not in name},
        "missing: transformer.decoder.layers.1.self_attn.in_proj_weight[q]",
    ),
    "an embedding that is not a matrix": (lambda: {**state(), "source.weight": torch.zeros(16)}, "is not a matrix"),
    "a width that is not a matrix": (
        lambda: {**state(), "transformer.encoder.layers.0.linear1.weight": torch.tensor(1.0)}, "is not a matrix",
    ),
    "a stack that cannot be parted": (
        lambda: {**state(), "transformer.encoder.layers.0.self_attn.in_proj_weight": torch.zeros(47, 16)},
        "is (47, 16), our",
    ),
    "integers": (
        lambda: {**state(), "transformer.encoder.norm.bias": torch.zeros(16, dtype=torch.int8)}, "has torch.int8",
    ),
    "not finite": (
        lambda: {**state(), "transformer.encoder.norm.bias": torch.full((16,), torch.nan)}, "not finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", STATES)
def test_a_state_that_does_not_fit_is_refused_in_one_line(kind, tmp_path, capsys):
    make, message = STATES[kind]
    path = tmp_path / "state.pt"
    torch.save(make(), path)
    line = assert_refused(capsys, tmp_path, "torch", path, *HEADS, *NAMES)
    assert str(path) in line
    assert message in line
    assert len(line) < 2500


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_heads", "5"], "num_heads"),
        (["--num_heads", "0"], "num_heads"),
        (["--num_heads", "four"], "--num_heads: invalid int value: 'four'"),
        ([*HEADS, "--set", "final_norm=yes"], "final_norm"),
        ([*HEADS, "--set", "norm_position=middle"], "norm_position"),
        ([*HEADS, "--set", "dropout='much'"], "dropout"),
        ([*HEADS, "--set", "num_encoder_layers='2'"], "num_encoder_layers"),
        ([*HEADS, "--set", "d_model=None"], "d_model"),
        ([*HEADS, "--set", "d_model=15"], "d_model"),
        ([*HEADS, "--set", "pre"], "'pre' is not of the form"),
        ([*HEADS, "--set", "num_layer=2"], "num_layer"),
        ([*HEADS, "--set", "hidden_size=32"], "32"),
        ([*HEADS, "--set", "encoder_layers=9"], "encoder.layers.2"),
        ([*HEADS, "--set", "num_heads=2"], "there is an option for it, --num_heads"),
        ([*HEADS, "--ignored", "("], "`ignored`='('"),
        ([*HEADS, "--prefix", "a\\b"], "a\\bencoder"),
        ([*HEADS, "--source_dictionary", "dict.txt"], "unknown option --source_dictionary"),
    ],
)
def test_options_that_cannot_be_used_are_named_in_one_line(words, message, tmp_path, capsys):
    torch.save(state(), tmp_path / "state.pt")
    line = assert_refused(capsys, tmp_path, "torch", tmp_path / "state.pt", *NAMES, *words)
    assert message in line


FAIRSEQ = {
    "args that are no options": ({"args": "transformer"}, "`args` in it is a str"),
    "cfg that is no options": ({"args": None, "cfg": [1]}, "`cfg` in it is a list"),
    "no heads": ({"args": argparse.Namespace(arch="transformer")}, "give `num_heads`"),
    "heads of another type": ({"args": options(encoder_attention_heads="4", decoder_attention_heads="4")}, "num_heads"),
    "an unknown activation": ({"args": options(activation_fn="gelu_wrong")}, "gelu_wrong"),
    "weights that are no tensors": ({"model": {"encoder": 1}}, "this has 'encoder'"),
}


@pytest.mark.parametrize("kind", FAIRSEQ)
def test_a_fairseq_file_with_other_things_in_it(kind, tmp_path, capsys):
    change, message = FAIRSEQ[kind]
    torch.save({"model": random_state(), "args": options(), **change}, tmp_path / "model.pt")
    (tmp_path / "dict.txt").write_text("".join(f"w{number} 1\n" for number in range(20)))
    words = ["fairseq", tmp_path / "model.pt", "--source_dictionary", tmp_path / "dict.txt"]
    line = assert_refused(capsys, tmp_path, *words)
    assert str(tmp_path / "model.pt") in line
    assert message in line


def test_fairseq_options_that_say_the_heads_of_one_side_only_are_enough(tmp_path, capsys):
    args = argparse.Namespace(encoder_attention_heads=4)
    torch.save({"model": random_state(), "args": args}, tmp_path / "model.pt")
    (tmp_path / "dict.txt").write_text("".join(f"w{number} 1\n" for number in range(20)))
    words = ["fairseq", tmp_path / "model.pt", "--source_dictionary", tmp_path / "dict.txt"]
    assert run(capsys, *words, "--output_dir", tmp_path / "ours")[0] == 0
    assert AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").config.num_heads == 4


def test_a_dictionary_that_is_no_text_is_named(tmp_path, capsys):
    torch.save({"model": random_state(), "args": options()}, tmp_path / "model.pt")
    (tmp_path / "dict.txt").write_bytes(b"\xff\xfe 1\n")
    words = ["fairseq", tmp_path / "model.pt", "--source_dictionary", tmp_path / "dict.txt"]
    assert str(tmp_path / "dict.txt") in assert_refused(capsys, tmp_path, *words)


def other_weights(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file({f"other.{name}": tensor for name, tensor in tensors.items()}, folder / "model.safetensors")


def cut_weights(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def change_config(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def save_bart(folder):
    config = BartConfig(
        vocab_size=24, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(folder)


MARIAN = {
    "another architecture": (save_bart, "config.json: describes a model of type 'bart'; only 'marian'"),
    "other weights": (other_weights, "no embedding"),
    "cut weights": (cut_weights, "model.safetensors: damaged"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has neither model.safetensors nor"),
    "a config that is no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json: not valid"),
    "a config that is a list": (lambda folder: (folder / "config.json").write_text("[]"), "config.json: holds a list"),
    "a config of wrong types": (change_config(d_model="wide"), "d_model"),
    "heads that do not divide": (change_config(encoder_attention_heads=5, decoder_attention_heads=5), "num_heads"),
    "a vocabulary that is no JSON": (lambda folder: (folder / "vocab.json").write_text("{"), "vocab.json: not valid"),
    "a vocabulary of words": (
        lambda folder: (folder / "vocab.json").write_text('{"</s>": "a"}'), "the id of '</s>' is 'a'",
    ),
    "no vocabulary": (lambda folder: (folder / "vocab.json").unlink(), "vocab.json"),
    "settings that are no JSON": (
        lambda folder: (folder / "tokenizer_config.json").write_text("nonsense"), "tokenizer_config.json: not valid",
    ),
    "a search that is no JSON": (
        lambda folder: (folder / "generation_config.json").write_text("nonsense"), "generation_config.json",
    ),
    "a tokenizer that is none": (
        lambda folder: (folder / "source.spm").write_bytes(b"not a model at all, but text"),
        "source.spm: not a SentencePiece model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MARIAN)
def test_a_marian_folder_with_a_bad_file_is_refused_in_one_line(kind, tmp_path, capsys):
    tokenizer_folder(tmp_path, "unigram", two_models=False)
    marian(tmp_path)
    damage, message = MARIAN[kind]
    damage(tmp_path)
    line = assert_refused(capsys, tmp_path, "marian", tmp_path)
    assert str(tmp_path) in line
    assert message in line


# Outputs


def test_an_output_that_is_a_file_is_refused(tmp_path, capsys):
    torch.save(state(), tmp_path / "state.pt")
    words = ["torch", tmp_path / "state.pt", *HEADS, *NAMES, "--set", "norm_position=pre"]
    assert "state.pt is a file; name a folder" in assert_refused(capsys, tmp_path, *words, output="state.pt")
    assert "state.pt" in assert_refused(capsys, tmp_path, *words, output="state.pt/below")
    assert torch.load(tmp_path / "state.pt", weights_only=True).keys() == state().keys()


def test_a_folder_with_files_in_it_is_left_alone_unless_told_otherwise(tmp_path, capsys):
    torch.save(state(), tmp_path / "state.pt")
    words = ["torch", tmp_path / "state.pt", *HEADS, *NAMES, "--set", "norm_position=pre"]
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "config.json").write_text("a model of somebody")
    (ours / "notes.txt").write_text("keep me")
    line = assert_refused(capsys, tmp_path, *words)
    assert f"{ours} is not empty (it has config.json, notes.txt)" in line
    assert "--overwrite" in line
    assert (ours / "config.json").read_text() == "a model of somebody"
    # A conversion that fails leaves it alone too.
    assert_refused(capsys, tmp_path, *words, "norm_position=middle", "--overwrite")
    assert (ours / "config.json").read_text() == "a model of somebody"

    assert "has notes.txt, which no such result has made" in assert_refused(capsys, tmp_path, *words, "--overwrite")
    assert (ours / "notes.txt").read_text() == "keep me"

    (ours / "notes.txt").unlink()
    (ours / "model-00001-of-00002.safetensors").write_text("of an earlier conversion")
    assert run(capsys, *words, "--overwrite", "--output_dir", ours)[0] == 0
    assert AutoModelForSeq2SeqLM.from_pretrained(ours).config.norm_position == "pre"
    assert {path.name for path in ours.iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}
    assert {path.name for path in tmp_path.iterdir()} == {"state.pt", "ours"}


def test_the_checkpoint_itself_is_never_written_to(tmp_path, capsys):
    tokenizer_folder(tmp_path, "unigram", two_models=False)
    marian(tmp_path)
    for more in ([], ["--overwrite"]):
        line = assert_refused(capsys, tmp_path, "marian", tmp_path, *more, output=".")
        assert "is the folder of the model itself" in line
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "marian"


def test_a_new_folder_has_the_rights_of_any_other(tmp_path, capsys):
    torch.save(state(), tmp_path / "state.pt")
    words = ["torch", tmp_path / "state.pt", *HEADS, *NAMES, "--set", "norm_position=pre"]
    assert run(capsys, *words, "--output_dir", tmp_path / "deep" / "ours")[0] == 0
    (tmp_path / "other").mkdir()
    assert (tmp_path / "deep" / "ours").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["ours"]
