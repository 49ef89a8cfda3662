"""The command `export`: what it refuses and leaves alone, and the programs that it writes beside graphs, run alone."""

import json
import subprocess
import sys

import huggingface_hub
import pytest
import torch
from parity import randomise
from test_remote_code import PACKAGE_IS_MISSING
from transformers import AutoTokenizer, MarianConfig, MarianMTModel

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.commands import export as command
from hf_vanilla_transformer.commands.export import main
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.inference import shipped
from hf_vanilla_transformer.interop import export_torch, run_graphs
from hf_vanilla_transformer.interop.graph_folder import add_companions
from hf_vanilla_transformer.interop.graphs import inference_graphs
from hf_vanilla_transformer.publishing import save_self_contained

TEXTS = ["a dog runs", "the cat sleeps on the mat", "birds", "two men and a dog watch the birds", "a man sleeps"]
TARGETS = ["ein Hund", "zwei Vögel schlafen", "große Straße"]


def small_model(tokenizer, target=None, **shape):
    config = VanillaTransformerConfig(
        vocab_size=len(target or tokenizer), source_vocab_size=len(tokenizer) if target else None, d_model=16,
        **{"num_heads": 2, "d_ff": 24, "num_encoder_layers": 1, "num_decoder_layers": 1, **shape},
    )  # fmt: skip
    model = VanillaTransformerForConditionalGeneration(config).eval()
    randomise(model, seed=5)
    return model


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=TEXTS * 3, vocab_size=300)


@pytest.fixture
def folder(tokenizer, tmp_path):
    small_model(tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def run(capsys, *words):
    capsys.readouterr()
    try:
        status = main([str(word) for word in words], prog="vanilla-transformer export")
    except SystemExit as exit:  # of argparse
        status = exit.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def contents(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def assert_refused(capsys, tmp_path, *words):
    """Exit status 2, one line, and every file as it was; returns the line."""
    before = contents(tmp_path)
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    lines = [line for line in err.splitlines() if "error:" in line]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert contents(tmp_path) == before
    return lines[0]


@pytest.mark.parametrize("to", ["ctranslate2", "torch", "onnx"])
@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_the_folder_of_the_model_is_never_written_to(to, more, folder, tmp_path, capsys):
    if to != "torch":
        pytest.importorskip(to)
    line = assert_refused(capsys, tmp_path, "--model", folder, "--to", to, "--output_dir", folder / ".", *more)
    assert "is the folder of the model itself" in line


def test_a_folder_with_another_model_in_it_is_left_alone_unless_told_otherwise(folder, tmp_path, capsys):
    pytest.importorskip("ctranslate2")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("another model")
    (other / "notes.txt").write_text("keep me")
    words = ["--model", folder, "--to", "ctranslate2", "--output_dir", other]
    line = assert_refused(capsys, tmp_path, *words)
    assert f"{other} is not empty (it has config.json, notes.txt)" in line
    assert "--overwrite" in line
    assert "has notes.txt, which no such result has made" in assert_refused(capsys, tmp_path, *words, "--overwrite")
    assert (other / "notes.txt").read_text() == "keep me"
    (other / "notes.txt").unlink()
    (other / "target_tokenizer").mkdir()
    assert run(capsys, *words, "--overwrite")[0] == 0
    assert not (other / "target_tokenizer").exists()  # it would be taken
    assert (other / "model.bin").exists()
    assert "layer_norm_epsilon" in json.loads((other / "config.json").read_text())
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["model", "other"]


def test_a_ctranslate2_folder_has_a_tokenizer_that_transformers_loads(folder, tokenizer, tmp_path, capsys):
    pytest.importorskip("ctranslate2")
    assert run(capsys, "--model", folder, "--to", "ctranslate2", "--output_dir", tmp_path / "out")[0] == 0
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert [loaded(text).input_ids for text in TEXTS] == [tokenizer(text).input_ids for text in TEXTS]


def cut(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


@torch.no_grad()
def diverge(folder):
    model = VanillaTransformerForConditionalGeneration.from_pretrained(folder)
    model.model.encoder.layers[0].feed_forward.fc1.weight[0, 0] = torch.nan
    model.save_pretrained(folder)


def replace_by_marian(folder):
    config = MarianConfig(
        vocab_size=300, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8, pad_token_id=1, decoder_start_token_id=0,
        eos_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    MarianMTModel(config).save_pretrained(folder)


DAMAGE = {
    "cut weights": (cut, "damaged"),
    "weights that are not finite": (diverge, "not finite"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "a config that is no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config"),
    "no tokenizer": (lambda folder: [path.unlink() for path in folder.glob("tokenizer*")], "tokenizer"),
    "a model of another kind": (replace_by_marian, "a MarianMTModel cannot be exported"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_model_that_cannot_be_used_is_refused_in_one_line(damage, folder, tmp_path, capsys):
    spoil, message = DAMAGE[damage]
    spoil(folder)
    line = assert_refused(capsys, tmp_path, "--model", folder, "--to", "torch", "--output_dir", tmp_path / "out")
    assert message in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "ctranslate2", "--max_positions", "-1"], "`max_positions`=-1"),
        (["--to", "ctranslate2", "--max_positions", "0"], "`max_positions`=0"),
        (["--to", "ctranslate2", "--quantization", "int4"], "allowed: float32, int8"),
        (["--to", "torch", "--quantization", "int8"], "--quantization has no effect with --to torch"),
        (["--to", "onnx", "--max_positions", "9"], "--max_positions has no effect with --to onnx"),
        (["--to", "tflite"], "invalid choice: 'tflite'"),
        (["--to", "torch", "--target_tokenizer", "nowhere"], "nowhere"),
    ],
)
def test_options_that_cannot_be_used_are_named_in_one_line(words, message, folder, tmp_path, capsys):
    pytest.importorskip("ctranslate2")
    line = assert_refused(capsys, tmp_path, "--model", folder, *words, "--output_dir", tmp_path / "out")
    assert message in line


def test_an_output_that_is_a_file_is_refused(folder, tmp_path, capsys):
    output = folder / "config.json"
    line = assert_refused(capsys, tmp_path, "--model", folder, "--to", "torch", "--output_dir", output)
    assert "config.json is a file; name a folder" in line


def test_models_with_adapters_are_refused(tokenizer, tmp_path):
    """Their weights would be left out of some exports without a word."""
    peft = pytest.importorskip("peft")
    model = small_model(tokenizer)
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q_proj"])
    adapted = peft.get_peft_model(small_model(tokenizer), config)
    with pytest.raises(ValueError, match="PeftModelForSeq2SeqLM cannot be exported"):
        export_torch(adapted, tmp_path / "out")
    adapted.save_pretrained(tmp_path / "adapter")
    model.load_adapter(str(tmp_path / "adapter"))
    with pytest.raises(ValueError, match="merge_and_unload"):
        export_torch(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def translated_alone(folder, lines=(), stdin=None):
    """What translate.py writes in an interpreter without this package and without transformers."""
    alone = PACKAGE_IS_MISSING.replace('== "hf_vanilla_transformer"', 'in ("hf_vanilla_transformer", "transformers")')
    program = f"{alone}\nimport runpy\nrunpy.run_path(sys.argv.pop(1), run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program, folder / "translate.py", *lines],
        input=stdin, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def greedy(model, tokenizer, target, texts):
    """By `generate()`, one sentence at a time, as the program does it; in lines."""
    rows = [model.generate(**tokenizer([text], return_tensors="pt"), num_beams=1)[0] for text in texts]
    translations = [target.decode(row, skip_special_tokens=True) for row in rows]
    return [line for text in translations for line in text.splitlines()]


KINDS = ["one vocabulary", "two vocabularies"]


def model_of_kind(kind, tokenizer, folder):
    """A model in a folder of its own, that of one vocabulary with its code; and the tokenizer of its target."""
    target = train_tokenizer(texts=TARGETS * 3, vocab_size=275) if kind == "two vocabularies" else None
    model = small_model(tokenizer, target, num_decoder_layers=2)
    model.generation_config.max_extra_tokens = 5
    model.generation_config.bad_words_ids = [[7]]
    if target is None:
        save_self_contained(model, folder, tokenizer)
    else:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        target.save_pretrained(folder / "target_tokenizer")
    return model, target


@pytest.fixture
def run_program(tokenizer, tmp_path, monkeypatch, capsys):
    """Runs the program of a folder with the graphs as they are before an export, which takes too long."""

    def run_program(model, target=None, texts=TEXTS):
        (tmp_path / "out").mkdir()
        add_companions(model, tmp_path / "out", "pt2", tokenizer, target)
        graphs = {name: graph.module for name, graph in inference_graphs(model).items()}
        monkeypatch.setattr(run_graphs, "FOLDER", tmp_path / "out")
        monkeypatch.setattr(run_graphs, "load_graph", lambda name: (graphs[name], lambda ids: torch.tensor([ids])))
        monkeypatch.setattr(sys, "argv", ["translate.py", *texts])
        capsys.readouterr()
        with torch.no_grad():
            run_graphs.main()
        return capsys.readouterr().out.splitlines()

    return run_program


LIMITS = [
    {},
    {"max_extra_tokens": 0},
    {"max_new_tokens": 3},
    {"max_length": 4, "eos_token_id": [2, 9]},
    {"decoder_start_token_id": 2},  # which ends a translation too, as in models of fairseq
]


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_program_of_a_folder_translates_as_generate_does(kind, limits, tokenizer, tmp_path, run_program):
    """With the graphs as they are before an export; those of an export are tested below."""
    model, target = model_of_kind(kind, tokenizer, tmp_path / "model")
    model.generation_config.update(**limits)
    expected = greedy(model, tokenizer, target or tokenizer, TEXTS)
    assert run_program(model, target) == expected
    assert len(set(expected)) > 1 or limits
    assert any(expected)


def test_the_program_of_a_folder_stops_at_the_last_learned_position(tokenizer, run_program):
    lengths = [len(tokenizer(text).input_ids) for text in TEXTS]
    model = small_model(tokenizer, position_encoding="learned", num_learned_positions=max(lengths))
    model.generation_config.bad_words_ids = [[model.config.eos_token_id]]
    expected = greedy(model, tokenizer, tokenizer, TEXTS)
    assert run_program(model) == expected


def test_the_program_of_a_folder_refuses_a_source_with_more_tokens_than_positions(tokenizer, run_program):
    lengths = [len(tokenizer(text).input_ids) for text in TEXTS]
    model = small_model(tokenizer, position_encoding="learned", num_learned_positions=max(lengths) - 1)
    with pytest.raises(SystemExit, match=f"line 4 has {max(lengths)} tokens.*{max(lengths) - 1} positions"):
        run_program(model)


@pytest.mark.slow  # half a minute each
@pytest.mark.parametrize("to", ["torch", "onnx"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_of_an_export_translates_by_itself(to, kind, tokenizer, tmp_path, capsys):
    if to == "onnx":
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name)
    model, target = model_of_kind(kind, tokenizer, tmp_path / "model")
    status, out, err = run(capsys, "--model", tmp_path / "model", "--to", to, "--output_dir", tmp_path / "out")
    assert status == 0, err
    suffix = {"torch": "pt2", "onnx": "onnx"}[to]
    names = {f"encoder.{suffix}", f"decoder.{suffix}", "README.md", "translate.py", "tokenizer.json"}
    names |= {"tokenizer_config.json", "config.json", "generation_config.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | ({"target_tokenizer"} if target else set())
    assert all(name in out for name in names)
    given = {"stdin": "".join(f"{text}\n" for text in TEXTS)} if target else {"lines": TEXTS}
    assert translated_alone(tmp_path / "out", **given) == greedy(model, tokenizer, target or tokenizer, TEXTS)


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_what_stands_beside_graphs_describes_them_and_names_no_place(suffix, tokenizer, tmp_path):
    model_of_kind("one vocabulary", tokenizer, tmp_path / "model")
    model = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path / "model")
    graphs = inference_graphs(model)
    (tmp_path / "out").mkdir()
    add_companions(model, tmp_path / "out", suffix, AutoTokenizer.from_pretrained(tmp_path / "model"), None)
    readme = (tmp_path / "out" / "README.md").read_text()
    for graph in graphs.values():
        for name in (*graph.input_names, *graph.output_names):
            assert f"`{name.split('.')[0]}{'.i' * ('.' in name)}`" in readme
    key, value = graphs["encoder"].module(*graphs["encoder"].arguments)[:2]
    assert f"(B, {key.shape[1]}, S, {key.shape[3]}), (B, {value.shape[1]}, S, {value.shape[3]})" in readme
    assert "{" not in readme
    assert f"encoder.{suffix}" in readme
    texts = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "auto_map" not in texts  # the code that it names is not there
    assert str(tmp_path) not in texts


@pytest.mark.parametrize("kind", ["a folder", "a shipped checkpoint", "a name of the Hub"])
def test_the_tokenizer_of_the_target_is_found_where_the_model_is(kind, tokenizer, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "hub" / "models--me--two" / "snapshots" / "1"
    _, target = model_of_kind("two vocabularies", tokenizer, folder)
    names = {"a folder": folder, "a shipped checkpoint": "two", "a name of the Hub": "me/two"}
    monkeypatch.setattr(shipped, "shipped_checkpoints", lambda: {"two": folder})
    (tmp_path / "hub" / "models--me--two" / "refs").mkdir()
    (tmp_path / "hub" / "models--me--two" / "refs" / "main").write_text("1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = []
    monkeypatch.setattr(command, "export_torch", lambda model, target_tokenizer, **rest: found.append(target_tokenizer))
    status, _, err = run(capsys, "--model", names[kind], "--to", "torch", "--output_dir", tmp_path / "out")
    assert status == 0, err
    assert found[0].get_vocab() == target.get_vocab() != tokenizer.get_vocab()


def test_a_model_without_the_tokenizer_of_its_target_is_refused(tokenizer, tmp_path, capsys):
    model_of_kind("two vocabularies", tokenizer, tmp_path / "model")
    (tmp_path / "model" / "target_tokenizer").rename(tmp_path / "elsewhere")
    words = ["--model", tmp_path / "model", "--to", "torch", "--output_dir", tmp_path / "out"]
    line = assert_refused(capsys, tmp_path, *words)
    assert f"{tmp_path / 'model' / 'target_tokenizer'}: has no tokenizer of the target; give its folder" in line


def test_two_vocabularies_need_two_tokenizers(tokenizer, tmp_path):
    target = train_tokenizer(texts=TARGETS * 3, vocab_size=275)
    with pytest.raises(ValueError, match="two vocabularies; give the tokenizer of the target too"):
        export_torch(small_model(tokenizer, target), tmp_path / "out", tokenizer)
    assert not (tmp_path / "out").exists()
