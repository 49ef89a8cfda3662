"""What a resumed run remembers of the one before: how much of its patience was used up."""

import pytest
from training_runs import arguments, assert_same_end, write_text

from hf_vanilla_transformer.training import pretrain
from hf_vanilla_transformer.training.checkpoints import list_checkpoints

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


def test_a_resumed_run_evaluates_saves_and_logs_as_often_as_it_says_now(text, tmp_path):
    every = {"eval_strategy": "steps", "save_strategy": "steps", "generation_num_beams": 1, "save_total_limit": 9}
    pretrain(arguments(text, tmp_path, **every, eval_steps=2, save_steps=2, logging_steps=2, max_steps=4))
    changed = {**every, "eval_steps": 3, "save_steps": 3, "logging_steps": 5, "max_steps": 12}
    result = pretrain(arguments(text, tmp_path, **changed, resume_from_checkpoint="last"))
    assert [int(path.name[11:]) for path in list_checkpoints(tmp_path)] == [2, 4, 6, 9, 12]
    assert [entry["step"] for entry in result.history if "eval_loss" in entry] == [2, 4, 6, 9, 12]
    logged = {entry["step"] for entry in result.history if "nll" in entry}
    assert {5, 10} <= logged
    assert 8 not in logged
