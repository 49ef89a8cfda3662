"""The arguments of a run: the paper's values by default, and nothing that cannot work."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from transformers import Seq2SeqTrainingArguments

from hf_vanilla_transformer.training import VanillaTransformerTrainingArguments
from hf_vanilla_transformer.training import arguments as arguments_module
from hf_vanilla_transformer.training.refused_options import refuse_data_parallel


@pytest.fixture
def arguments(tmp_path):
    def make(**options):
        return VanillaTransformerTrainingArguments(output_dir=str(tmp_path), **{"use_cpu": True, **options})

    return make


def test_the_defaults_are_the_papers(arguments):
    args = arguments()
    # §5.1: a shared vocabulary of about 37,000 tokens; batches of about 25,000 source and 25,000 target tokens
    assert (args.vocab_size, args.max_tokens) == (37_000, 25_000)
    # §5.3: Adam with beta_1 = 0.9, beta_2 = 0.98, epsilon = 1e-9; 4,000 updates of warm-up
    assert (args.adam_beta1, args.adam_beta2, args.adam_epsilon) == (0.9, 0.98, 1e-9)
    assert args.weight_decay == 0.0
    assert (args.lr_scheduler_type, args.warmup_steps, args.learning_rate) == ("inverse_sqrt", 4000, None)
    assert args.max_grad_norm == 0.0
    # §6.1: the base model, the average of the last 5 checkpoints, beam search with 4 beams
    assert (args.preset, args.final_weights, args.average_last, args.generation_num_beams) == ("base", "average", 5, 4)
    # What the paper has not
    assert (args.bpe_dropout, args.r_drop, args.lora_rank, args.early_stopping_patience) == (0, 0, 0, 0)
    assert (args.objective, args.drop_duplicates, args.max_length_ratio, args.streaming) == (
        "translation",
        False,
        None,
        False,
    )
    # Label smoothing is the model's own (§5.4); transformers would add a second one.
    assert args.label_smoothing_factor == 0.0
    assert not args.logging_nan_inf_filter


def test_every_option_of_ours_is_described():
    inherited = {field.name for field in dataclasses.fields(VanillaTransformerTrainingArguments.__base__)}
    for field in dataclasses.fields(VanillaTransformerTrainingArguments):
        if field.name not in inherited:
            assert field.metadata.get("help"), field.name


@pytest.mark.parametrize("name", ["train_data", "validation_data", "lora_modules", "frozen_modules", "new_tokens"])
def test_one_value_is_a_list_of_one(arguments, name):
    assert getattr(arguments(**{name: "some.jsonl"}), name) == ["some.jsonl"]
    assert getattr(arguments(**{name: ["a", "b"]}), name) == ["a", "b"]


def test_one_mapping_is_a_list_of_one(arguments):
    corpus = {"source": "a.en", "target": "a.de"}
    assert arguments(train_data=corpus).train_data == [corpus]
    assert arguments(config_overrides={"dropout": 0.2}).config_overrides == [{"dropout": 0.2}]


def test_lists_are_not_shared_between_runs(arguments):
    arguments().train_data.append("a")
    assert arguments().train_data == []


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({}, 5),
        ({"average_last": 20}, 20),
        ({"average_last": 1}, 2),
        ({"final_weights": "last"}, 2),
        ({"final_weights": "best", "average_last": 9}, 2),
        ({"save_total_limit": 7}, 7),
        ({"final_weights": "last", "save_total_limit": 1}, 1),
    ],
)
def test_as_many_checkpoints_stay_as_the_average_needs(arguments, options, limit):
    assert arguments(**options).save_total_limit == limit


@pytest.mark.parametrize(
    ("metric", "greater"),
    [
        *(("loss", False), ("perplexity", False), ("bleu", True), ("chrf", True), ("eval_bleu", True)),
        *(("eval_loss", False), ("wer", False), ("eval_per", False), ("ter", False)),
    ],
)
def test_what_is_better_follows_from_the_metric(arguments, metric, greater):
    options = {"metric_for_best_model": metric, "validation_metrics": ["bleu", "chrf", "ter", "wer", "per"]}
    assert arguments(**options).greater_is_better is greater
    assert arguments(**options, greater_is_better=not greater).greater_is_better is not greater


def test_the_best_weights_are_loaded_at_the_end(arguments):
    assert arguments(final_weights="best").load_best_model_at_end
    assert not arguments().load_best_model_at_end


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a device for bf16")
def test_bf16_runs_on_a_cpu(tmp_path):
    args = VanillaTransformerTrainingArguments(output_dir=str(tmp_path), bf16=True)
    assert args.use_cpu
    assert args.device.type == "cpu"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens=0 is less than 1"),
        ({"max_length": 0}, "max_length=0 is less than 1"),
        ({"dry_run": 2, "prepare_only": True}, "prepare_only has nothing to prepare; give one of them"),
        ({"shuffle_buffer": 0}, "shuffle_buffer=0 is less than 1"),
        ({"average_last": 0}, "average_last=0 is less than 1"),
        ({"r_drop": -0.5}, "r_drop=-0.5 is less than 0"),
        ({"lora_rank": -1}, "lora_rank=-1 is less than 0"),
        ({"num_sentinels": -1}, "num_sentinels=-1 is less than 0"),
        ({"early_stopping_patience": -1}, "early_stopping_patience=-1 is less than 0"),
        ({"bpe_dropout": -0.1}, "bpe_dropout=-0.1 is not a number from 0 to 1"),
        ({"bpe_dropout": 1.1}, "bpe_dropout=1.1 is not a number from 0 to 1"),
        ({"bpe_dropout": float("nan")}, "bpe_dropout=nan is not a number from 0 to 1"),
        ({"ema_decay": 2}, "ema_decay=2 is not a number from 0 to 1"),
        ({"objective": "electra"}, "objective='electra' is none of translation, span_corruption, denoising, masked_lm"),
        ({"final_weights": "worst"}, "final_weights='worst' is none of last, best, average, ema"),
        ({"metric_for_best_model": "blue"}, "metric_for_best_model='blue' is none of loss, perplexity, bleu, chrf"),
        ({"metric_for_best_model": "wer"}, "=wer is not computed; give validation_metrics bleu chrf wer"),
        ({"metric_for_best_model": "eval_bleu", "validation_metrics": ["wer"]}, "give validation_metrics wer bleu"),
        (
            {"validation_metrics": ["bleu", "cer"]},
            "validation_metrics has 'cer', which is none of bleu, chrf, ter, wer",
        ),
        ({"validation_metrics": ["paper_bleu"]}, "validation_metrics has 'paper_bleu'"),
        ({"validation_metrics": ["wer"], "objective": "span_corruption"}, "span_corruption has loss and perplexity"),
        ({"max_length_ratio": 0.9}, "max_length_ratio=0.9 is less than 1"),
        ({"save_total_limit": 4}, "save_total_limit=4 keeps fewer checkpoints than average_last=5 needs"),
        ({"average_last": 9, "save_total_limit": 8}, "save_total_limit=8 keeps fewer .* average_last=9"),
        ({"save_strategy": "no"}, "final_weights=average needs checkpoints"),
        ({"save_strategy": "no", "eval_strategy": "no", "final_weights": "best"}, "final_weights=best needs checkp"),
        (
            {"lora_rank": 4, "final_weights": "average"},
            "final_weights=average is of whole models; with lora_rank, take last or best",
        ),
        ({"lora_rank": 4, "final_weights": "ema"}, "final_weights=ema is of whole models"),
        ({"streaming": True}, "streaming needs max_steps.*got -1"),
        ({"streaming": True, "max_steps": 9, "drop_duplicates": True}, "drop_duplicates .*not with streaming"),
        ({"batching": "shuffled"}, "batching='shuffled' is none of length, random"),
        ({"warmup_steps": 0.1}, r"warmup_steps=0.1 is not a number of updates.*§5\.3"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps=0 is less than 1"),
        ({"generation_num_beams": 0}, "generation_num_beams=0 is less than 1"),
        ({"gnmt_length_penalty": math.inf}, "gnmt_length_penalty=inf is not a finite number"),
        ({"dataloader_num_workers": -2}, "dataloader_num_workers=-2 is less than 0"),
        ({"save_total_limit": 0, "final_weights": "last"}, "save_total_limit=0 is less than 1"),
        ({"max_steps": 0}, "max_steps=0 is less than 1"),
        ({"max_steps": -5}, "max_steps=-5 is less than 1"),
        ({"num_train_epochs": 0}, "num_train_epochs=0 trains nothing"),
        ({"warmup_steps": 0}, "warmup_steps=0 is not a number of updates"),
        ({"objective": "span_corruption", "bpe_dropout": 0.1}, "bpe_dropout is for translation"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        arguments(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 1, "max_length": 1, "shuffle_buffer": 1, "average_last": 1},
        {"bpe_dropout": 1.0, "ema_decay": 0},
        {"max_length_ratio": 1.0},
        {"average_last": 9, "save_total_limit": 9},
        {"save_strategy": "no", "final_weights": "last"},
        {"save_strategy": "no", "final_weights": "ema"},
        {"lora_rank": 4, "final_weights": "last"},
        {"lora_rank": 4, "final_weights": "best"},
        {"streaming": True, "max_steps": 1},
        {"drop_duplicates": True},
        {"warmup_steps": 0.1, "learning_rate": 1e-3},
        {"warmup_steps": 1},
        {"objective": "span_corruption"},
        {"metric_for_best_model": None},
        {"validation_metrics": ["wer", "per"], "metric_for_best_model": "wer"},
        {"validation_metrics": []},
    ],
)
def test_values_at_the_edge_of_what_works_are_taken(arguments, options):
    args = arguments(**options)
    for name, value in options.items():
        assert getattr(args, name) == value


@pytest.mark.parametrize(
    "options",
    [
        {"eval_strategy": "steps", "eval_steps": 30, "save_strategy": "steps", "save_steps": 40},
        {"eval_strategy": "epoch", "save_strategy": "steps", "save_steps": 40},
        {"eval_strategy": "steps", "eval_steps": 30, "save_strategy": "epoch"},
        {"eval_strategy": "no", "save_strategy": "epoch"},
    ],
)
def test_the_best_checkpoint_must_be_one_that_was_evaluated(arguments, options):
    with pytest.raises(ValueError, match=r"final_weights=best needs ") as raised:
        arguments(final_weights="best", **options)
    for name, value in options.items():
        assert f"{name}={value}" in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {"eval_strategy": "steps", "eval_steps": 20, "save_strategy": "steps", "save_steps": 40},
        {"eval_strategy": "epoch", "save_strategy": "epoch"},
    ],
)
def test_checkpoints_at_evaluations_have_a_best_one(arguments, options):
    assert arguments(final_weights="best", **options).load_best_model_at_end


def test_several_gpus_in_one_process_are_refused_with_the_line_that_uses_them():
    refuse_data_parallel(SimpleNamespace(n_gpu=1))
    with pytest.raises(ValueError, match="torchrun --nproc-per-node 4 -m hf_vanilla_transformer pretrain"):
        refuse_data_parallel(SimpleNamespace(n_gpu=4))


@pytest.mark.skipif(torch.accelerator.is_available(), reason="is about machines without an accelerator")
@pytest.mark.parametrize(("world_size", "use_cpu"), [("1", False), ("2", True)])
def test_processes_of_a_launcher_without_gpus_compute_on_the_cpu_together(monkeypatch, tmp_path, world_size, use_cpu):
    monkeypatch.setenv("WORLD_SIZE", world_size)
    # What transformers does next, with a launcher that is not there, is not looked at.
    monkeypatch.setattr(Seq2SeqTrainingArguments, "__post_init__", lambda self: None)
    monkeypatch.setattr(VanillaTransformerTrainingArguments, "_check", lambda self: None)
    assert VanillaTransformerTrainingArguments(output_dir=str(tmp_path)).use_cpu == use_cpu


@pytest.mark.parametrize(("accelerator", "cores", "workers"), [(False, 64, 0), (True, 64, 2), (True, 1, 0)])
def test_workers_make_batches_where_a_device_would_wait(monkeypatch, accelerator, cores, workers):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    monkeypatch.setattr(arguments_module, "usable_cores", lambda: cores)
    default = {each.name: each for each in dataclasses.fields(VanillaTransformerTrainingArguments)}
    assert default["dataloader_num_workers"].default_factory() == workers


def test_final_weights_are_an_average_unless_adapters_learn_which_have_none(arguments):
    assert arguments().final_weights == "average"
    assert arguments(lora_rank=4).final_weights == "last"
