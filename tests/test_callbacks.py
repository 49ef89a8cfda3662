"""What a resumed run remembers of the one before: how much of its patience, and of its time, was used up."""

import json
from types import SimpleNamespace

import pytest
import torch
from training_runs import arguments, assert_same_end, write_text
from transformers import TrainerControl

from hf_vanilla_transformer.training import callbacks, pretrain

# A rate so high that the loss rises soon: evaluation after evaluation uses up patience.
RISING = {
    "early_stopping_patience": 4,
    "learning_rate": 0.3,
    "warmup_steps": 30,
    "lr_scheduler_type": "constant_with_warmup",
    "eval_strategy": "steps",
    "eval_steps": 4,
    "save_strategy": "steps",
    "save_steps": 4,
    "generation_num_beams": 1,
    "save_total_limit": 3,
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


def test_early_stopping_stops_a_resumed_run_where_it_stops_a_whole_one(text, tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    end = pretrain(arguments(text, whole, **RISING, max_steps=200)).metrics["updates"]
    assert end < 200
    used_up_half = end - 8  # two of four evaluations that were no better
    pretrain(arguments(text, resumed, **RISING, max_steps=used_up_half))
    result = pretrain(arguments(text, resumed, **RISING, max_steps=200, resume_from_checkpoint="last"))
    assert result.metrics["updates"] == end
    assert_same_end(whole, resumed)


ARGS = {"save_strategy": "no", "device": "cpu", "world_size": 1, "dataloader_num_workers": 0}
ARGS |= {"load_best_model_at_end": False, "eval_strategy": "steps", "eval_delay": 0}


class Clocks:
    """Time that passes only as it is told to, so much in each update, evaluation and checkpoint; and CPU time.

    Other programs take half of the CPU.
    """

    def __init__(self, monkeypatch, threads=2):
        self.now = 0.0
        monkeypatch.setattr(callbacks.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(callbacks.time, "process_time", lambda: self.now / 2)
        monkeypatch.setattr(callbacks.torch, "get_num_threads", lambda: threads)

    def runs(self, limit, events, state=None, waiting=0.0, **args):
        """Calls a limit as the Trainer would; returns after how many updates it ends the run.

        So many seconds pass between the beginning of the epoch and its first update.
        """
        args = SimpleNamespace(**{**ARGS, **args})
        state = state or SimpleNamespace(stateful_callbacks={}, global_step=0)
        control = TrainerControl()
        limit.on_train_begin(args, state, control)
        limit.on_epoch_begin(args, state, control)
        self.now += waiting
        updates = 0
        for event in events:
            if event == "update":
                limit.on_step_begin(args, state, control)
            self.now += {"update": 10.0, "evaluate": 1000.0, "save": 500.0}[event]
            if event == "update":
                limit.on_pre_optimizer_step(args, state, control)
                updates += 1
                now = SimpleNamespace(**{**vars(state), "global_step": state.global_step + updates})
                limit.on_step_end(args, now, control)
            else:
                getattr(limit, f"on_{event}")(args, state, control)
            if control.should_training_stop:
                return updates, control
        return updates, control


def test_a_time_limit_counts_training_alone(monkeypatch):
    clocks = Clocks(monkeypatch)
    events = ["update", "update", "evaluate", "save", "update", "evaluate", "update", "update"]
    updates, control = clocks.runs(callbacks.StopAfterMinutes(0.6), events, save_strategy="steps")
    assert updates == 4  # 40 seconds
    assert control.should_save
    updates, control = clocks.runs(callbacks.StopAfterMinutes(0.6), events)
    assert (updates, control.should_save) == (4, False)


@pytest.mark.parametrize(
    ("threads", "args", "clock"),
    [
        (1, {}, "cpu"),
        (1, {"device": torch.device("cpu")}, "cpu"),
        (2, {}, "wall"),
        (1, {"device": "cuda:0"}, "wall"),
        (1, {"dataloader_num_workers": 2}, "wall"),
    ],
)
def test_what_other_programs_take_does_not_count_where_one_thread_trains_on_a_cpu(monkeypatch, threads, args, clock):
    limit = callbacks.StopAfterMinutes(0.6)
    updates, _ = Clocks(monkeypatch, threads).runs(limit, ["update", "evaluate", "save"] * 20, **args)
    assert updates == {"cpu": 8, "wall": 4}[clock]  # 40 seconds of one or the other, and so many evaluations
    assert limit.clocks == [clock]


def test_a_time_limit_goes_on_where_a_checkpoint_was_written(monkeypatch):
    clocks = Clocks(monkeypatch)
    first = callbacks.StopAfterMinutes(1.0)
    assert clocks.runs(first, ["update"] * 2)[0] == 2
    saved = SimpleNamespace(stateful_callbacks={"StopAfterMinutes": first.state()}, global_step=2)
    clocks.now += 10_000  # nobody trains
    again = callbacks.StopAfterMinutes(1.0)
    assert clocks.runs(again, ["update"] * 9, saved)[0] == 4
    assert again.is_over
    assert (again.seconds, again.clocks) == (60, ["wall"])
    fresh = SimpleNamespace(stateful_callbacks=saved.stateful_callbacks, global_step=0)
    assert clocks.runs(callbacks.StopAfterMinutes(1.0), ["update"] * 9, fresh)[0] == 6
    with_one_thread = callbacks.StopAfterMinutes(1.0)
    assert Clocks(monkeypatch, threads=1).runs(with_one_thread, ["update"] * 20, saved)[0] == 8
    assert (with_one_thread.seconds, with_one_thread.clocks) == (60, ["wall", "cpu"])


def test_what_a_resumed_run_reads_up_to_its_checkpoint_counts_no_second_time(monkeypatch):
    """A fresh run makes its batches, which counts; a resumed one makes those of before again."""
    clocks = Clocks(monkeypatch)
    resumed = SimpleNamespace(stateful_callbacks={}, global_step=2)
    for state, seconds in ((None, 150.0), (resumed, 30.0)):
        limit = callbacks.StopAfterMinutes(9.0)
        clocks.runs(limit, ["update"] * 3, state, waiting=120.0)
        assert limit.seconds == seconds


@pytest.mark.parametrize(
    ("args", "is_evaluated"),
    [
        ({}, False),
        ({"load_best_model_at_end": True}, True),
        ({"load_best_model_at_end": True, "eval_delay": 2}, False),  # as at the end of any run
        ({"load_best_model_at_end": True, "eval_strategy": "epoch"}, False),  # it is at the end of the epoch
    ],
)
def test_where_the_best_is_wanted_there_is_an_evaluation_when_the_time_is_up(monkeypatch, args, is_evaluated):
    limit = callbacks.StopAfterMinutes(0.1)
    updates, control = Clocks(monkeypatch).runs(limit, ["update"] * 9, **args)
    assert (updates, control.should_evaluate) == (1, is_evaluated)


def test_several_processes_go_by_the_slowest_clock(monkeypatch):
    def all_reduce(value, op):
        assert op == torch.distributed.ReduceOp.MAX
        value.copy_(value.clamp(min=61_500))

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    limit = callbacks.StopAfterMinutes(1.0)
    updates, _ = Clocks(monkeypatch, threads=1).runs(limit, ["update"] * 9, world_size=2)
    assert (updates, limit.seconds, limit.clocks) == (1, 61.5, ["wall"])


def test_no_process_takes_its_own_clock_for_the_time_that_all_agreed_on(monkeypatch):
    """Whether there is another epoch is asked between two agreements: one that says no would leave the others alone."""
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda value, op: None)
    clock, limit = Clocks(monkeypatch), callbacks.StopAfterMinutes(0.25)
    args = SimpleNamespace(**{**ARGS, "world_size": 2})
    assert clock.runs(limit, ["update"], world_size=2)[0] == 1
    clock.now += 10.0  # in the update, after the processes agreed
    limit.on_step_end(args, None, TrainerControl())
    assert limit.seconds == 20.0
    assert not limit.is_over
    limit.on_pre_optimizer_step(args, None, TrainerControl())
    assert limit.is_over


def test_a_run_ends_when_its_time_is_up_and_is_not_trained_further_when_it_is_resumed(text, tmp_path):
    limited = {"max_minutes": 1e-9, "max_steps": 50, "eval_strategy": "no", "save_strategy": "steps", "save_steps": 40}
    limited |= {"validation_data": []}
    folder = tmp_path / "run"
    result = pretrain(arguments(text, folder, **limited))
    assert result.metrics["updates"] == 1
    saved = json.loads((folder / "checkpoint-1" / "trainer_state.json").read_text())
    counted = saved["stateful_callbacks"]["StopAfterMinutes"]["attributes"]
    assert counted["seconds"] > 0
    assert result.metrics["training_minutes"] == result.history[-1]["training_minutes"] == counted["seconds"] / 60
    assert result.metrics["clock"] == ("cpu" if torch.get_num_threads() == 1 else "wall")
    again = pretrain(arguments(text, folder, **limited, resume_from_checkpoint="last"))
    assert again.metrics["updates"] == 1
    assert again.metrics["training_minutes"] == result.metrics["training_minutes"]
    for value, message in (
        (-1.0, "max_minutes=-1.0 is less than 0"),
        (float("inf"), "max_minutes=inf is not a finite"),
    ):
        with pytest.raises(ValueError, match=message):
            arguments(text, folder, max_minutes=value)
