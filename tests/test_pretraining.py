"""Training end to end on a few sentences: what is learned, saved, logged and resumed."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer.evaluation import label_likelihood, score_translations
from hf_vanilla_transformer.inference import translate
from hf_vanilla_transformer.training import PretrainingArguments, prepare, pretrain, train_tokenizer
from hf_vanilla_transformer.training.pretraining import parse_overrides

WORDS = ["red", "blue", "green", "dog", "cat", "bird", "runs", "sits"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Sources and their upper-case "translations", in two files, and a jsonl file for validation."""
    folder = tmp_path_factory.mktemp("text")
    generator = torch.Generator().manual_seed(0)
    lines = [
        " ".join(WORDS[i] for i in torch.randint(len(WORDS), (int(n),), generator=generator).tolist())
        for n in torch.randint(1, 5, (96,), generator=generator)
    ]
    (folder / "train.en").write_text("\n".join(lines[:80]) + "\n")
    (folder / "train.de").write_text("\n".join(line.upper() for line in lines[:80]) + "\n")
    rows = [{"translation": {"en": line, "de": line.upper()}} for line in lines[80:]]
    (folder / "val.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


def arguments(text, output_dir, **options):
    shape = ["d_model=16", "num_heads=2", "d_ff=32", "num_encoder_layers=1", "num_decoder_layers=1", "dropout=0.1"]
    defaults = {
        "source_file": str(text / "train.en"),
        "target_file": str(text / "train.de"),
        "validation_file": str(text / "val.jsonl"),
        "preset": "tiny",
        "config_overrides": shape,
        "vocab_size": 300,
        "per_device_train_batch_size": 16,
        "warmup_steps": 4,
        "num_train_epochs": 2,
        "generation_num_beams": 2,
        "logging_steps": 1,
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return PretrainingArguments(output_dir=str(output_dir), **{**defaults, **options})


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("run")
    return output_dir, pretrain(arguments(text, output_dir))


def test_the_folder_loads_by_the_auto_classes_and_translates_as_the_trained_model(run):
    output_dir, result = run
    model = AutoModelForSeq2SeqLM.from_pretrained(output_dir, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(output_dir, trust_remote_code=False)
    assert type(model).__name__ == "VanillaTransformerForConditionalGeneration"
    for name, weight in result.model.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name
    sentences = ["red dog", "blue cat runs"]
    options = {"max_new_tokens": 8}
    assert list(translate(model, tokenizer, sentences, **options)) == list(
        translate(result.model, result.tokenizer, sentences, **options)
    )


def test_generation_config_comes_out_as_it_went_in_with_a_limit_and_a_cache(run):
    output_dir, result = run
    saved = json.loads((output_dir / "generation_config.json").read_text())
    assert (saved["num_beams"], saved["use_cache"], saved["max_new_tokens"]) == (2, True, 256 + 50)
    assert "max_length" not in saved  # transformers' own trainer leaves 20 behind
    assert json.loads((output_dir / "config.json").read_text())["use_cache"] is True
    assert saved["decoder_start_token_id"] == result.tokenizer.bos_token_id


def test_section_5_3_logged_learning_rates_are_equation_3(run):
    _, result = run
    rates = [entry["learning_rate"] for entry in result.history if "learning_rate" in entry]
    expected = [16**-0.5 * min(step**-0.5, step * 4**-1.5) for step in range(1, 11)]
    assert rates == pytest.approx(expected, rel=1e-6)


def test_section_5_3_optimizer_is_the_papers_adam(text, tmp_path):
    args = arguments(text, tmp_path)
    assert (args.adam_beta1, args.adam_beta2, args.adam_epsilon, args.weight_decay) == (0.9, 0.98, 1e-9, 0.0)
    assert args.max_grad_norm == 0.0


def test_evaluation_is_of_the_model_after_each_epoch_without_smoothing_or_dropout(run, text):
    _, result = run
    rows = [json.loads(line)["translation"] for line in (text / "val.jsonl").read_text().splitlines()]
    data = [
        {"input_ids": result.tokenizer(row["en"])["input_ids"], "labels": result.tokenizer(row["de"])["input_ids"]}
        for row in rows
    ]
    expected = label_likelihood(result.model, data)
    assert [entry["epoch"] for entry in result.history if "eval_loss" in entry] == [1.0, 2.0]
    assert result.metrics["eval_loss"] == pytest.approx(expected.nll_per_token, rel=1e-6)
    assert result.metrics["eval_perplexity"] == pytest.approx(math.exp(expected.nll_per_token), rel=1e-5)
    translations = list(translate(result.model, result.tokenizer, [row["en"] for row in rows], num_beams=2))
    scores = score_translations(translations, [row["de"] for row in rows])
    assert (result.metrics["eval_bleu"], result.metrics["eval_chrf"]) == (scores.bleu, scores.chrf)
    assert result.metrics["signatures"] == {"bleu": scores.bleu_signature, "chrf": scores.chrf_signature}


def test_results_hold_the_numbers_and_the_log(run):
    output_dir, result = run
    saved = json.loads((output_dir / "results.json").read_text())
    assert saved["metrics"] == result.metrics
    assert len(saved["history"]) == len(result.history)
    losses = [entry["loss"] for entry in result.history if "loss" in entry]
    assert len(losses) == saved["metrics"]["updates"] == 10


def test_a_resumed_run_ends_as_the_uninterrupted_one(run, text, tmp_path):
    _, whole = run
    checkpoints = {"save_strategy": "epoch", "num_train_epochs": 2}
    pretrain(arguments(text, tmp_path, **checkpoints, max_steps=5, eval_strategy="no"))
    resumed = pretrain(arguments(text, tmp_path, **checkpoints, resume_from_checkpoint="last"))
    assert resumed.metrics["updates"] == 10
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_a_given_tokenizer_is_used_and_without_validation_there_is_no_evaluation(text, tmp_path):
    tokenizer = train_tokenizer(texts=["red dog RED DOG"], vocab_size=265, min_frequency=1)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    result = pretrain(
        arguments(
            text,
            tmp_path / "run",
            tokenizer_name_or_path=str(tmp_path / "tokenizer"),
            validation_file=None,
            max_steps=2,
            learning_rate=0.25,
        )
    )
    assert result.model.config.vocab_size == len(tokenizer) == len(result.tokenizer)
    assert not any(name.startswith("eval") for name in result.metrics)
    assert next(entry["learning_rate"] for entry in result.history if "learning_rate" in entry) == 0.25 / 4
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert weights["model.encoder.embed_tokens.weight"].shape[0] == len(tokenizer)


def test_a_share_of_warm_up_needs_a_learning_rate(text, tmp_path):
    with pytest.raises(ValueError, match=r"warmup_steps=0\.1 is a share"):
        prepare(arguments(text, tmp_path, warmup_steps=0.1))
    result = pretrain(arguments(text, tmp_path, warmup_steps=0.5, learning_rate=0.01, eval_strategy="no"))
    rates = [entry["learning_rate"] for entry in result.history if "learning_rate" in entry]
    assert max(rates) == rates[4] == pytest.approx(0.01)  # half of ten updates


def test_overrides_are_literals_or_strings_and_otherwise_refused():
    assert parse_overrides(["dropout=0.2", "norm_position=pre", "d_k=None", "attention_bias=True", "d_ff=64"]) == {
        "dropout": 0.2,
        "norm_position": "pre",
        "d_k": None,
        "attention_bias": True,
        "d_ff": 64,
    }
    with pytest.raises(ValueError, match="'dropout' is not of the form NAME=VALUE"):
        parse_overrides(["dropout"])
