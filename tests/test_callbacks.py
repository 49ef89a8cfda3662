"""What a resumed run remembers of the one before: how much of its patience was used up."""

import pytest
from training_runs import arguments, assert_same_end, write_text

from hf_vanilla_transformer.training import pretrain

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
