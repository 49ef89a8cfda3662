"""What training was like: minutes to a loss by interpolation, and which of two runs of a model is the better."""

import itertools
from types import SimpleNamespace

import pytest
from trained_runs import trained

from hf_vanilla_transformer.lab.recurrent_runs import TrainedRun, better_runs, marked_name, minutes_rows, training_rows

FAST = [(1.0, 3.0), (2.0, 2.0), (3.0, 1.5), (4.0, 1.7)]
SLOW = [(2.0, 3.5), (4.0, 2.5), (6.0, 2.2)]


def test_minutes_lie_on_a_straight_line_between_two_evaluations():
    run = trained("fast", FAST)
    assert run.lowest_loss == 1.5
    for part in (0.0, 0.25, 0.5, 1.0):
        for (since, above), (until, below) in itertools.pairwise(FAST[:3]):
            assert run.minutes_to(above + part * (below - above)) == pytest.approx(since + part * (until - since))
    assert run.minutes_to(3.4) == 1.0  # the first evaluation
    assert run.minutes_to(1.4) is None


def test_a_loss_that_rises_in_between_is_reached_once_it_falls_below():
    run = trained("x", [(1.0, 3.0), (2.0, 4.0), (3.0, 2.0)])
    assert run.minutes_to(2.5) == pytest.approx(2.75)
    assert run.minutes_to(3.0) == 1.0


def test_there_is_a_column_for_the_lowest_loss_of_each_model_the_highest_first():
    runs = [trained("fast", FAST), trained("slow", SLOW), trained("late", [(2.0, 5.0), (9.0, 4.0)])]
    titles, *rows = minutes_rows(runs)
    assert titles == ["Minutes to a loss of", "4.000", "2.200", "1.500"]
    assert rows == [["fast", "< 1.0", "1.8", "3.0"], ["slow", "< 2.0", "6.0", "-"], ["late", "9.0", "-", "-"]]
    assert minutes_rows(runs, [3.0, 1.75])[0][1:] == ["3.000", "1.750"]
    assert [row[1:] for row in minutes_rows(runs, [3.0, 1.75])[1:]] == [["1.0", "2.5"], ["3.0", "-"], ["-", "-"]]


def test_of_the_runs_of_one_model_the_one_with_the_lower_final_loss_is_marked():
    low, high = trained("low", SLOW, 2.0, "m"), trained("high", FAST, 2.1, "m", learning_rate=0.003)
    other = trained("other", [(1.0, 2.4)], 3.0, learning_rate=None, tokens_per_second=None, clock="wall")
    runs = [high, other, low]
    assert better_runs(runs) == [low, other]
    assert [marked_name(run, runs) for run in runs] == ["high", "other", "low *"]
    titles, first, second, third = training_rows(runs)
    assert first == ["high", "0.003", "1,234", "5,000", "10.0 (cpu)", "1,234", "1.500", "2.100"]
    assert second == ["other", "§5.3", "1,234", "5,000", "10.0 (wall)", "-", "2.400", "3.000"]
    assert third[0] == "low *"
    assert len(titles) == len(first)
    assert minutes_rows(runs)[0][1:] == ["2.400", "2.200"], "of the better runs"


def test_a_run_is_read_from_what_it_has_left():
    args = SimpleNamespace(model_class="a:B", preset="recurrent", config_overrides=["d_model=8"], learning_rate=0.01)
    metrics = {
        "parameters": 7,
        "updates": 9,
        "minutes": 5.0,
        "training_minutes": 3.0,
        "clock": "cpu",
        "final_loss": 1.5,
    }
    history = [
        {"loss": 3.0, "minutes": 1.0, "training_minutes": 0.9},
        {"eval_loss": 2.0, "minutes": 2.0, "training_minutes": 1.0},
        {"eval_loss": 1.8, "minutes": 4.0, "training_minutes": 2.5},
        {"final_loss": 1.5, "minutes": 5.0, "training_minutes": 3.0},
    ]
    queued = SimpleNamespace(name="x", arguments=args)
    run = TrainedRun.of(queued, {"metrics": metrics, "history": history})
    assert run.losses == [(1.0, 2.0), (2.5, 1.8)]
    assert (run.lowest_loss, run.final_loss, run.minutes, run.updates_per_minute) == (1.8, 1.5, 3.0, 3.0)
    assert run.tokens_per_second is None
    with pytest.raises(ValueError, match="x has no validation loss on its way; give its list validation_data"):
        TrainedRun.of(queued, {"metrics": metrics, "history": history[:1] + history[3:]})
    del metrics["training_minutes"]
    with pytest.raises(ValueError, match="x has no equal minutes of training .* give its list max_minutes"):
        TrainedRun.of(queued, {"metrics": metrics, "history": history})
