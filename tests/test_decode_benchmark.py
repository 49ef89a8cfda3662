"""That the decoding benchmark compares what it says: equal weights, equal steps. The numbers are not tested."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hf_vanilla_transformer.lab import benchmarks
from hf_vanilla_transformer.lab.benchmarks import MARIAN, OURS
from hf_vanilla_transformer.lab.decode_benchmark import (
    CTRANSLATE2,
    CTRANSLATE2_INT8,
    Cell,
    DecodeComparison,
    compare_decoding,
    make_decoder,
)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    workload = benchmarks.Workload("tiny", vocab_size=300, sentences=2, length=3)
    monkeypatch.setitem(benchmarks.WORKLOADS, "tiny", workload)


@pytest.mark.parametrize("num_beams", [1, 4])
def test_both_models_have_the_same_weights_and_decode_the_same_tokens(num_beams):
    cell = Cell("tiny", batch_size=3, num_beams=num_beams, source_length=6, steps=7)
    ours, theirs = (make_decoder(name, cell)() for name in (OURS, MARIAN))
    assert torch.equal(ours, theirs)
    assert ours.shape == (3, 1 + 7)


@pytest.mark.parametrize("num_beams", [1, 4])
def test_the_floor_is_what_ours_computes(num_beams):
    """But for attention, which is counted elsewhere than the counter sees on a CPU: within a few per cent."""
    cell = Cell("tiny", batch_size=2, num_beams=num_beams, source_length=6, steps=7)
    decode = make_decoder(OURS, cell)
    with FlopCounterMode(display=False) as counter:
        decode()
    assert counter.get_total_flops() == pytest.approx(cell.floor()[0], rel=0.05)


@pytest.mark.slow  # 20 seconds: four processes that load everything
def test_programs_take_turns_and_are_compared_with_marian():
    pytest.importorskip("ctranslate2")
    cell = Cell("tiny", batch_size=2, num_beams=2, source_length=4, steps=3)
    comparison = compare_decoding(cell, repeats=2)
    assert list(comparison.seconds) == [OURS, MARIAN, CTRANSLATE2, CTRANSLATE2_INT8]
    assert all(len(times) == 2 for times in comparison.seconds.values())
    assert comparison.ratio(MARIAN) == 1.0
    assert all(2**26 < peak < 2**34 for peak in comparison.peak_bytes.values())
    assert len(comparison.lines()) == 7


def test_lines_say_speed_ratio_and_floor():
    cell = Cell("tiny", batch_size=2, num_beams=4)
    flops, _ = cell.floor()
    comparison = DecodeComparison(cell, {OURS: [0.5], MARIAN: [1.0]}, {OURS: 2**20}, flops / 0.25, 1e15)
    assert comparison.lines()[0].startswith("| tiny, batch 2, beam 4 |")
    assert comparison.lines()[2:4] == [f"| {OURS} | 4.0 | 2.00 | 50% | 1 MiB |", f"| {MARIAN} | 2.0 | 1.00 | 25% | - |"]
    assert comparison.lines()[4].endswith("8.0 sentences/s, bound by FLOPs")
