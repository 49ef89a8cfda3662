"""Folders and repositories with the code in them; test_remote_code.py loads them where the package is missing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_stub import running_hub
from test_remote_code import PACKAGE_IS_MISSING
from transformers import AutoTokenizer, MarianConfig, MarianMTModel

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerEncoderConfig,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerForMaskedLM,
    VanillaTransformerForSequenceClassification,
    VanillaTransformerModel,
    VanillaTransformerTokenizer,
)
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.publishing import model_card, push_self_contained, save_self_contained

SMALL = {"vocab_size": 270, "d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1, "num_decoder_layers": 1}


def test_code_weights_config_and_tokenizer_are_all_there(tmp_path):
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**SMALL))
    tokenizer = train_tokenizer(texts=["a b c"], vocab_size=262)
    save_self_contained(model, tmp_path, tokenizer)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "modeling_vanilla_transformer.py"} <= names
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {"AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM"}
    for reference in auto_map.values():
        module, name = reference.split(".")
        assert f"class {name}(" in (tmp_path / f"{module}.py").read_text()
    assert (
        AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=False)("a b").input_ids == tokenizer("a b").input_ids
    )


def test_a_folder_of_an_encoder_names_its_own_classes_and_no_translation(tmp_path):
    config = VanillaTransformerEncoderConfig(**{**SMALL, "num_decoder_layers": 0})
    save_self_contained(VanillaTransformerForSequenceClassification(config), tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert "custom_pipelines" not in written
    assert len(written["auto_map"]) == 5
    assert "AutoModelForSeq2SeqLM" not in written["auto_map"]
    for reference in written["auto_map"].values():
        module, name = reference.split(".")
        assert f"class {name}(" in (tmp_path / f"{module}.py").read_text()
    assert not (tmp_path / "modeling_vanilla_transformer.py").exists()


@pytest.mark.parametrize("is_offline", [True, False])
def test_a_tokenizer_is_saved_alike_wherever_it_was_loaded(tmp_path, is_offline):
    """So that uploading it again does not change the repository."""
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**SMALL))
    save_self_contained(model, tmp_path / "first", train_tokenizer(texts=["a b c"], vocab_size=262))
    loaded = AutoTokenizer.from_pretrained(tmp_path / "first", trust_remote_code=False, local_files_only=is_offline)
    save_self_contained(model, tmp_path / "second", loaded)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


@pytest.mark.parametrize(
    "model_class",
    [VanillaTransformerModel, VanillaTransformerForConditionalGeneration, VanillaTransformerForMaskedLM],
)
def test_classes_and_config_are_left_as_they_were(tmp_path, model_class):
    is_encoder = model_class is VanillaTransformerForMaskedLM
    shape = {**SMALL, "num_decoder_layers": 0} if is_encoder else SMALL
    model = model_class(model_class.config_class(**shape))
    save_self_contained(model, tmp_path / "with")
    assert model._auto_class is None
    assert model.config._auto_class is None
    assert not hasattr(model.config, "auto_map")
    model.save_pretrained(tmp_path / "without")
    assert not list((tmp_path / "without").glob("*.py"))
    assert "auto_map" not in (tmp_path / "without" / "config.json").read_text()


def test_a_model_of_another_library_is_refused_by_name(tmp_path):
    config = MarianConfig(
        vocab_size=9, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8, pad_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    with pytest.raises(TypeError, match="MarianMTModel; allowed: VanillaTransformerModel, VanillaTransformerForCond"):
        save_self_contained(MarianMTModel(config), tmp_path)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file"):
        save_self_contained(
            VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**SMALL)), tmp_path / "file"
        )


def test_what_is_loaded_from_a_folder_with_code_and_saved_without_does_not_name_that_code(tmp_path):
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**SMALL))
    save_self_contained(model, tmp_path / "with")
    loaded = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path / "with")
    loaded.save_pretrained(tmp_path / "without")
    assert "auto_map" not in (tmp_path / "without" / "config.json").read_text()
    save_self_contained(loaded, tmp_path / "again")
    assert "auto_map" in (tmp_path / "again" / "config.json").read_text()


TOKENIZER_ALONE = (
    PACKAGE_IS_MISSING
    + """
from transformers import AutoTokenizer, PreTrainedTokenizerFast

expected = PreTrainedTokenizerFast.from_pretrained(sys.argv[1])("a b").input_ids
assert AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=False)("a b").input_ids == expected
print(expected)
"""
)


def test_the_tokenizer_class_itself_loads_without_a_question(tmp_path):
    """Which `AutoTokenizer` without `trust_remote_code` asks, and then waits for 15 seconds: it reads the config of the
    model first, which names code."""
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**SMALL))
    tokenizer = train_tokenizer(texts=["a b c"], vocab_size=262)
    save_self_contained(model, tmp_path / "model", tokenizer)
    done = subprocess.run(
        [sys.executable, "-c", TOKENIZER_ALONE, tmp_path / "model"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tokenizer('a b').input_ids}\n"  # no "Do you wish to run the custom code?"


def push_by_our_function(model, hub):
    """From the folder of a run, with all that a run leaves there."""
    model.save_pretrained("run")
    for name in (
        "optimizer.pt", "training_args.bin", "trainer_state.json", "results.json", ".git/config",
        "checkpoint-1/model.safetensors", ".writing/checkpoint-2/optimizer.pt",
    ):  # fmt: skip
        path = Path("run") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not to be uploaded")
    model = VanillaTransformerForConditionalGeneration.from_pretrained("run")
    return push_self_contained(model, "me/model", card=model_card(model, "me/model"))


def push_by_transformers(model, hub):
    """In a process of its own: transformers keeps the address of the Hub from its first use on."""
    model.save_pretrained("run")
    program = """
from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
VanillaTransformerConfig.register_for_auto_class()
VanillaTransformerForConditionalGeneration.register_for_auto_class("AutoModelForSeq2SeqLM")
print(VanillaTransformerForConditionalGeneration.from_pretrained("run").push_to_hub("me/model").commit_url)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=hub.environment("home"), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of huggingface_hub itself
@pytest.mark.parametrize(
    "push",
    [push_by_our_function, pytest.param(push_by_transformers, marks=pytest.mark.slow)],  # 6 seconds
    ids=["ours", "transformers"],
)
def test_push_uploads_the_same_folder_in_one_commit(tmp_path, push, monkeypatch):
    """Against a stub of the Hub on this machine."""
    monkeypatch.chdir(tmp_path)
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**SMALL))
    with running_hub() as hub:
        address = push(model, hub)
    _, commit = hub.repositories["me/model"].branches["main"]
    assert address == f"{hub.address}/me/model/commit/{commit.sha}"
    save_self_contained(model, "saved")
    # The card is written by model_card, or by transformers.
    assert set(commit.changed) == {path.name for path in Path("saved").iterdir()} | {"README.md"}
    assert commit.files["model.safetensors"] == Path("saved/model.safetensors").read_bytes()
    assert len(hub.objects) == 1


# What transformers' own translation and summarisation scripts do with a folder, step by step.
STOCK_SCRIPT = (
    PACKAGE_IS_MISSING
    + """
import sacrebleu
from datasets import load_dataset
from transformers import (
    AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments,
)

folder, data, output = sys.argv[1:]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=True)
model = AutoModelForSeq2SeqLM.from_pretrained(folder, config=config, trust_remote_code=True)
assert len(tokenizer) <= model.get_input_embeddings().weight.shape[0]
assert model.config.decoder_start_token_id is not None
if hasattr(model.config, "max_position_embeddings") and model.config.max_position_embeddings < 1024:
    model.resize_position_embeddings(1024)

def prepare(rows):
    inputs = tokenizer([pair["en"] for pair in rows["translation"]], max_length=1024, truncation=True)
    targets = tokenizer(text_target=[pair["de"] for pair in rows["translation"]], max_length=128, truncation=True)
    return {**inputs, "labels": targets["input_ids"]}

texts = load_dataset("json", data_files=data, split="train", cache_dir=output + "/cache")
examples = texts.map(prepare, batched=True, remove_columns=texts.column_names)

def bleu(predicted):
    ids, labels = ([[i if i >= 0 else tokenizer.pad_token_id for i in row] for row in each] for each in predicted)
    texts, references = (tokenizer.batch_decode(each, skip_special_tokens=True) for each in (ids, labels))
    return {"bleu": sacrebleu.corpus_bleu(texts, [references]).score}

arguments = Seq2SeqTrainingArguments(
    output_dir=output, max_steps=200, learning_rate=5e-3, warmup_steps=20, per_device_train_batch_size=8, use_cpu=True,
    predict_with_generate=True, save_strategy="no", disable_tqdm=True,
)
trainer = Seq2SeqTrainer(
    model=model, args=arguments, train_dataset=examples, eval_dataset=examples, processing_class=tokenizer,
    data_collator=DataCollatorForSeq2Seq(tokenizer, model=model, label_pad_token_id=-100), compute_metrics=bleu,
)
trainer.train()
trainer.save_model()
metrics = trainer.evaluate(max_length=20, num_beams=2)
predictions = trainer.predict(examples, max_length=20, num_beams=2).predictions
again = AutoModelForSeq2SeqLM.from_pretrained(output, trust_remote_code=True).eval()
inputs = tokenizer(["one two"], return_tensors="pt")
print(json.dumps({
    "loss": metrics["eval_loss"], "bleu": metrics["eval_bleu"], "predicted": len(predictions),
    "again": tokenizer.batch_decode(again.generate(**inputs), skip_special_tokens=True)[0],
}))
"""
)


LEARNED = {"position_encoding": "learned", "num_learned_positions": 512}


@pytest.mark.parametrize("positions", [{}, pytest.param(LEARNED, marks=pytest.mark.slow)])  # 7 seconds
def test_stock_scripts_train_evaluate_and_predict_from_a_folder(positions, tmp_path):
    """A model without a longest length, and one that is to be made longer."""
    words = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier"}
    pairs = [(first, second) for first in words for second in words]
    rows = [
        {"translation": {"en": f"{first} {second}", "de": f"{words[first]} {words[second]}"}} for first, second in pairs
    ]
    (tmp_path / "data.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = train_tokenizer(texts=[text for row in rows for text in row["translation"].values()], vocab_size=290)
    torch.manual_seed(0)
    config = VanillaTransformerConfig(
        vocab_size=len(tokenizer), d_model=32, num_heads=2, d_ff=64, num_encoder_layers=1, num_decoder_layers=1,
        dropout=0.0, norm_position="pre", **positions,
    )  # fmt: skip
    save_self_contained(VanillaTransformerForConditionalGeneration(config), tmp_path / "model", tokenizer)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(
        [sys.executable, "-c", STOCK_SCRIPT, *(str(tmp_path / name) for name in ("model", "data.json", "output"))],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["predicted"] == len(rows)
    assert result["loss"] < 0.3  # without smoothing, with which it could not be below 0.8
    assert result["again"] == "eins zwei"


def test_a_tokenizer_with_code_brings_it_along_and_no_other_does(tmp_path):
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**SMALL))
    tagged = train_tokenizer(texts=["a b c"], vocab_size=262, tags=["<2de>"])
    save_self_contained(model, tmp_path / "tagged", tagged)
    auto_map = json.loads((tmp_path / "tagged" / "tokenizer_config.json").read_text())["auto_map"]
    (reference,) = filter(None, auto_map["AutoTokenizer"])
    module, name = reference.split(".")
    assert f"class {name}(" in (tmp_path / "tagged" / f"{module}.py").read_text()
    assert tagged._auto_class is None
    loaded = AutoTokenizer.from_pretrained(tmp_path / "tagged", trust_remote_code=False)
    assert type(loaded) is VanillaTransformerTokenizer  # of this package, where it is imported
    tagged.save_pretrained(tmp_path / "without")
    assert not list((tmp_path / "without").glob("*.py"))
    assert "auto_map" not in (tmp_path / "without" / "tokenizer_config.json").read_text()
    save_self_contained(model, tmp_path / "plain", train_tokenizer(texts=["a b c"], vocab_size=262))
    assert not (tmp_path / "plain" / f"{module}.py").exists()
