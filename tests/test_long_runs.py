"""Long tasks, run: scores beside what is expected, every step once, and exponents of what is known."""

import pytest
import torch

from hf_vanilla_transformer.lab import long_models, long_runs
from hf_vanilla_transformer.lab.benchmarks import in_a_fresh_process
from hf_vanilla_transformer.lab.complexity import FORWARD, MODES, TRAINING, Cell, measured_steps
from hf_vanilla_transformer.lab.long_models import ELU, FULL, LOCAL, PROGRAMS, SHAPE
from hf_vanilla_transformer.lab.long_runs import (
    LENGTHS,
    LongMeasurement,
    Score,
    check_lengths,
    learn,
    lengths_to_test,
    measure_steps,
    peak_of_model_step,
)

PROGRAM, MASKED, BLOCKS, *LINEAR = PROGRAMS


@pytest.fixture
def small(monkeypatch):
    """Models of a tenth of the size."""
    for field, value in {"d_model": 16, "d_ff": 16, "num_decoder_layers": 1}.items():
        monkeypatch.setitem(SHAPE, field, value)


def score(attention=FULL, kept=16, capacity=None, ceiling=1.0, accuracy=1.0, task="retrieval", length=512):
    return Score(task, attention, 128, length, kept, capacity, ceiling, 1 / 16, accuracy, 2048)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({"accuracy": 0.96}, True),
        ({"accuracy": 0.9}, False),
        ({"ceiling": 0.5, "accuracy": 0.48}, True),
        ({"capacity": 16, "accuracy": 0.9}, False),
        ({"capacity": 15, "accuracy": 0.9}, True),
        ({"capacity": 15, "accuracy": 0.99}, False),
    ],
)
def test_nearly_all_is_expected_unless_it_is_too_much_to_keep(measured, expected):
    assert score(**measured).is_as_expected is expected


def test_a_model_that_knows_all_that_it_can_is_as_expected_however_few_the_answers():
    draws = torch.Generator().manual_seed(0)
    for answers in (128, 512, 2048):
        right = (torch.rand(400, answers, generator=draws) < 0.25).float().mean(1).tolist()
        found = [Score("retrieval", LOCAL, 512, 8192, 16, None, 0.25, 1 / 8, each, answers) for each in right]
        assert sum(each.is_as_expected for each in found) >= 0.97 * len(found)
        assert not Score("retrieval", LOCAL, 512, 8192, 16, None, 0.25, 1 / 8, 1 / 8, answers).is_as_expected


def test_a_model_is_trained_once_and_tested_at_every_length(small):
    found = learn("retrieval", LOCAL, 64, [64, 128], updates=1, positions=64, tested_positions=512)
    assert [(each.trained_length, each.length, each.kept, each.answers) for each in found] == [
        (64, 64, 16, 8 * 16),
        (64, 128, 16, 4 * 16),
    ]
    # With one layer, 32 positions.
    assert 1 / 8 < found[1].ceiling < found[0].ceiling < 1
    assert all(each.chance == 1 / 8 and each.capacity is None for each in found)


@pytest.mark.parametrize(
    ("task", "length", "phases"),
    [("copy", 128, [(128, 7)]), ("retrieval", 64, [(64, 7)]), ("retrieval", 128, [(64, 3), (128, 4)])],
)
def test_retrieval_begins_with_short_texts_and_goes_on_with_the_same_model(small, monkeypatch, task, length, phases):
    seen, models = [], []

    def train(model, inputs, steps, seed, batch_size):
        seen.append((inputs["input_ids"].shape[1], steps))
        assert len(inputs["labels"]) == steps * batch_size == steps * 256 // inputs["labels"].shape[1]
        models.append(model.eval())
        return model

    monkeypatch.setattr(long_runs, "train_small", train)
    learn(task, FULL, length, [length], updates=7, positions=256, tested_positions=64)
    assert seen == phases
    assert all(model is models[0] for model in models)


def test_only_retrieval_carries_over_to_longer_texts():
    assert lengths_to_test("copy", 128, [64, 256]) == [128]
    assert lengths_to_test("retrieval", 128, [64, 128, 256]) == [128, 256]


@pytest.mark.slow  # 20 seconds: two models learn from 400 batches each
def test_copying_is_learned_unless_the_window_is_too_small(monkeypatch):
    monkeypatch.setattr(long_models, "WINDOW", 3)
    monkeypatch.setitem(long_models.ATTENTIONS, LOCAL, {"attention_pattern": "local", "attention_window": 3})
    options = {"updates": 400, "positions": 1024, "tested_positions": 1024}
    (full,), (window,) = (learn("copy", each, 16, [16], **options) for each in (FULL, LOCAL))
    assert full.accuracy > 0.95
    assert window.ceiling == window.chance == 1 / 32  # it reaches 6 positions, and 7 are needed
    assert window.accuracy < 0.1
    assert full.is_as_expected


def test_every_step_is_measured_in_its_order(small, monkeypatch):
    monkeypatch.setattr(long_runs, "in_a_fresh_process", lambda measure, task, name, mode, length, _: 100 * length)
    steps, programs = [], [PROGRAM, LINEAR[0]]
    cells = measure_steps("copy", programs, [4, 6, 8], repeats=2, step=lambda: steps.append(1))
    assert len(steps) == measured_steps([4, 6, 8], True, programs, PROGRAMS)
    expected = [(mode, length, name) for mode in MODES for length in (4, 6, 8) for name in programs]
    assert [(cell.mode, cell.length, cell.layer) for cell in cells] == expected
    assert all(len(cell.seconds) == 2 and min(cell.seconds) > 0 for cell in cells)
    assert all(cell.peak_bytes == 100 * cell.length for cell in cells)


def test_compiled_steps_are_measured_forward_only(small, monkeypatch):
    monkeypatch.setattr(long_runs, "in_a_fresh_process", lambda *_: 1)
    monkeypatch.setattr(long_runs, "_step", lambda *_: None)
    steps, programs = [], [MASKED, BLOCKS]
    cells = measure_steps("copy", programs, [4, 6, 8], repeats=1, step=lambda: steps.append(1))
    assert len(steps) == measured_steps([4, 6, 8], True, programs, PROGRAMS)
    assert {(cell.layer, cell.mode, cell.peak_bytes) for cell in cells} == {
        (MASKED, FORWARD, 1),
        (BLOCKS, FORWARD, 1),
        (MASKED, TRAINING, 1),
    }


@pytest.mark.parametrize("mode", MODES)
def test_a_step_is_of_the_whole_model(small, mode):
    model, examples = long_runs._model("retrieval", LINEAR[1]), long_runs.TASKS["retrieval"].examples(1, 64, 0)
    long_runs._step(model, examples, mode)
    assert all((parameter.grad is not None) == (mode == TRAINING) for parameter in model.parameters())


def synthetic(programs=tuple(PROGRAMS), scores=(), peak=lambda length: 1000 * length**2):
    """Steps that take exactly n^1.5, without those that flex attention does not have."""
    cells = [
        Cell(name, mode, length, [1e-6 * length**1.5 * factor for factor in (9, 1, 0.5)], peak(length))
        for mode in MODES
        for length in LENGTHS
        for name in programs
        if mode == FORWARD or name != BLOCKS
    ]
    return LongMeasurement(list(scores), list(LENGTHS), {"copy": cells}, 1)


def test_exponents_are_of_the_medians_beside_the_predicted():
    found = {(each.program, each.mode): each for each in synthetic().growths()}
    assert set(found) == {(name, mode) for name in PROGRAMS for mode in MODES} - {(BLOCKS, TRAINING)}
    for each in found.values():
        assert each.time == pytest.approx(1.5)
        assert each.memory == pytest.approx(2)
    assert 1.9 < found[PROGRAM, FORWARD].expected_time < 2
    assert found[PROGRAM, FORWARD].expected_time == found[MASKED, FORWARD].expected_time
    for name in (BLOCKS, *LINEAR):
        assert found[name, FORWARD].expected_time == pytest.approx(1, abs=0.01)
    assert [found[name, FORWARD].expected_memory for name in PROGRAMS] == [1, 2, 1, 1, 1]
    assert synthetic(peak=lambda length: None).growths()[0].memory is None


@pytest.mark.parametrize(
    ("task", "lengths", "least", "message"),
    [
        ("copy", [8, 16], 3, "`lengths` 8 16 are not allowed; allowed: 3 or more, ascending"),
        ("copy", [16, 8, 32], 3, "`lengths` 16 8 32 are not allowed"),
        ("retrieval", [32, 64, 128], 3, "the task 'retrieval' has no texts of 32 tokens"),
        ("copy", [9], 1, "the task 'copy' has no texts of 9 tokens"),
    ],
)
def test_lengths_that_cannot_be_measured_are_refused(task, lengths, least, message):
    with pytest.raises(ValueError, match=message):
        check_lengths(task, lengths, least, "lengths")


@pytest.mark.slow  # 10 seconds: a process imports torch, and three are made of it
def test_a_mask_takes_memory_that_neither_full_nor_linear_attention_takes():
    matrix, threads = 4 * 2048**2, torch.get_num_threads()
    peaks = {
        name: in_a_fresh_process(peak_of_model_step, "copy", name, FORWARD, 2048, threads)
        for name in (PROGRAM, MASKED, LINEAR[0])
    }
    assert peaks[MASKED] > matrix
    assert 0 < peaks[PROGRAM] < matrix / 2
    assert 0 < peaks[LINEAR[0]] < matrix
    assert PROGRAMS[LINEAR[0]].attention == ELU
