"""Nothing is lost: a run that is killed at any moment, and resumed, ends as if it had never been."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import child_processes
import pytest
import torch
from child_processes import exit_code
from safetensors.torch import load_file
from training_runs import arguments, assert_same_end, flags, options, without_clock, write_text

from hf_vanilla_transformer.training import VanillaTransformerTrainer, pretrain, summary_lines
from hf_vanilla_transformer.training.checkpoints import (
    find_damage,
    is_in_between,
    last_good_checkpoint,
    list_checkpoints,
)
from hf_vanilla_transformer.training.interruption import StopOnSignal

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
# Small saves often, so that many kills hit one.
KILLED = {"save_strategy": "steps", "save_steps": 3, "eval_strategy": "steps", "eval_steps": 6, "max_steps": 30}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


def run_in_child(values, kill_at=None):
    """What a child process does: train, and kill itself at the given call of os.rename, if any."""
    if kill_at is not None:
        which, after = kill_at
        rename, count = os.rename, [0]

        def deadly(*paths):
            is_publishing = ".writing" in str(paths[0])
            count[0] += is_publishing
            if is_publishing and count[0] == which and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*paths)
            if is_publishing and count[0] == which:
                os.kill(os.getpid(), signal.SIGKILL)

        os.rename = deadly
    from hf_vanilla_transformer.training import VanillaTransformerTrainingArguments

    pretrain(VanillaTransformerTrainingArguments(**values))


@pytest.fixture(scope="module")
def start():
    context = child_processes.prepared()

    def start(values, kill_at=None):
        process = context.Process(target=run_in_child, args=(values, kill_at))
        process.start()
        return process

    return start


def run_whole(start, values):
    """Trains in a child: what other tests leave in this process, threads for one, may change the last bit of a sum."""
    assert exit_code(start(values)) == 0


@pytest.fixture(scope="module")
def uninterrupted(start, text, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("uninterrupted")
    run_whole(start, options(text, output_dir, **KILLED))
    return output_dir


def kill_three_times(start, values, generator):
    """Kills at random moments, then lets the run end; returns how many of the kills hit a save.

    A moment is near the start or near the first save, where a machine of any speed has most updates still to do.
    """
    in_a_save = 0
    for _ in range(3):
        saved = list_checkpoints(values["output_dir"])[-1:]
        process = start(values)
        deadline = time.monotonic() + generator.choice([0, 300])
        while time.monotonic() < deadline and list_checkpoints(values["output_dir"])[-1:] == saved:
            process.join(0.01)
        process.join(generator.uniform(0, 0.1))
        assert process.exitcode in (None, 0), "it failed by itself"
        process.kill()
        process.join()
        in_a_save += (Path(values["output_dir"]) / ".writing").exists()
        for checkpoint in list_checkpoints(values["output_dir"]):
            assert find_damage(checkpoint) is None
    run_whole(start, values)
    return in_a_save


def test_a_run_killed_at_random_moments_ends_bit_identical(start, uninterrupted, text, tmp_path):
    values = options(text, tmp_path, **KILLED, resume_from_checkpoint="auto")
    kill_three_times(start, values, random.Random(time.time()))
    assert_same_end(uninterrupted, tmp_path)


@pytest.mark.parametrize(
    "after", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["before the rename", "after the rename"]
)
def test_a_run_killed_while_it_publishes_a_checkpoint_ends_bit_identical(start, uninterrupted, text, tmp_path, after):
    values = options(text, tmp_path, **KILLED, resume_from_checkpoint="auto")
    assert exit_code(start(values, kill_at=(4, after))) == -signal.SIGKILL
    assert last_good_checkpoint(tmp_path).name == ("checkpoint-12" if after else "checkpoint-9")
    run_whole(start, values)
    assert_same_end(uninterrupted, tmp_path)


@pytest.mark.slow
def test_a_run_killed_thirty_times_ends_bit_identical(start, uninterrupted, text, tmp_path):
    """Takes about four minutes."""
    in_a_save = 0
    generator = random.Random(time.time())
    for trial in range(10):
        output_dir = tmp_path / str(trial)
        values = options(text, output_dir, **KILLED, resume_from_checkpoint="auto")
        in_a_save += kill_three_times(start, values, generator)
        assert_same_end(uninterrupted, output_dir)
    print(f"survived 30 kills, {in_a_save} of them during a save")


def test_a_damaged_checkpoint_is_named_and_passed_over(start, uninterrupted, text, tmp_path, caplog):
    values = {**KILLED, "max_steps": 12}
    run_whole(start, options(text, tmp_path, **values))
    newest = list_checkpoints(tmp_path)[-1]
    with open(newest / "optimizer.pt", "r+b") as file:
        file.seek(100)
        file.write(b"damage")
    assert last_good_checkpoint(tmp_path).name == "checkpoint-9"
    assert f"{newest} is damaged and passed over: optimizer.pt has changed" in caplog.text
    run_whole(start, options(text, tmp_path, **KILLED, resume_from_checkpoint="auto"))
    assert_same_end(uninterrupted, tmp_path)
    with open(list_checkpoints(tmp_path)[-1] / "optimizer.pt", "ab") as file:
        file.write(b"!")
    with pytest.raises(ValueError, match=r"optimizer.pt has \d+ bytes instead of"):
        pretrain(arguments(text, tmp_path, resume_from_checkpoint=str(list_checkpoints(tmp_path)[-1])))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],  # 7 seconds
    ids=["SIGTERM", "SIGINT"],
)
def test_a_signal_saves_says_how_to_resume_and_exits(number, code, start, uninterrupted, text, tmp_path):
    values = options(text, tmp_path, **KILLED)
    command = [sys.executable, SCRIPTS / "pretrain.py", *flags(values)]
    with child_processes.start(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout:
            if line.startswith("update       4"):
                process.send_signal(number)
                break
        said = process.stdout.read()
        assert process.wait() == code
    saved = list_checkpoints(tmp_path)[-1]
    update = int(saved.name.split("-")[1])
    assert f"Stopped after update {update}; everything is saved in {tmp_path}" in said
    assert "--resume_from_checkpoint last" in said
    run_whole(start, options(text, tmp_path, **KILLED, resume_from_checkpoint="auto"))
    first, second = uninterrupted, tmp_path
    # The log has lines of its own where the run was stopped; everything else is the same.
    from safetensors.torch import load_file

    for name, weight in load_file(first / "model.safetensors").items():
        assert weight.equal(load_file(second / "model.safetensors")[name]), name


def stop_at(monkeypatch, *updates):
    """Has a signal come in these updates."""
    remember = StopOnSignal.on_pre_optimizer_step

    def stop(self, args, state, control, **kwargs):
        if state.global_step + 1 in updates:
            os.kill(os.getpid(), signal.SIGTERM)
        remember(self, args, state, control, **kwargs)

    monkeypatch.setattr(StopOnSignal, "on_pre_optimizer_step", stop)


def test_a_run_that_was_stopped_and_resumed_averages_the_checkpoints_of_one_that_was_not(text, tmp_path, monkeypatch):
    """Those at which it was stopped are not among its last ones."""
    saving = {"save_strategy": "steps", "save_steps": 4, "eval_strategy": "no", "max_steps": 12}
    saving |= {"final_weights": "average", "average_last": 2}
    whole = pretrain(arguments(text, tmp_path / "whole", **saving))
    stop_at(monkeypatch, 6, 7, 10)
    for stopped_at in (6, 7, 10, None):
        values = {**saving, "resume_from_checkpoint": "auto"}
        result = pretrain(arguments(text, tmp_path / "stopped", **values))
        assert (result.interrupted_by is None) == (stopped_at is None)
        assert result.metrics["updates"] == (stopped_at or 12)
    names = [[path.name for path in list_checkpoints(tmp_path / name)] for name in ("whole", "stopped")]
    assert names[0] == names[1] == ["checkpoint-8", "checkpoint-12"]
    minutes = [entry["minutes"] for entry in result.history]
    assert minutes == sorted(minutes), "the log goes on where it was"
    assert result.metrics["minutes"] == minutes[-1]
    for name, weight in whole.model.state_dict().items():
        assert weight.equal(result.model.state_dict()[name]), name


EVERY_TWO = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 4, "max_steps": 6}
MISSED = {
    "and a checkpoint in between": ({**EVERY_TWO}, 2),
    "and one that was due": ({**EVERY_TWO}, 4),
    "which is the best": ({**EVERY_TWO, "final_weights": "best"}, 2),
    "after which the run ends": ({**EVERY_TWO, "max_steps": 4}, 4),
    "of an epoch": ({"num_train_epochs": 2, "eval_strategy": "epoch", "save_strategy": "epoch"}, None),
    "after a checkpoint": ({"max_steps": 6, "eval_strategy": "epoch", "save_strategy": "steps", "save_steps": 1}, None),
}


@pytest.mark.slow
@pytest.mark.parametrize(("values", "stopped_at"), MISSED.values(), ids=MISSED)
def test_an_evaluation_that_a_signal_prevented_is_made_when_the_run_is_resumed(
    values, stopped_at, text, tmp_path, monkeypatch
):
    """The log is that of a run that was not stopped, and so is the end. Takes about a second each."""
    values = {"final_weights": "last", "generation_num_beams": 1, "max_tokens": 256, **values}
    pretrain(arguments(text, tmp_path / "whole", **values))
    log = history(tmp_path / "whole")
    stopped_at = stopped_at or next(entry["step"] for entry in log if "eval_loss" in entry)
    stop_at(monkeypatch, stopped_at)
    assert pretrain(arguments(text, tmp_path / "stopped", **values)).interrupted_by == signal.SIGTERM
    checkpoint = list_checkpoints(tmp_path / "stopped")[-1]
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    assert not any("eval_loss" in entry for entry in state["log_history"] if entry["step"] == stopped_at)
    result = pretrain(arguments(text, tmp_path / "stopped", **values, resume_from_checkpoint="last"))
    assert result.interrupted_by is None
    assert without_clock(result.history) == without_clock(log)
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")
    names = [[path.name for path in list_checkpoints(tmp_path / name)] for name in ("whole", "stopped")]
    assert names[0] == names[1]


@pytest.mark.parametrize("killed_at", [1, pytest.param(2, marks=pytest.mark.slow)], ids=["of an epoch", "of the run"])
def test_an_evaluation_that_a_kill_prevented_is_made_when_the_run_is_resumed(killed_at, text, tmp_path, monkeypatch):
    """At the end of an epoch, it comes after the checkpoint of the same update. Each takes about half a second."""
    evaluated = []

    def scores(self, *_, **__):
        evaluated.append(self.state.global_step)
        if len(evaluated) == killed_at and "killed" in self.args.output_dir:
            raise InterruptedError("killed")
        return {"loss": 1 / self.state.global_step}

    monkeypatch.setattr(VanillaTransformerTrainer, "scores", scores)
    values = {"eval_strategy": "epoch", "save_strategy": "steps", "save_steps": 1, "max_steps": 6, "max_tokens": 256}
    pretrain(arguments(text, tmp_path / "whole", **values))
    step = evaluated[killed_at - 1]
    assert evaluated == [evaluated[0], 6]
    evaluated.clear()
    with pytest.raises(InterruptedError):
        pretrain(arguments(text, tmp_path / "killed", **values))
    assert last_good_checkpoint(tmp_path / "killed").name == f"checkpoint-{step}"
    result = pretrain(arguments(text, tmp_path / "killed", **values, resume_from_checkpoint="last"))
    assert without_clock(result.history) == without_clock(history(tmp_path / "whole"))
    assert_same_end(tmp_path / "whole", tmp_path / "killed")


def history(output_dir):
    return json.loads((output_dir / "results.json").read_text())["history"]


@pytest.mark.parametrize("strategy", ["epoch", pytest.param("steps", marks=pytest.mark.slow)])
def test_patience_is_used_up_by_an_evaluation_that_a_signal_prevented(strategy, text, tmp_path, monkeypatch):
    """No update is made after it, and a checkpoint is as it is at the end of any epoch. Takes about half a second."""
    losses = {2: 1.0, 4: 2.0}
    monkeypatch.setattr(
        VanillaTransformerTrainer, "scores", lambda self, *_, **__: {"loss": losses[self.state.global_step]}
    )
    values = {"eval_strategy": "steps", "eval_steps": 2, "early_stopping_patience": 1, "max_steps": 20}
    values |= {"save_strategy": strategy, **({"save_steps": 2} if strategy == "steps" else {})}
    stop_at(monkeypatch, 4)
    assert pretrain(arguments(text, tmp_path, **values)).interrupted_by == signal.SIGTERM
    assert is_in_between(list_checkpoints(tmp_path)[-1]) is (strategy == "epoch")
    result = pretrain(arguments(text, tmp_path, **values, resume_from_checkpoint="last"))
    assert not is_in_between(list_checkpoints(tmp_path)[-1])
    assert (result.metrics["updates"], result.interrupted_by) == (4, None)
    assert [entry["eval_loss"] for entry in result.history if "eval_loss" in entry] == [1.0, 2.0]


def test_resuming_a_finished_run_changes_nothing(start, uninterrupted, text, tmp_path):
    run_whole(start, options(text, tmp_path, **KILLED))
    again = pretrain(arguments(text, tmp_path, **KILLED, resume_from_checkpoint="last"))
    assert again.metrics["updates"] == 30
    assert_same_end(uninterrupted, tmp_path)
    assert "tok:13a" in again.metrics["signatures"]["bleu"]
    assert summary_lines(again.metrics, "x")


@pytest.mark.slow  # 15 seconds: three runs
@pytest.mark.parametrize(("streaming", "batching"), [(False, "length"), (True, "length"), (False, "random")])
def test_corpora_with_tags_and_a_temperature_go_on_where_they_stopped(start, text, tmp_path, streaming, batching):
    train = f"path={text / 'train.jsonl'}"
    data = [f"{train},tag=2de", f"{train},tag=2en,reversed=true,weight=0.1", f"path={text / 'val.jsonl'},tag=2de"]
    values = {"train_data": data, "corpus_temperature": 3.0, "streaming": streaming, "save_strategy": "steps"}
    values |= {"save_steps": 3, "eval_strategy": "no", "validation_data": [], "max_tokens": 256, "average_last": 1}
    values["batching"] = batching
    run_whole(start, options(text, tmp_path / "whole", **values, max_steps=12))
    run_whole(start, options(text, tmp_path / "parts", **values, max_steps=6))
    run_whole(start, options(text, tmp_path / "parts", **values, max_steps=12, resume_from_checkpoint="last"))
    if not streaming:  # of which an epoch is as long as the run, and so another in the log of a shorter one
        assert_same_end(tmp_path / "whole", tmp_path / "parts")
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
