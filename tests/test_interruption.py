"""SIGTERM and SIGINT: an orderly end at the next update, on all processes at the same."""

import os
import signal
import threading
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl, TrainerState
from transformers.trainer_utils import SaveStrategy

from hf_vanilla_transformer.training.checkpoints import EVALUATION_DUE, IN_BETWEEN
from hf_vanilla_transformer.training.interruption import StopOnSignal

ARGS = SimpleNamespace(
    world_size=1, device=torch.device("cpu"), save_strategy=SaveStrategy.STEPS, eval_strategy="steps", eval_delay=0
)


@pytest.fixture
def listening():
    """A callback that listens, and what it controls."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    callback, control = StopOnSignal(), TrainerControl()
    callback.on_train_begin(ARGS, TrainerState(), control)
    yield callback, control
    callback.stop_listening()
    assert {number: signal.getsignal(number) for number in before} == before


def wishes(control):
    return control.should_save, control.should_evaluate, control.should_training_stop


def test_without_a_signal_nothing_changes(listening):
    callback, control = listening
    control.should_save = control.should_evaluate = True
    callback.on_step_end(ARGS, TrainerState(), control)
    callback.on_epoch_end(ARGS, TrainerState(), control)
    assert callback.signal_number is None
    assert wishes(control) == (True, True, False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_update_with_a_checkpoint(listening, number):
    callback, control = listening
    os.kill(os.getpid(), number)
    assert wishes(control) == (False, False, False)  # not in the middle of an update
    assert callback.signal_number == number
    control.should_evaluate = True
    callback.on_step_end(ARGS, TrainerState(), control)
    assert wishes(control) == (True, False, True)


def test_a_stopped_epoch_did_not_end(listening):
    callback, control = listening
    os.kill(os.getpid(), signal.SIGTERM)
    callback.on_step_end(ARGS, TrainerState(), control)
    control.should_save = control.should_evaluate = True  # as is due at the end of an epoch
    callback.on_epoch_end(ARGS, TrainerState(), control)
    assert wishes(control) == (False, False, True)


def test_what_is_due_at_the_end_of_an_epoch_is_done_where_a_signal_came_after_its_last_update(listening):
    """The update was over: whether the checkpoint at the end of the epoch is saved must not hang on the moment."""
    callback, control = listening
    callback.on_step_end(ARGS, TrainerState(), control)
    os.kill(os.getpid(), signal.SIGTERM)
    control.should_save = control.should_evaluate = True
    callback.on_epoch_end(ARGS, TrainerState(), control)
    assert wishes(control) == (True, True, False)
    assert callback.stopped_by is None  # if there is no other update, the run has come to its end
    callback.on_step_end(ARGS, TrainerState(), control)
    assert wishes(control) == (True, False, True)
    assert callback.stopped_by == signal.SIGTERM


@pytest.mark.parametrize(
    ("is_due", "strategy", "epoch", "step", "in_between"),
    [
        (False, SaveStrategy.STEPS, 0.5, 3, True),
        (True, SaveStrategy.STEPS, 0.5, 3, False),
        (False, SaveStrategy.EPOCH, 0.5, 3, True),
        (False, SaveStrategy.EPOCH, 2.0, 3, False),
        (False, SaveStrategy.EPOCH, 0.5, 9, False),
    ],
)
def test_a_checkpoint_in_between_is_told_from_one_that_was_due(listening, is_due, strategy, epoch, step, in_between):
    callback, control = listening
    os.kill(os.getpid(), signal.SIGTERM)
    control.should_save = is_due
    args = SimpleNamespace(**{**vars(ARGS), "save_strategy": strategy})
    callback.on_step_end(args, TrainerState(epoch=epoch, global_step=step, max_steps=9), control)
    assert callback.saves_in_between is in_between
    assert callback.marks == ([IN_BETWEEN] if in_between else [])


@pytest.mark.parametrize(
    ("is_due", "strategy", "delay", "epoch", "step", "ends", "skips"),
    [
        (False, "steps", 0, 2.0, 9, True, False),
        (True, "steps", 0, 0.5, 3, False, True),
        (False, "epoch", 0, 0.5, 3, False, False),
        (False, "epoch", 0, 2.0, 3, False, True),
        (False, "epoch", 3, 2.0, 3, False, False),
        (False, "epoch", 0, 0.5, 9, False, True),
        (False, "epoch", 0, 0.5, 3, True, True),  # by a time limit
        (False, "no", 0, 2.0, 9, True, False),
    ],
)
def test_an_evaluation_that_is_left_out_is_noted(listening, is_due, strategy, delay, epoch, step, ends, skips):
    callback, control = listening
    os.kill(os.getpid(), signal.SIGTERM)
    control.should_evaluate, control.should_save, control.should_training_stop = is_due, True, ends
    args = SimpleNamespace(**{**vars(ARGS), "eval_strategy": strategy, "eval_delay": delay})
    callback.on_step_end(args, TrainerState(epoch=epoch, global_step=step, max_steps=9), control)
    assert callback.evaluation_is_due is skips
    assert callback.marks == ([EVALUATION_DUE] if skips else [])
    assert wishes(control) == (True, False, True)
    callback.on_train_end(args, TrainerState(), control)
    callback.on_train_begin(args, TrainerState(), control)
    assert callback.marks == []


def test_without_a_signal_the_evaluation_at_the_end_of_an_epoch_is_due_until_then(listening):
    callback, control = listening
    args = SimpleNamespace(**{**vars(ARGS), "eval_strategy": "epoch"})
    for epoch, step, is_due in ((0.5, 1, False), (1.0, 2, True), (1.5, 3, True)):
        callback.on_step_end(args, TrainerState(epoch=epoch, global_step=step, max_steps=3), control)
        assert callback.marks == ([EVALUATION_DUE] if is_due else [])
        if is_due:
            callback.on_epoch_end(args, TrainerState(), control)
            assert callback.marks == []
    assert wishes(control) == (False, False, False)


def test_a_signal_ends_one_run_and_not_the_next_but_all_trials_of_a_search(listening):
    callback, control = listening
    for is_search in (True, False):
        os.kill(os.getpid(), signal.SIGTERM)
        callback.on_step_end(ARGS, TrainerState(), control)
        callback.on_train_end(ARGS, TrainerState(), control)
        control = TrainerControl()
        callback.on_train_begin(ARGS, TrainerState(is_hyper_param_search=is_search), control)
        assert callback.stopped_by is None
        callback.on_step_end(ARGS, TrainerState(), control)
        assert control.should_training_stop is is_search


def test_a_second_sigint_interrupts_at_once(listening):
    callback, _ = listening
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert callback.signal_number == signal.SIGINT


def test_a_second_sigterm_is_no_more_than_the_first(listening):
    callback, _ = listening
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    assert callback.signal_number == signal.SIGTERM


def test_signals_get_back_the_meaning_they_had():
    caught = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
    try:
        callback = StopOnSignal()
        callback.on_train_begin(ARGS, TrainerState(), TrainerControl())
        os.kill(os.getpid(), signal.SIGTERM)
        assert not caught
        callback.on_train_end(ARGS, TrainerState(), TrainerControl())
        os.kill(os.getpid(), signal.SIGTERM)
        assert caught == [signal.SIGTERM]
        callback.stop_listening()  # once more does no harm
        os.kill(os.getpid(), signal.SIGTERM)
        assert caught == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_may_train_but_not_listen():
    before = signal.getsignal(signal.SIGTERM)
    problems = []

    def run():
        try:
            callback = StopOnSignal()
            callback.on_train_begin(ARGS, TrainerState(), TrainerControl())
            callback.on_step_end(ARGS, TrainerState(), TrainerControl())
            callback.on_train_end(ARGS, TrainerState(), TrainerControl())
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not problems
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("mine", "others"), [(None, 15), (15, 0), (2, 15), (None, 0)])
def test_processes_agree_on_the_update_after_which_they_stop(monkeypatch, mine, others):
    def all_reduce(tensor, op):
        assert op == torch.distributed.ReduceOp.MAX
        tensor.clamp_(min=others)

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    callback, control = StopOnSignal(), TrainerControl()
    args = SimpleNamespace(**{**vars(ARGS), "world_size": 2})
    callback.on_train_begin(args, TrainerState(), control)
    try:
        if mine is not None:
            os.kill(os.getpid(), mine)
        callback.on_pre_optimizer_step(args, TrainerState(), control)
        if others == 0:
            os.kill(os.getpid(), signal.SIGTERM)  # heard by this one alone: it counts at the next update
        callback.on_step_end(args, TrainerState(), control)
    finally:
        callback.stop_listening()
    expected = max(mine or 0, others) or None
    assert callback.signal_number == expected
    assert wishes(control) == (expected is not None, False, expected is not None)
