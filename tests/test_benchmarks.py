"""That the benchmark compares what it says: equal shapes and equal work. The numbers are not tested."""

import ctypes
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.commands.benchmark import main
from hf_vanilla_transformer.lab import benchmarks


def test_the_marian_model_has_our_shape():
    """It has biases in its attention and none of our other parameters are missing."""
    config = VanillaTransformerConfig.from_preset("tiny", vocab_size=50)
    marian = benchmarks.marian_like(config)
    count = sum(parameter.numel() for name, parameter in marian.named_parameters() if "embed_positions" not in name)
    attention_biases = (4 + 2 * 4) * 4 * config.d_model  # encoder and decoder layers, attentions, projections
    with torch.device("meta"):
        ours = VanillaTransformerForConditionalGeneration(config).num_parameters()
    assert count == ours + attention_biases
    assert marian.config.dropout == config.dropout


def test_steps_compute_gradients_and_take_turns(monkeypatch):
    monkeypatch.setitem(benchmarks.WORKLOADS, "tiny", benchmarks.Workload("tiny", vocab_size=50, sentences=2, length=3))
    comparison = benchmarks.compare_train_step("tiny", repeats=2, memory=False)
    assert list(comparison.seconds) == [benchmarks.OURS, benchmarks.MARIAN]
    assert [len(times) for times in comparison.seconds.values()] == [2, 2]
    assert all(time > 0 for times in comparison.seconds.values() for time in times)
    assert f"ratio of medians: {comparison.speedup:.2f}x" in comparison.lines()[-1]


def test_the_ratio_is_the_peers_median_over_ours():
    comparison = benchmarks.Comparison("work", {"ours": [1.0, 2.0, 9.0], "peer": [3.0, 4.0, 4.5]}, {"ours": 2**20})
    assert comparison.speedup == 2.0
    assert comparison.lines()[2:] == [
        "| ours | 2,000 ms | 1,000 ms | 1 MiB |",
        "| peer | 4,000 ms | 3,000 ms | - |",
        "ratio of medians: 2.00x",
    ]


def test_loss_comparison_runs():
    assert len(benchmarks.compare_loss(repeats=1, tokens=50).seconds[benchmarks.OURS]) == 1


@pytest.mark.slow
def test_peak_memory_is_measured_in_a_process_of_its_own():
    """Takes about 20 seconds: two fresh processes."""
    comparison = benchmarks.compare_train_step("tiny", repeats=1)
    ours, marian = (comparison.peak_bytes[name] for name in (benchmarks.OURS, benchmarks.MARIAN))
    assert 0 < ours <= marian


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux lets the peak begin anew")
def test_a_peak_that_is_forgotten_begins_anew_with_what_there_is():
    size = 2**26
    benchmarks.forget_peak_memory()
    before = benchmarks.peak_memory_of_this_process()
    torch.ones(size // 4).sum()
    assert benchmarks.peak_memory_of_this_process() - before > 0.9 * size
    benchmarks.forget_peak_memory()
    assert benchmarks.peak_memory_of_this_process() - before < 0.5 * size


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc")
def test_freed_memory_is_given_back():
    """40 MB in pieces too small to be mapped one by one; the last, which is kept, holds the end of the heap."""
    pieces = [bytearray(100_000) for _ in range(400)]
    del pieces[:-1]
    resident = []
    for give_back in (lambda: None, benchmarks.give_back_freed_memory):
        give_back()
        benchmarks.forget_peak_memory()
        resident.append(benchmarks.peak_memory_of_this_process())
    assert resident[1] < resident[0] - 20_000_000


@pytest.mark.slow  # 8 seconds
def test_programs_apart_take_turns_and_a_long_one_is_run_once_a_turn():
    programs = {"short": (time.sleep, 0.02), "long": (time.sleep, 0.3)}
    seconds, peaks = benchmarks.in_turns_apart(partial, programs, repeats=2, seconds=0.2)
    assert all(0.02 <= each < 0.2 for each in seconds["short"])  # of a run, not of a turn
    assert all(each >= 0.3 for each in seconds["long"])  # however late a busy machine wakes it
    assert len(seconds["short"]) == len(seconds["long"]) == 2
    assert all(2**24 < peak < 2**34 for peak in peaks.values())


@pytest.mark.parametrize("words", [["train-step", "--repeats", "0"], ["decode", "--batch_sizes", "1", "-3"]])
def test_counts_of_nothing_are_refused_before_anything_is_measured(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words, "prog")
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{words[-1]} is not a whole number of at least 1" in line or "expected at least one argument" in line
