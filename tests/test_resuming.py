"""Resuming: which checkpoint, of which run, and what must not have changed; folders are never mixed."""

import json
import os
import shutil

import pytest
from training_runs import arguments, assert_same_end, options, write_text

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.training import VanillaTransformerTrainer, folder_lock, prepare, pretrain
from hf_vanilla_transformer.training.averaging import average_weights
from hf_vanilla_transformer.training.checkpoints import list_checkpoints
from hf_vanilla_transformer.training.resuming import RUN_FILE, RunIdentity, claim_folder, find_checkpoint

SAVING = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "no", "save_total_limit": 9}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def stopped(text, tmp_path_factory):
    """A run that came to update 4 of 6, with checkpoints 2 and 4."""
    output_dir = tmp_path_factory.mktemp("stopped") / "run"
    pretrain(arguments(text, output_dir, **SAVING, max_steps=4))
    return output_dir


@pytest.fixture
def copy_of_stopped(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


def names(folder):
    return [path.name for path in list_checkpoints(folder)]


# Which checkpoint


@pytest.mark.parametrize("given", ["last", "true", "True", True, "auto"])
def test_the_newest_good_checkpoint_has_several_names(stopped, given):
    assert find_checkpoint(given, stopped) == stopped / "checkpoint-4"


@pytest.mark.parametrize("given", [None, False, "false"])
def test_without_a_wish_a_run_starts_afresh(stopped, given):
    assert find_checkpoint(given, stopped) is None


def test_last_of_nothing_stops_and_auto_starts_afresh(tmp_path):
    with pytest.raises(ValueError, match=r"resume_from_checkpoint=last: there is no checkpoint in .* give auto"):
        find_checkpoint("last", tmp_path)
    assert find_checkpoint("auto", tmp_path) is None


@pytest.mark.parametrize("given", ["last", "auto"])
def test_where_all_are_damaged_nothing_starts_afresh_over_them(copy_of_stopped, given):
    for checkpoint in list_checkpoints(copy_of_stopped):
        (checkpoint / "optimizer.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="all 2 checkpoints in .* are damaged"):
        find_checkpoint(given, copy_of_stopped)


@pytest.mark.parametrize("given", ["last", "auto"])
def test_a_checkpoint_that_was_being_replaced_when_the_run_was_killed_is_found(copy_of_stopped, given):
    """It may be the only one: without it, a run would start afresh."""
    for folder, step in ((".removing", 4), (".writing", 2)):
        (copy_of_stopped / folder).mkdir()
        (copy_of_stopped / f"checkpoint-{step}").rename(copy_of_stopped / folder / f"checkpoint-{step}")
    assert list_checkpoints(copy_of_stopped) == []
    assert find_checkpoint(given, copy_of_stopped) == copy_of_stopped / "checkpoint-4"
    assert names(copy_of_stopped) == ["checkpoint-2", "checkpoint-4"]


def test_nothing_is_put_back_or_looked_for_where_another_process_trains(copy_of_stopped, monkeypatch):
    monkeypatch.setattr(folder_lock, "_PATIENCE", 0.01)
    (copy_of_stopped / ".writing").mkdir()
    (copy_of_stopped / "checkpoint-4").rename(copy_of_stopped / ".writing" / "checkpoint-4")
    lock = folder_lock.lock_file(copy_of_stopped / folder_lock.TRAINING_LOCK, patience=0)
    try:
        with pytest.raises(ValueError, match="is in use: another process trains there"):
            find_checkpoint("last", copy_of_stopped)
    finally:
        os.close(lock)
    assert names(copy_of_stopped) == ["checkpoint-2"]


def test_a_folder_that_is_no_checkpoint_is_refused(stopped, tmp_path):
    with pytest.raises(ValueError, match=r"it is no checkpoint.*Give a checkpoint, such as .*checkpoint-100, or last"):
        find_checkpoint(str(tmp_path), stopped)
    with pytest.raises(ValueError, match="nowhere: there is no such folder"):
        find_checkpoint(str(tmp_path / "nowhere"), stopped)


def test_checkpoints_without_an_optimizer_are_no_place_to_resume_from(text, tmp_path):
    pretrain(arguments(text, tmp_path, **SAVING, max_steps=2, save_only_model=True))
    with pytest.raises(ValueError, match=r"no state of the optimizer \(save_only_model\)"):
        find_checkpoint("last", tmp_path)


# What must not change


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 0.5}, "learning_rate was"),
        ({"warmup_steps": 9}, "warmup_steps was 4"),
        ({"lr_scheduler_type": "constant"}, "lr_scheduler_type was 'inverse_sqrt', now 'constant'"),
        ({"optim": "adafactor"}, "optim was"),
        ({"adam_beta2": 0.9}, "adam_beta2 was 0.98, now 0.9"),
        ({"weight_decay": 0.1}, "weight_decay was 0.0, now 0.1"),
        ({"max_tokens": 99}, "max_tokens was 64, now 99"),
        ({"batching": "random"}, "batching was 'length', now 'random'"),
        ({"gradient_accumulation_steps": 2}, "processes x gradient_accumulation_steps was 1, now 2"),
        ({"vocab_size": 290}, "vocab_size was 300, now 290"),
        ({"seed": 7}, "seed was 42, now 7"),
        ({"max_length": 9}, "max_length was 256, now 9"),
        # Of several corpora, since of one it is refused in any case.
        (
            {"corpus_temperature": 5.0, "train_data": ["train.jsonl", "val.jsonl"]},
            "corpus_temperature was 1.0, now 5.0",
        ),
        ({"source_units": "characters", "target_units": "words"}, "source_units was 'bpe', now 'characters'"),
        ({"bpe_dropout": 0.1}, "bpe_dropout was 0.0, now 0.1"),
        ({"config_overrides": ["dropout=0.5"]}, "config_overrides was"),
        ({"model_class": "hf_vanilla_transformer.lab.ablations:AblatedTransformer"}, "model_class was None, now"),
        ({"frozen_modules": ["model.encoder.layers"]}, "frozen_modules was"),
        ({"final_weights": "ema"}, "final_weights=ema was False, now True"),
    ],
)
def test_what_a_resumed_run_would_ignore_or_misread_is_refused_with_both_values(text, stopped, changes, named):
    values = {**options(text, stopped), **SAVING, "max_steps": 6, "resume_from_checkpoint": "last"}
    output_dir = values.pop("output_dir")
    if "train_data" in changes:
        changes = {**changes, "train_data": [str(text / name) for name in changes["train_data"]]}
    before = sorted(stopped.rglob("*"))
    with pytest.raises(ValueError, match="cannot be resumed from with other settings") as raised:
        prepare(arguments(text, output_dir, **{**values, **changes}))
    assert named in str(raised.value)
    assert sorted(stopped.rglob("*")) == before  # nothing was touched


def test_other_text_is_refused(text, stopped, tmp_path):
    other = write_text(tmp_path, pairs=81)
    with pytest.raises(ValueError, match="training text was '"):
        prepare(arguments(other, stopped, **SAVING, max_steps=6, resume_from_checkpoint="last"))


def test_the_same_text_in_another_place_is_the_same(text, stopped, tmp_path):
    shutil.copytree(text, tmp_path / "moved")
    run = prepare(arguments(tmp_path / "moved", stopped, **SAVING, max_steps=6, resume_from_checkpoint="last"))
    assert run.checkpoint == stopped / "checkpoint-4"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dataloader_num_workers": 2}, "dataloader_num_workers was 1, now 2"),
        ({"dataloader_num_workers": 1}, None),
        ({"dataloader_num_workers": 0}, None),
    ],
)
def test_a_stream_goes_on_with_the_readers_that_it_had(text, tmp_path, changes, named):
    """Each reads its part of the text: with others, the text up to the checkpoint would be another."""
    streaming = {"streaming": True, "max_steps": 2, "validation_data": [], "eval_strategy": "no", "learning_rate": 0.1}
    before = RunIdentity.of(arguments(text, tmp_path, **streaming, dataloader_num_workers=0))
    before.write(tmp_path)
    now = RunIdentity.of(arguments(text, tmp_path, **streaming, **changes))
    if named is None:
        assert now.resumed_from(tmp_path).run_id == before.run_id
    else:
        with pytest.raises(ValueError, match=named):
            now.resumed_from(tmp_path)


def test_processes_may_be_traded_for_accumulation_but_not_in_a_stream(text, tmp_path, monkeypatch):
    for streaming in (False, True):
        options = {"streaming": streaming, "max_steps": 2, "eval_strategy": "no", "learning_rate": 0.1}
        RunIdentity.of(arguments(text, tmp_path, **options, gradient_accumulation_steps=2)).write(tmp_path)
        args = arguments(text, tmp_path, **options)
        with monkeypatch.context() as patch:
            patch.setattr(type(args), "world_size", 2)
            now = RunIdentity.of(args)
        if streaming:
            with pytest.raises(ValueError, match="processes was 1, now 2"):
                now.resumed_from(tmp_path)
        else:
            now.resumed_from(tmp_path)


def test_other_settings_may_change_and_count(text, copy_of_stopped):
    changes = {"max_grad_norm": 1.0, "r_drop": 0.5, "logging_steps": 2, "average_last": 2}
    result = pretrain(
        arguments(text, copy_of_stopped, **{**SAVING, **changes}, max_steps=6, resume_from_checkpoint="last")
    )
    assert result.metrics["updates"] == 6
    assert [entry["step"] for entry in result.history if "loss" in entry][-1] == 6


def test_how_often_a_resumed_run_logs_and_saves_may_change_and_counts(text, copy_of_stopped):
    changes = {"save_steps": 1, "logging_strategy": "steps", "logging_steps": 3, "logging_first_step": False}
    pretrain(arguments(text, copy_of_stopped, **{**SAVING, **changes}, max_steps=6, resume_from_checkpoint="last"))
    assert names(copy_of_stopped) == ["checkpoint-2", "checkpoint-4", "checkpoint-5", "checkpoint-6"]


def test_early_stopping_may_begin_when_a_run_is_resumed(text, copy_of_stopped):
    changes = {"eval_strategy": "steps", "eval_steps": 1, "early_stopping_patience": 9, "generation_num_beams": 1}
    values = {**SAVING, **changes, "max_steps": 6, "resume_from_checkpoint": "last"}
    assert pretrain(arguments(text, copy_of_stopped, **values)).metrics["updates"] == 6


DECIDED = [{"final_weights": "best"}, {"early_stopping_patience": 3}, {"save_strategy": "best"}]
EACH = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "learning_rate": 0.1}


@pytest.mark.parametrize("decided", DECIDED)
@pytest.mark.parametrize(
    ("changes", "validation", "named"),
    [
        ({"metric_for_best_model": "bleu"}, "a", "metric_for_best_model was 'loss', now 'bleu'"),
        ({}, "b", "validation text was 'a', now 'b'"),
        ({"metric_for_best_model": "eval_loss"}, "a", None),
    ],
)
def test_scores_of_two_kinds_decide_nothing_together(text, tmp_path, decided, changes, validation, named):
    RunIdentity.of(arguments(text, tmp_path, **EACH), validation="a").write(tmp_path)
    harmless = RunIdentity.of(arguments(text, tmp_path, **EACH, **changes), validation=validation)
    assert harmless.resumed_from(tmp_path).is_scored_as(tmp_path) is (named is None)
    now = RunIdentity.of(arguments(text, tmp_path, **{**EACH, **decided, **changes}), validation=validation)
    if named is None:
        assert now.resumed_from(tmp_path).decided_by_scores == tuple(f"{k}={v}" for k, v in decided.items())
        return
    with pytest.raises(ValueError, match="would compare scores of one with the other. Give the former ones") as raised:
        now.resumed_from(tmp_path)
    assert named in str(raised.value)
    assert next(iter(decided)) in str(raised.value)


@pytest.mark.parametrize("metric", ["bleu", "loss"])
@pytest.mark.parametrize(
    ("search", "named"),
    [
        ({"generation_num_beams": 1}, "generation_num_beams was 4, now 1"),
        ({"gnmt_length_penalty": 0.1}, "gnmt_length_penalty was 0.6, now 0.1"),
    ],
)
def test_scores_of_two_searches_decide_nothing_together(text, tmp_path, metric, search, named):
    judged = {**EACH, "final_weights": "best", "metric_for_best_model": metric}
    judged.update(generation_num_beams=4, gnmt_length_penalty=0.6)
    RunIdentity.of(arguments(text, tmp_path, **judged)).write(tmp_path)
    now = RunIdentity.of(arguments(text, tmp_path, **{**judged, **search}))
    if metric == "loss":
        assert now.resumed_from(tmp_path).is_scored_as(tmp_path)
        return
    with pytest.raises(ValueError, match="would compare scores of one with the other") as raised:
        now.resumed_from(tmp_path)
    assert named in str(raised.value)


def test_other_validation_text_is_recognised_and_where_it_may_come_the_former_best_is_forgotten(
    text, tmp_path, monkeypatch
):
    losses = iter([0.5, 0.6, 9.0])
    monkeypatch.setattr(VanillaTransformerTrainer, "scores", lambda self, *_, **__: {"loss": next(losses)})
    folder, other = tmp_path / "run", tmp_path / "other.jsonl"
    other.write_text("".join((text / "val.jsonl").read_text().splitlines(keepends=True)[:2]))
    pretrain(arguments(text, folder, **EACH, max_steps=2))
    values = {**EACH, "validation_data": [str(other)], "max_steps": 3, "resume_from_checkpoint": "last"}
    with pytest.raises(ValueError, match=r"validation text was '.*final_weights=best would compare"):
        prepare(arguments(text, folder, **values, final_weights="best"))
    pretrain(arguments(text, folder, **values))
    state = json.loads((list_checkpoints(folder)[-1] / "trainer_state.json").read_text())
    assert (state["best_global_step"], state["best_metric"]) == (3, 9.0)


def test_another_tokenizer_is_another_run(text, stopped):
    args = arguments(text, stopped, **SAVING)
    args.learning_rate = 0.125  # as `prepare` computes it of d_model=16 and 4 updates of warm-up
    own = train_tokenizer(texts=["red dog"], vocab_size=262, min_frequency=1)
    with pytest.raises(ValueError, match="tokenizer was '"):
        RunIdentity.of(args, None, own).resumed_from(stopped / "checkpoint-4")


# Whose folder


def test_a_fresh_run_in_a_used_folder_is_refused_before_anything_is_touched(text, stopped):
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"output_dir=.* is of an earlier run\. Resume with .*--overwrite_output_dir"):
        pretrain(arguments(text, stopped, **SAVING, max_steps=2))
    assert {path: path.stat().st_mtime_ns for path in stopped.rglob("*") if path.is_file()} == before


def test_a_folder_is_overwritten_when_that_is_asked_for(text, copy_of_stopped, package_log):
    pretrain(arguments(text, copy_of_stopped, **SAVING, max_steps=2, seed=3, overwrite_output_dir=True))
    assert names(copy_of_stopped) == ["checkpoint-2"]
    assert "removed checkpoint-2, checkpoint-4, results.json, model.safetensors" in package_log.text


def test_newer_checkpoints_than_the_one_resumed_from_are_not_mixed_with_new_ones(text, stopped, copy_of_stopped):
    older = str(copy_of_stopped / "checkpoint-2")
    values = {**SAVING, "max_steps": 6, "resume_from_checkpoint": older}
    with pytest.raises(ValueError, match="checkpoint-4 is of another run, or of updates after checkpoint-2"):
        prepare(arguments(text, copy_of_stopped, **values))
    pretrain(arguments(text, copy_of_stopped, **values, overwrite_output_dir=True))
    assert names(copy_of_stopped) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]


def test_a_finished_run_is_kept_from_a_fresh_one_too(text, tmp_path):
    pretrain(arguments(text, tmp_path, max_steps=1, save_strategy="no", eval_strategy="no"))
    with pytest.raises(ValueError, match=r"model\.safetensors is of an earlier run|results\.json is of an earlier run"):
        claim_folder(tmp_path, None)


def test_checkpoints_of_two_runs_have_no_average(text, stopped, copy_of_stopped):
    average_weights(list_checkpoints(stopped))
    other = copy_of_stopped / "checkpoint-2"
    identity = json.loads((other / RUN_FILE).read_text())
    (other / RUN_FILE).write_text(json.dumps({**identity, "run_id": "another"}))
    with pytest.raises(ValueError, match="not all of one run"):
        average_weights([other, copy_of_stopped / "checkpoint-4"])


def test_resumed_from_a_name_is_resumed_from_the_folder(text, copy_of_stopped, tmp_path):
    """Through the trainer itself as well, which takes True for the last."""
    again = shutil.copytree(copy_of_stopped, tmp_path / "again")
    for output_dir, given in ((copy_of_stopped, "auto"), (again, str(again / "checkpoint-4"))):
        pretrain(arguments(text, output_dir, **SAVING, max_steps=6, resume_from_checkpoint=given))
    assert_same_end(copy_of_stopped, again)
