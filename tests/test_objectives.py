"""Objectives for plain text in runs: what is learned and by what, how it is judged, and what has no place beside it."""

import random
import shutil
from typing import get_args

import pytest
import torch
from training_runs import SHAPE, arguments, assert_same_end
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, pipeline

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.training import arguments as arguments_module
from hf_vanilla_transformer.training import prepare, pretrain, summary_lines, train
from hf_vanilla_transformer.training.model_setup import build_model
from hf_vanilla_transformer.training.objectives import LEARNERS, WITH_MASK, WITH_NOISE, WITH_SPANS
from hf_vanilla_transformer.training.recipes import given_values

NEW = ["masked_lm", "causal_lm", "prefix_lm", "denoising"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp("plain"), random.Random(0)
    words = ["red", "blue", "dog.", "cat", "runs", "sleeps", "big", "small", "house.", "tree"]
    for name, count in (("train.txt", 60), ("val.txt", 7)):
        lines = (" ".join(generator.choices(words, k=generator.randint(1, 9))) for _ in range(count))
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return folder


def of(objective, plain, output_dir, **changes):
    fixed = LEARNERS[objective].model_class.config_class.fixed_fields
    shape = [f"{name}={value}" for name, value in SHAPE.items() if name not in fixed]
    texts = {"train_data": [str(plain / "train.txt")], "validation_data": [str(plain / "val.txt")]}
    return arguments(
        plain,
        output_dir,
        objective=objective,
        config_overrides=shape,
        **{**texts, "eval_strategy": "no", "generation_num_beams": 4, **changes},
    )


def test_every_objective_has_a_learner_and_those_with_noise_are_some_of_them():
    assert set(get_args(arguments_module.Objective)) == LEARNERS.keys()
    assert {*WITH_MASK, *WITH_NOISE, *WITH_SPANS} <= LEARNERS.keys()


@pytest.mark.parametrize("objective", NEW)
def test_a_run_is_judged_by_the_nats_of_what_is_predicted(objective, plain, tmp_path, drawn_curves):
    args = of(objective, plain, tmp_path / "run", max_steps=2, save_strategy="no")
    run = prepare(args)
    held = [dict(row) for row in run.text.validation_set]
    assert held == [dict(row) for row in prepare(args).text.validation_set], "the same holes at every evaluation"
    before = given_values(args)
    with drawn_curves():
        result = train(run, args)
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert given_values(args) == before, "a queue finds a finished run by what it was given"
    learner = LEARNERS[objective]
    assert type(result.model) is learner.model_class
    nats, count = 0.0, 0
    for row in held:  # by definition, one text at a time
        given = {name: torch.tensor([row[name]]) for name in ("input_ids", "labels")}
        if "prefix_length" in row:
            given["prefix_length"] = torch.tensor([row["prefix_length"]])
        labels = given.pop("labels")
        if learner.has_two_stacks:
            given["labels"] = labels
        with torch.no_grad():
            logits = result.model(**given).logits.double()
        if learner.model_class is LEARNERS["causal_lm"].model_class:
            logits, labels = logits[:, :-1], labels[:, 1:]
        known = labels != -100
        nats -= float(logits.log_softmax(-1)[known].gather(-1, labels[known][:, None]).sum())
        count += int(known.sum())
    assert result.metrics["final_loss"] == pytest.approx(nats / count, rel=1e-5)
    assert not any(name in result.metrics for name in ("final_bleu", "final_chrf"))
    assert f"nats per {learner.unit}, " in summary_lines(result.metrics, "run", objective)[1]


def test_padding_of_a_masked_language_model_is_of_its_input(plain, tmp_path):
    result = pretrain(of("masked_lm", plain, tmp_path / "run", max_steps=2, save_strategy="no", max_tokens=1))
    assert result.metrics["padding"] == 0  # every text is a batch of its own; most of its places have no label


@pytest.mark.parametrize("objective", [NEW[0], *(pytest.param(each, marks=pytest.mark.slow) for each in NEW[1:])])
@pytest.mark.parametrize("streaming", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_that_is_resumed_ends_as_if_it_had_not_been_stopped(objective, streaming, plain, tmp_path):
    """Takes two seconds each, of streams ten."""
    steps = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    if streaming:
        steps |= {"streaming": True, "shuffle_buffer": 64}
    pretrain(of(objective, plain, tmp_path / "whole", **steps))
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "stopped" / "checkpoint-2")
    pretrain(of(objective, plain, tmp_path / "stopped", resume_from_checkpoint="last", **steps))
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
def test_what_is_learned_is_learned_and_serves_others(tmp_path):
    """Takes half a minute. Six letters in the order of a circle of eight: any one of them says what the others are."""
    letters = "abcdefgh"
    lines = [" ".join((letters * 2)[first : first + 6]) for first in range(8)]
    for name in ("train.txt", "val.txt"):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines * 10))
    steady = {"learning_rate": 0.01, "warmup_steps": 50, "max_tokens": 256, "save_strategy": "no", "max_steps": 250}
    for objective, most in (("masked_lm", 0.3), ("causal_lm", 0.5), ("prefix_lm", 0.1), ("denoising", 0.3)):
        args = of(objective, tmp_path, tmp_path / objective, **steady)
        args.config_overrides = [each for each in args.config_overrides if "dropout" not in each]
        args.config_overrides += ["dropout=0", "label_smoothing=0", "norm_position=pre"]
        assert pretrain(args).metrics["final_loss"] < most, objective  # log(8) / 7 = 0.3 is the least of causal_lm
    masked = AutoModelForMaskedLM.from_pretrained(tmp_path / "masked_lm")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "masked_lm")
    fill = pipeline("fill-mask", model=masked, tokenizer=tokenizer)
    assert fill("c d e <mask> g h")[0]["token_str"].strip() == "f"
    for objective in ("causal_lm", "prefix_lm"):
        decoder = AutoModelForCausalLM.from_pretrained(tmp_path / objective)
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / objective)
        prompt = torch.tensor([[tokenizer.bos_token_id, *tokenizer("c d").input_ids[:-1]]])
        (made,) = decoder.generate(prompt, max_new_tokens=9, do_sample=False)
        assert tokenizer.decode(made, skip_special_tokens=True) == "c d e f g h"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "masked_lm", "validation_metrics": ["bleu"]}, "translations; masked_lm has loss and perplexity"),
        ({"objective": "masked_lm", "metric_for_best_model": "bleu"}, "=bleu is of translations; masked_lm has loss"),
        ({"objective": "masked_lm", "r_drop": 1.0}, "r_drop=1.0 is for models with two stacks; masked_lm trains a Van"),
        ({"objective": "causal_lm", "lora_rank": 2, "final_weights": "last"}, "lora_rank=2 is for models with two st"),
        ({"objective": "causal_lm", "bpe_dropout": 0.1}, "bpe_dropout is for translation; causal_lm learns from plain"),
        ({"objective": "masked_lm", "generation_num_beams": 2}, "generation_num_beams=2 is for translations"),
        ({"objective": "prefix_lm", "gnmt_length_penalty": 0.6}, "gnmt_length_penalty=0.6 is for translations"),
        ({"objective": "denoising", "denoising_steps": []}, "denoising_steps is empty"),
        ({"objective": "denoising", "denoising_steps": ["rotate"]}, "denoising_steps has 'rotate', which is none of"),
        (
            {"objective": "denoising", "denoising_steps": ["token_masking"], "mean_span_length": 2.0},
            "mean_span_length=2.0 has no effect with denoising_steps=token_masking",
        ),
        (
            {"objective": "denoising", "denoising_steps": ["document_rotation"], "noise_density": 0.3},
            "noise_density=0.3 has no effect with denoising_steps=document_rotation",
        ),
        (
            {"objective": "masked_lm", "max_length_ratio": 2.0},
            "max_length_ratio=2.0 is of pairs, and masked_lm has none",
        ),
        ({"objective": "causal_lm", "init_encoder_from": "x"}, "init_encoder_from begins a translation model"),
        ({"init_decoder_from": "x", "model_name_or_path": "y"}, "init_decoder_from begins a new model, and model_name"),
        ({"objective": "masked_lm", "source_units": "words"}, "masked_lm has one text, which is cut in one way"),
    ],
)
def test_what_makes_no_sense_beside_an_objective_is_refused_by_name(options, message, tmp_path):
    changed = {"generation_num_beams": 4, "source_units": "bpe", **options}
    changed["target_units"] = "characters" if changed["source_units"] == "words" else "bpe"
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, tmp_path / "run", **changed)


@pytest.mark.parametrize(
    ("objective", "changes", "message"),
    [
        ("masked_lm", {"train_data": "source=train.txt,target=val.txt"}, "parallel text, where this objective learns"),
        ("causal_lm", {"train_data": "train.txt,tag=2de"}, "tag and reversed are for pairs; leave them away"),
        ("prefix_lm", {"overrides": ["prefix_visibility=causal"]}, "=causal, but objective=prefix_lm is bidirectional"),
        (
            "causal_lm",
            {"model_class": "hf_vanilla_transformer:VanillaTransformerForConditionalGeneration"},
            "is no VanillaTransformerForCausalLM, which objective=causal_lm trains",
        ),
    ],
)
def test_text_and_models_of_other_objectives_are_refused(objective, changes, message, plain, tmp_path, monkeypatch):
    monkeypatch.chdir(plain)
    changes = dict(changes)
    if "train_data" in changes:
        changes["train_data"] = [changes["train_data"]]
    overrides = changes.pop("overrides", [])
    args = of(objective, plain, tmp_path / "run", **changes)
    args.config_overrides = [*args.config_overrides, *overrides]
    with pytest.raises(ValueError, match=message):
        prepare(args)


def test_a_model_of_another_kind_is_refused_and_one_of_the_kind_goes_on(plain, tmp_path):
    once = {"max_steps": 1, "save_strategy": "no", "validation_data": []}
    pretrain(of("masked_lm", plain, tmp_path / "masked", **once))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "masked")
    given = {"model_name_or_path": str(tmp_path / "masked")}
    for objective, message in (
        (
            "causal_lm",
            "is a vanilla_transformer_encoder model, and objective=causal_lm trains a VanillaTransformerForC",
        ),
        ("denoising", "to begin a new model with its weights, give init_encoder_from="),
    ):
        with pytest.raises(ValueError, match=message):
            build_model(
                arguments(
                    plain, tmp_path / "other", objective=objective, config_overrides=[], generation_num_beams=4, **given
                ),
                tokenizer,
            )
    again = arguments(
        plain, tmp_path / "more", objective="masked_lm", config_overrides=[], generation_num_beams=4, **given
    )
    assert type(build_model(again, tokenizer)[0]) is LEARNERS["masked_lm"].model_class
    assert LEARNERS["translation"].model_class is VanillaTransformerForConditionalGeneration


def test_with_learned_positions_texts_leave_room_for_the_token_that_begins_them(plain, tmp_path, package_log):
    positions = ["position_encoding=learned", "num_learned_positions=10"]
    args = of("causal_lm", plain, tmp_path / "run", max_steps=1, save_strategy="no")
    args.config_overrides = [*args.config_overrides, *positions]
    run = prepare(args)
    longest = max(len(each) for each in run.text.validation_set["input_ids"])
    assert max(longest, run.text.train_sampler.source_lengths.max()) == 10
    assert "longer than the model's 10 learned positions" in package_log.text
    train(run, args)
