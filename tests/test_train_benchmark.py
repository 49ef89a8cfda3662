"""The benchmark of training: all programs train on the same sentences, and the table says what was measured."""

import statistics

import pytest
import torch
from training_runs import write_text

from hf_vanilla_transformer.lab.train_benchmark import GROUPED, OURS, OURS_BF16, RANDOM, compare_training


@pytest.mark.slow  # 8 seconds
def test_all_programs_train_and_the_ratios_are_of_medians(tmp_path, capsys):
    text = write_text(tmp_path, pairs=60)
    comparison = compare_training([str(text / "train.jsonl")], vocab_size=280, turns=2, sentences=40, max_tokens=200)
    assert list(comparison.speeds) == [OURS, OURS_BF16, GROUPED, RANDOM]
    assert all(len(speeds) == 2 and min(speeds) > 0 for speeds in comparison.speeds.values())
    expected = statistics.median(comparison.speeds[OURS]) / statistics.median(comparison.speeds[RANDOM])
    assert comparison.ratio(OURS, RANDOM) == expected
    lines = comparison.lines()
    assert "40 sentences" in lines[0]
    assert f"| {expected:.2f} |" in next(line for line in lines if line.startswith(f"| {OURS} |"))
    assert lines[-1].startswith(f"padding in our batches: {comparison.padding:.1%}; ")
    tokens = statistics.median(comparison.speeds[OURS])
    rate = comparison.flops_per_second[torch.float32]
    assert comparison.share(OURS) == pytest.approx(tokens * comparison.flops_per_token / rate)
    assert 0 < comparison.share(OURS) < 1
