"""Training end to end on a few sentences: what is learned, saved, logged, gone on with and refused."""

import itertools
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_runs import SHAPE, arguments, without_clock, write_text
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer import VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.tokenization import sentinel_ids
from hf_vanilla_transformer.evaluation import label_likelihood, score_translations
from hf_vanilla_transformer.inference import translate
from hf_vanilla_transformer.tokenization_ids import text_to_ids
from hf_vanilla_transformer.training import prepare, pretrain, train
from hf_vanilla_transformer.training.averaging import average_weights
from hf_vanilla_transformer.training.checkpoints import list_checkpoints


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def run(text, tmp_path_factory, drawn_curves):
    output_dir = tmp_path_factory.mktemp("run")
    with drawn_curves():
        changes = {"max_tokens": 128, "final_weights": "average", "average_last": 2}
        return output_dir, pretrain(arguments(text, output_dir, **changes))


def weights_of(folder):
    return load_file(Path(folder) / "model.safetensors")


def assert_weights_equal(first, second):
    assert first.keys() == second.keys()
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name


def validation_rows(text):
    return [json.loads(line)["translation"] for line in (text / "val.jsonl").read_text().splitlines()]


def test_the_folder_loads_by_the_auto_classes_and_translates_as_the_trained_model(run):
    output_dir, result = run
    model = AutoModelForSeq2SeqLM.from_pretrained(output_dir, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(output_dir, trust_remote_code=False)
    assert type(model).__name__ == "VanillaTransformerForConditionalGeneration"
    assert_weights_equal(result.model.state_dict(), model.state_dict())
    sentences = ["red dog", "blue cat runs"]
    options = {"max_new_tokens": 8}
    assert list(translate(model, tokenizer, sentences, **options)) == list(
        translate(result.model, result.tokenizer, sentences, **options)
    )


def test_generation_config_comes_out_as_it_went_in_with_a_limit_and_a_cache(run):
    output_dir, result = run
    for folder in (output_dir, *list_checkpoints(output_dir)):
        saved = json.loads((folder / "generation_config.json").read_text())
        assert (saved["num_beams"], saved["use_cache"]) == (2, True)
        assert "max_length" not in saved  # transformers' own trainer leaves 20 behind
        assert json.loads((folder / "config.json").read_text())["use_cache"] is True
        assert saved["decoder_start_token_id"] == result.tokenizer.bos_token_id


def test_no_pickle_is_written_but_the_optimizer_the_schedule_and_the_random_state(run):
    output_dir, _ = run
    pickles = {path.name for path in output_dir.rglob("*") if path.suffix in {".bin", ".pt", ".pth", ".pkl"}}
    assert pickles == {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    for path in output_dir.rglob("*.pt*"):
        if path.name != "rng_state.pth":
            torch.load(path, weights_only=True)


def test_section_5_3_logged_learning_rates_are_equation_3(run):
    _, result = run
    rates = [entry["learning_rate"] for entry in result.history if "learning_rate" in entry]
    expected = [16**-0.5 * min(step**-0.5, step * 4**-1.5) for step in range(1, len(rates) + 1)]
    assert len(rates) == result.metrics["updates"]
    assert rates == pytest.approx(expected, rel=1e-6)


def test_section_5_3_optimizer_is_the_papers_adam(text, tmp_path):
    args = arguments(text, tmp_path)
    assert (args.adam_beta1, args.adam_beta2, args.adam_epsilon, args.weight_decay) == (0.9, 0.98, 1e-9, 0.0)
    assert args.max_grad_norm == 0.0


def test_section_6_1_the_saved_model_is_the_average_of_the_last_checkpoints_and_that_is_what_is_scored(run, text):
    output_dir, result = run
    checkpoints = list_checkpoints(output_dir)
    assert len(checkpoints) == 2
    assert_weights_equal(weights_of(output_dir), average_weights(checkpoints))
    assert result.metrics["final_weights"].startswith("average of 2 checkpoints: loss ")
    rows = validation_rows(text)
    data = [
        {"input_ids": result.tokenizer(row["en"])["input_ids"], "labels": result.tokenizer(row["de"])["input_ids"]}
        for row in rows
    ]
    expected = label_likelihood(result.model, data)
    assert result.metrics["final_loss"] == pytest.approx(expected.nll_per_token, rel=1e-6)
    assert result.metrics["final_perplexity"] == pytest.approx(math.exp(expected.nll_per_token), rel=1e-5)
    translations = list(translate(result.model, result.tokenizer, [row["en"] for row in rows], num_beams=2))
    scores = score_translations(translations, [row["de"] for row in rows])
    assert (result.metrics["final_bleu"], result.metrics["final_chrf"]) == (scores["bleu"].value, scores["chrf"].value)
    assert result.metrics["signatures"] == {name: scores[name].signature for name in ("bleu", "chrf")}


def test_evaluation_during_training_is_of_the_model_at_that_time(run, text):
    output_dir, result = run
    entries = [entry for entry in result.history if "eval_loss" in entry]
    assert [entry["epoch"] for entry in entries] == [1.0, 2.0]
    rows = validation_rows(text)
    for entry, checkpoint in zip(entries, list_checkpoints(output_dir)):
        model = VanillaTransformerForConditionalGeneration.from_pretrained(checkpoint)
        data = [
            {"input_ids": result.tokenizer(row["en"])["input_ids"], "labels": result.tokenizer(row["de"])["input_ids"]}
            for row in rows
        ]
        assert entry["eval_loss"] == pytest.approx(label_likelihood(model, data).nll_per_token, rel=1e-6)


def test_results_hold_the_numbers_the_arguments_and_the_log_and_the_curves_are_drawn(run):
    output_dir, result = run
    saved = json.loads((output_dir / "results.json").read_text())
    assert saved["metrics"] == result.metrics
    assert len(saved["history"]) == len(result.history)
    assert saved["arguments"]["max_tokens"] == 128
    assert "adam_beta1" not in saved["arguments"]  # as transformers has it
    assert saved["environment"]["threads"] == torch.get_num_threads()
    assert (output_dir / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_two_runs_of_the_same_arguments_are_the_same(run, text, tmp_path):
    output_dir, result = run
    again = pretrain(arguments(text, tmp_path, max_tokens=128, final_weights="average", average_last=2))
    assert without_clock(again.history) == without_clock(result.history)
    assert_weights_equal(weights_of(output_dir), weights_of(tmp_path))


def test_best_weights_are_those_of_the_best_evaluation_and_patience_ends_the_run(text, tmp_path):
    # A rate that wrecks the model after a while: the best is not the last.
    args = arguments(
        text,
        tmp_path,
        final_weights="best",
        metric_for_best_model="perplexity",
        early_stopping_patience=2,
        learning_rate=0.3,
        warmup_steps=30,
        lr_scheduler_type="constant_with_warmup",
        num_train_epochs=30,
    )
    result = pretrain(args)
    values = [entry["eval_perplexity"] for entry in result.history if "eval_perplexity" in entry]
    best = values.index(min(values))
    assert best == len(values) - 3  # two more evaluations, neither of them better
    assert len(values) < 30
    assert result.metrics["final_perplexity"] == pytest.approx(values[best], rel=1e-6)
    steps = result.metrics["updates"] // len(values)
    assert result.metrics["final_weights"] == f"best perplexity, update {steps * (best + 1)}"


def test_the_moving_average_is_what_its_formula_says_and_what_is_scored_and_saved(text, tmp_path):
    decay = 0.8
    args = arguments(
        text,
        tmp_path,
        final_weights="ema",
        ema_decay=decay,
        max_steps=4,
        save_strategy="steps",
        save_steps=1,
        keep_worse_average=True,
    )
    args.save_total_limit = 9
    run = prepare(args)
    average = {name: weight.detach().clone() for name, weight in run.model.named_parameters()}
    result = train(run, args)
    checkpoints = list_checkpoints(tmp_path)
    assert len(checkpoints) == 4
    for update, checkpoint in enumerate(checkpoints, 1):
        weights, stays = weights_of(checkpoint), min(decay, (1 + update) / (10 + update))
        average = {name: stays * old + (1 - stays) * weights[name] for name, old in average.items()}
    saved = weights_of(tmp_path)
    for name, expected in average.items():
        torch.testing.assert_close(saved[name], expected, atol=1e-6, rtol=1e-5)
    assert result.metrics["final_weights"].startswith("moving average, decay 0.8, though worse: loss ")
    # A run that is resumed goes on with the average too.
    interrupted = tmp_path / "interrupted"
    pretrain(arguments(text, interrupted, **{**_ema(decay), "max_steps": 2}))
    resumed = pretrain(arguments(text, interrupted, **_ema(decay), resume_from_checkpoint="last"))
    assert resumed.metrics["updates"] == 4
    assert_weights_equal(weights_of(interrupted), saved)


def _ema(decay):
    steps = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1}
    return {"final_weights": "ema", "ema_decay": decay, "keep_worse_average": True, "num_train_epochs": 2, **steps}


def test_a_given_tokenizer_is_used_and_without_validation_there_is_no_evaluation(text, tmp_path):
    tokenizer = train_tokenizer(texts=["red dog RED DOG"], vocab_size=265, min_frequency=1)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    args = arguments(text, tmp_path / "run", tokenizer_name_or_path=str(tmp_path / "tokenizer"), max_steps=2)
    args.validation_data, args.learning_rate = [], 0.25
    result = pretrain(args)
    assert result.model.config.vocab_size == len(tokenizer) == len(result.tokenizer)
    assert not any(name.startswith(("eval", "final_loss")) for name in result.metrics)
    assert next(entry["learning_rate"] for entry in result.history if "learning_rate" in entry) == 0.25 / 4


@pytest.mark.parametrize(
    "options",
    [
        {"bf16": True},
        {"streaming": True, "shuffle_buffer": 30, "max_steps": 6},
        *(
            pytest.param(options, marks=pytest.mark.slow)  # 4 seconds each
            for options in (
                {"activation_checkpointing": True},
                {"gradient_accumulation_steps": 2},
                {"bpe_dropout": 0.3},
                {"r_drop": 1.0},
                {"max_grad_norm": 0.5},
                {"lr_scheduler_type": "cosine", "learning_rate": 0.03},
            )
        ),
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_learn_something_and_resume_bit_identical(options, text, tmp_path):
    save = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "eval_strategy": "no", **options}
    whole = pretrain(arguments(text, tmp_path / "whole", **save))
    losses = [entry["loss"] for entry in whole.history if "loss" in entry]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    pretrain(arguments(text, tmp_path / "resumed", **save))
    newest = list_checkpoints(tmp_path / "resumed")[-1]
    assert newest.name == "checkpoint-6"
    (newest / "optimizer.pt").unlink()  # so that it is gone on with from update 3
    resumed = pretrain(arguments(text, tmp_path / "resumed", **save, resume_from_checkpoint="last"))
    assert_weights_equal(weights_of(tmp_path / "whole"), weights_of(tmp_path / "resumed"))
    training = [entry for entry in without_clock(whole.history) if "loss" in entry]
    assert training == [entry for entry in without_clock(resumed.history) if "loss" in entry]


@pytest.mark.slow
def test_a_compiled_model_learns_the_same(text, tmp_path):
    """Takes about two minutes."""
    still = {"config_overrides": [f"{name}={value}" for name, value in {**SHAPE, "dropout": 0.0}.items()]}
    runs = [
        pretrain(arguments(text, tmp_path / str(compiled), max_steps=4, torch_compile=compiled, **still))
        for compiled in (False, True)
    ]
    losses = [[entry["loss"] for entry in run.history if "loss" in entry] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow  # 7 seconds
def test_span_corruption_learns_from_plain_text_and_is_finetuned_to_translate(tmp_path):
    # Six letters in the order of a circle of eight: any one of them says what the two that are missing are.
    letters = "abcdefgh"
    lines = [" ".join((letters * 2)[first : first + 6]) for first in range(8)]
    (tmp_path / "plain").write_text("".join(f"{line}\n" for line in lines * 10))
    pairs = "".join(json.dumps({"translation": {"en": line, "de": line[::-1]}}) + "\n" for line in lines)
    (tmp_path / "train.jsonl").write_text(pairs * 10)
    (tmp_path / "val.jsonl").write_text(pairs)
    shape = ["d_model=32", "num_heads=4", "d_ff=64", "num_encoder_layers=1", "num_decoder_layers=1", "dropout=0"]
    steady = {"learning_rate": 0.01, "warmup_steps": 50, "max_tokens": 256, "save_strategy": "no"}
    steady |= {"eval_on_start": True, "eval_strategy": "steps", "eval_steps": 250}
    noise = {"objective": "span_corruption", "num_sentinels": 4, "noise_density": 0.3, "mean_span_length": 1.0}
    args = arguments(
        *(tmp_path, tmp_path / "pretrained"), **steady, **noise, max_steps=250,
        train_data=[str(tmp_path / "plain")], validation_data=[str(tmp_path / "plain")],
        config_overrides=[*shape, "label_smoothing=0"],
    )  # fmt: skip
    result = pretrain(args)
    # Targets are two sentinels, two letters and the end. Who looks at no context has to guess the letters.
    guessing = 2 * math.log(8) / 5
    assert result.metrics["final_loss"] < guessing / 5
    assert loss_at_start(result) > guessing
    assert "final_bleu" not in result.metrics  # there is nothing to translate
    assert len(sentinel_ids(result.tokenizer)) == 4
    args = arguments(
        tmp_path, tmp_path / "tuned", **steady, max_steps=60, config_overrides=[],
        model_name_or_path=str(tmp_path / "pretrained"),
    )  # fmt: skip
    run = prepare(args)
    assert_weights_equal(run.model.state_dict(), result.model.state_dict())
    tuned = train(run, args)
    assert tuned.metrics["final_loss"] < loss_at_start(tuned) / 5
    assert "final_bleu" in tuned.metrics
    assert tuned.model.config.vocab_size == len(result.tokenizer)
    args = arguments(tmp_path, tmp_path / "none", objective="span_corruption", train_data=[str(tmp_path / "plain")])
    with pytest.raises(ValueError, match="span_corruption needs a tokenizer with sentinel tokens; set num_sentinels"):
        prepare(args)


def loss_at_start(result):
    """The first validation loss; with eval_on_start, that of the weights with which the run began."""
    return next(entry["eval_loss"] for entry in result.history if "eval_loss" in entry)


def test_finetuning_begins_with_the_given_weights_and_a_fresh_or_continued_schedule(run, text, tmp_path):
    output_dir, result = run
    updates = result.metrics["updates"]
    model = {"model_name_or_path": str(output_dir), "eval_strategy": "no", "max_steps": 2}
    assert_weights_equal(prepare(arguments(text, tmp_path, **model)).model.state_dict(), result.model.state_dict())
    for first, options in ((0, {}), (updates, {"continue_schedule": True})):
        tuned = pretrain(arguments(text, tmp_path / str(first), **model, **options))
        rates = [entry["learning_rate"] for entry in tuned.history if "learning_rate" in entry]
        steps = [first + 1, first + 2]
        assert rates == pytest.approx([16**-0.5 * min(step**-0.5, step * 4**-1.5) for step in steps], rel=1e-6)
    checkpoint = list_checkpoints(output_dir)[0]
    assert prepare(arguments(text, tmp_path, model_name_or_path=str(checkpoint), continue_schedule=True)).first_update
    (tmp_path / "bare").mkdir()
    result.model.save_pretrained(tmp_path / "bare")
    result.tokenizer.save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match="has neither trainer_state.json nor results.json"):
        prepare(arguments(text, tmp_path, model_name_or_path=str(tmp_path / "bare"), continue_schedule=True))


def test_a_chain_of_runs_has_the_schedule_of_one(run, text, tmp_path):
    """§5.3 for the third link: its first update is one further than all updates of the two before."""
    done, folder = run[1].metrics["updates"], run[0]
    chain = {"eval_strategy": "no", "validation_data": [], "save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    for number, place in enumerate(("end", "checkpoint-1")):
        options = {**chain, "model_name_or_path": str(folder), "continue_schedule": True}
        tuned = pretrain(arguments(text, tmp_path / str(number), **options))
        rates = [entry["learning_rate"] for entry in tuned.history if "learning_rate" in entry]
        steps = [done + 1, done + 2]
        assert rates == pytest.approx([16**-0.5 * min(step**-0.5, step * 4**-1.5) for step in steps], rel=1e-6)
        folder = tmp_path / str(number)
        done += 2 if place == "end" else 1
        folder = folder if place == "end" else folder / place
    again = arguments(text, tmp_path / "again", model_name_or_path=str(folder), continue_schedule=True)
    assert prepare(again).first_update == done


def test_frozen_parts_stay_as_they_were_and_the_others_do_not(run, text, tmp_path):
    output_dir, result = run
    frozen = {"frozen_modules": ["model.encoder", "model.decoder.layers.0.feed_forward"]}
    tuned = pretrain(arguments(text, tmp_path, model_name_or_path=str(output_dir), max_steps=2, **frozen))
    for name, weight in tuned.model.state_dict().items():
        is_frozen = (
            name.startswith(tuple(f"{part}." for part in frozen["frozen_modules"]))
            or "embed_tokens" in name
            or "lm_head" in name
        )
        assert torch.equal(weight, result.model.state_dict()[name]) == is_frozen, name
    frozen_parts = sum(weight.numel() for name, weight in tuned.model.named_parameters() if not weight.requires_grad)
    assert (
        tuned.metrics["learned_parameters"] == tuned.metrics["parameters"] - frozen_parts < result.metrics["parameters"]
    )
    with pytest.raises(ValueError, match=r"frozen_modules: the model has no 'encoder'"):
        prepare(arguments(text, tmp_path / "two", model_name_or_path=str(output_dir), frozen_modules=["encoder"]))


def test_adapters_alone_learn_and_the_saved_model_has_them_merged(run, text, tmp_path):
    peft = pytest.importorskip("peft")
    output_dir, result = run
    lora = {"lora_rank": 2, "lora_modules": ["q_proj", "v_proj"], "learning_rate": 0.05}
    tuned = pretrain(arguments(text, tmp_path, model_name_or_path=str(output_dir), **lora))
    merged = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    before, after = result.model.state_dict(), merged.state_dict()
    assert before.keys() == after.keys()
    for name, weight in after.items():
        assert torch.equal(weight, before[name]) == ("q_proj" not in name and "v_proj" not in name), name
    base = VanillaTransformerForConditionalGeneration.from_pretrained(output_dir)
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload()
    for name, weight in adapted.state_dict().items():
        torch.testing.assert_close(weight, after[name], atol=1e-6, rtol=1e-5)
    assert tuned.metrics["final_loss"] < result.metrics["final_loss"] + 1
    adapters = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    learned = sum(weight.numel() for weight in adapters.values())
    assert tuned.metrics["learned_parameters"] == learned
    assert tuned.metrics["parameters"] == result.metrics["parameters"] + learned


def test_new_tokens_extend_tokenizer_and_model(run, text, tmp_path):
    output_dir, result = run
    options = {"model_name_or_path": str(output_dir), "new_tokens": ["<2de>", "dog"], "max_steps": 1}
    tuned = pretrain(arguments(text, tmp_path, **options))
    assert len(tuned.tokenizer) == len(result.tokenizer) + 1  # the dog was there
    assert tuned.tokenizer.tokenize("red<2de>")[-1] == "<2de>"
    assert tuned.model.config.vocab_size == len(tuned.tokenizer)
    assert AutoModelForSeq2SeqLM.from_pretrained(tmp_path).lm_head.weight.shape[0] == len(tuned.tokenizer)


def test_what_is_missing_is_said_before_anything_long_begins(text, tmp_path):
    args = arguments(text, tmp_path)
    args.train_data = []
    with pytest.raises(ValueError, match="nothing to learn from; give train_data"):
        prepare(args)
    args.train_data = [str(tmp_path / "none.jsonl")]
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        prepare(args)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="output_dir=.*is a file; name a folder"):
        prepare(arguments(text, tmp_path / "file"))


@pytest.mark.parametrize("mistake", [{"max_length": 1}, {"config_overrides": ["dropuot=0.1"]}])
def test_a_mistake_does_not_cost_the_run_that_is_to_be_overwritten(run, text, tmp_path, mistake):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(ValueError, match=r"nothing is left to learn|did you mean dropout"):
        prepare(arguments(text, folder, overwrite_output_dir=True, **mistake))
    assert sorted(path.name for path in folder.iterdir()) == before
    assert list_checkpoints(folder)
    prepare(arguments(text, folder, overwrite_output_dir=True))
    assert not list_checkpoints(folder)
    assert not (folder / "model.safetensors").exists()


@pytest.mark.slow
def test_the_best_by_an_error_rate_has_the_lowest(text, tmp_path):
    """Ten seconds: an evaluation and a checkpoint after each of eight updates."""
    steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 8}
    judged = {"validation_metrics": ["wer", "per"], "metric_for_best_model": "per", "final_weights": "best"}
    result = pretrain(arguments(text, tmp_path, **steps, **judged, warmup_steps=1, learning_rate=0.02))
    rates = {entry["step"]: entry["eval_per"] for entry in result.history if "eval_per" in entry}
    assert len(rates) == 8
    assert min(rates.values()) < max(rates.values())
    best = min(rates, key=lambda step: (rates[step], step))
    assert result.metrics["final_weights"] == f"best per, update {best}"
    assert result.metrics["final_per"] == pytest.approx(rates[best])
    assert "final_bleu" not in result.metrics
    assert "error:unit" in result.metrics["signatures"]["per"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_data": [], "final_weights": "best"}, "final_weights=best is decided by .* give validation_data"),
        ({"validation_data": [], "early_stopping_patience": 3}, "early_stopping_patience=3 is .* give validation_data"),
        (
            {"validation_data": [], "eval_strategy": "steps", "eval_steps": 3},
            "eval_steps and eval_strategy have no",
        ),
        (
            {"validation_data": [], "validation_metrics": ["chrf"]},
            "validation_metrics has no effect without val",
        ),
        ({"validation_data": [], "metric_for_best_model": "bleu"}, "metric_for_best_model has no effect without valid"),
        ({"eval_strategy": "no", "early_stopping_patience": 3}, "early_stopping_patience=3 is .* eval_strategy=no"),
        ({"metric_for_best_model": "mine_bleu"}, "metric_for_best_model='mine_bleu' is none of loss, perplexity, bleu"),
        (
            {"validation_metrics": ["wer"], "metric_for_best_model": "my_wer"},
            "'my_wer' is none of loss, perplexity, bleu, chrf, ter, wer",
        ),
    ],
)
def test_what_validation_would_decide_is_refused_before_anything_is_written(text, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        prepare(arguments(text, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # 40 seconds: it learns three tasks
def test_one_model_learns_tasks_of_different_units_and_directions_by_their_tags(tmp_path):
    """Letters to units in their order and backwards, and units to letters, out of one file."""
    words = ["".join(each) for length in (2, 3, 4) for each in itertools.product("abc", repeat=length)]
    (tmp_path / "there.tsv").write_text("".join(f"{word}\t{' '.join(word.upper())}\n" for word in words))
    (tmp_path / "back.tsv").write_text("".join(f"{word}\t{' '.join(word[::-1].upper())}\n" for word in words))
    there, back = f"path={tmp_path / 'there.tsv'}", f"path={tmp_path / 'back.tsv'}"
    shape = ["d_model=32", "num_heads=4", "d_ff=64", "num_encoder_layers=1", "num_decoder_layers=1", "dropout=0"]
    args = arguments(
        *(tmp_path, tmp_path / "run"), source_units="characters", target_units="words", config_overrides=shape,
        train_data=[f"{there},tag=there", f"{back},tag=back", f"{there},tag=spell,reversed=true"],
        validation_data=[f"{there},tag=there", f"{back},tag=back"], eval_strategy="no", save_strategy="no",
        learning_rate=0.01, warmup_steps=50, max_tokens=512, max_steps=500,
    )  # fmt: skip
    result = pretrain(args)
    assert result.metrics["final_chrf"] > 95
    model, tokenizer = result.model.eval(), AutoTokenizer.from_pretrained(tmp_path / "run")
    assert list(translate(model, tokenizer, ["abc", "cab"], tag="there")) == ["A B C", "C A B"]
    assert list(translate(model, tokenizer, ["abc", "<back>cab"], tag=None))[1] == "B A C"
    assert list(translate(model, tokenizer, ["abc", "cab"], tag="back")) == ["C B A", "B A C"]
    (spelled,) = text_to_ids(tokenizer, ["<spell> A B C"], as_target=True)
    made = model.generate(torch.tensor([spelled]))
    assert tokenizer.decode(made[0], skip_special_tokens=True) == "abc"
