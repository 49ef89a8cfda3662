"""The log as people read it."""

import re

import pytest
from transformers import TrainerControl, TrainerState

from hf_vanilla_transformer.training.progress import PlainLines, ProgressBar, log_line

TRAINING = {
    "loss": 3.21049,
    "nll": 2.5,
    "perplexity": 12182.49396,
    "learning_rate": 6.98771e-4,
    "grad_norm": 0.4567,
    "tokens_per_second": 7654.3,
    "padding": 0.04321,
    "epoch": 1.5,
    "minutes": 3.0,
}
SCORES = {"eval_loss": 1.5, "eval_perplexity": 4.48, "eval_bleu": 30.126, "eval_chrf": 55.0, "epoch": 2.0}


def test_a_line_of_training():
    assert log_line(TRAINING, 12345) == (
        "update  12,345  epoch   1.50  loss 3.210  nll 2.500  ppl 12,182.49  lr 6.99e-04  grad 0.46  tok/s 7,654  "
        "padding 4.3%"
    )


def test_a_line_of_validation_and_one_of_the_end():
    expected = "nll 1.500  ppl 4.48  BLEU 30.13  chrF 55.00"
    assert log_line(SCORES, 800) == f"update     800  epoch   2.00  validation  {expected}"
    final = {name.replace("eval", "final"): value for name, value in SCORES.items() if name != "epoch"}
    assert log_line(final, 800) == f"update     800  final       {expected}"


def test_error_rates_stand_where_they_are_computed():
    line = log_line({"eval_loss": 1.5, "eval_wer": 16.4, "eval_per": 3.987}, 800)
    assert line == "update     800  validation  nll 1.500  WER 16.40  PER 3.99"


def test_what_is_missing_is_left_out():
    assert log_line({"loss": 1.0}, 1) == "update       1  loss 1.000"
    assert log_line({"eval_loss": 1.0, "eval_bleu": None}, 1) == "update       1  validation  nll 1.000"


@pytest.mark.parametrize("logs", [{}, {"train_runtime": 3.0, "epoch": 1.0}, {"epoch": 1.0}])
def test_other_entries_have_no_line(logs):
    assert log_line(logs, 1) is None


def test_lines_of_a_run_are_aligned():
    lines = [
        log_line({**TRAINING, "epoch": epoch}, step) for step, epoch in ((1, 0.01), (99_999, 29.5), (999_999, 100.0))
    ]
    assert len({line.index("loss") for line in lines}) == 1


def write(callback, logs, main=True, step=7):
    state = TrainerState(global_step=step, is_world_process_zero=main)
    callback.on_log(None, state, TrainerControl(), logs=logs)


@pytest.mark.parametrize("callback", [PlainLines, ProgressBar])
def test_the_main_process_prints_lines_and_others_nothing(callback, capsys):
    callback = callback()
    write(callback, TRAINING)
    write(callback, {"train_runtime": 3.0})
    write(callback, None)
    write(callback, TRAINING, main=False)
    assert capsys.readouterr().out == log_line(TRAINING, 7) + "\n"


def test_lines_stand_above_the_bar(capsys):
    bar = ProgressBar()
    state = TrainerState(global_step=0, max_steps=10, is_world_process_zero=True)
    bar.on_train_begin(None, state, TrainerControl())
    write(bar, TRAINING)
    state.global_step = 4
    bar.on_step_end(None, state, TrainerControl())
    bar.on_train_end(None, state, TrainerControl())
    shown = capsys.readouterr()
    assert log_line(TRAINING, 7) in (shown.out + shown.err)
    assert re.search(r"4/10", shown.err)


def test_the_log_itself_is_not_changed():
    logs = dict(TRAINING)
    log_line(logs, 1)
    assert logs == TRAINING
