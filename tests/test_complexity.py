"""Table 1, measured: the fit on values whose exponent is known, every cell once, and the memory of what is known."""

import numpy as np
import pytest
import torch

from hf_vanilla_transformer.lab import complexity, complexity_layers
from hf_vanilla_transformer.lab.complexity import (
    LENGTHS,
    MODES,
    TRAINING,
    Cell,
    ComplexityMeasurement,
    fitted_exponent,
    measure_complexity,
    measured_steps,
)
from hf_vanilla_transformer.lab.complexity_layers import (
    CAUSAL,
    CONVOLUTION,
    EAGER,
    GRU,
    LAYER_TYPES,
    LINEAR,
    SDPA,
    TABLE_1,
    WINDOWED,
)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.37, 2.0])
@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[:6], (5, 7, 100)])
def test_an_exact_exponent_is_found_whatever_the_lower_half_is(lengths, exponent):
    values = [3e-6 * length**exponent for length in lengths]
    assert fitted_exponent(lengths, values) == pytest.approx(exponent, abs=1e-9)
    half = len(lengths) // 2
    assert fitted_exponent(lengths, [17.0] * half + values[half:]) == pytest.approx(exponent, abs=1e-9)


def test_noisy_values_are_fitted_by_least_squares():
    values = [length**1.5 * factor for length, factor in zip(LENGTHS, (1, 1, 1, 1.2, 0.9, 1.1, 0.8))]
    expected = np.polyfit(np.log(LENGTHS[3:]), np.log(values[3:]), 1)[0]
    assert fitted_exponent(LENGTHS, values) == pytest.approx(expected)


def test_two_lengths_are_no_upper_half():
    with pytest.raises(ValueError, match="2 lengths are too few"):
        fitted_exponent([1, 2], [1, 2])


def test_a_training_step_gives_gradients_to_all_weights():
    for name in LAYER_TYPES.keys() - {WINDOWED}:
        layer = complexity._layer(name, 8, 2)
        complexity._step(layer, torch.randn(1, 5, 8), TRAINING)
        assert all(parameter.grad is not None for parameter in layer.parameters())


def test_every_cell_is_measured_in_its_order(monkeypatch):
    monkeypatch.setattr(complexity, "_in_a_fresh_process", lambda name, mode, length, *_: 100 * length)
    steps = []
    measured = measure_complexity(8, 2, [2, 3, 5], repeats=2, step=lambda: steps.append(1))
    assert len(steps) == measured_steps([2, 3, 5], memory=True)
    expected = [(mode, length, name) for mode in MODES for length in (2, 3, 5) for name in TABLE_1]
    assert [(cell.mode, cell.length, cell.layer) for cell in measured.cells] == expected
    assert all(len(cell.seconds) == 2 and min(cell.seconds) > 0 for cell in measured.cells)
    assert all(cell.peak_bytes == 100 * cell.length for cell in measured.cells)
    assert all(each.memory == pytest.approx(1) for each in measured.exponents())


def test_compiled_layers_are_measured_forward_only(monkeypatch):
    monkeypatch.setattr(complexity, "_in_a_fresh_process", lambda name, mode, length, *_: 1)
    monkeypatch.setattr(complexity_layers._Windowed, "forward", lambda self, states: states)
    steps = []
    layers = [WINDOWED, LINEAR, CAUSAL]
    measured = measure_complexity(8, 2, [2, 3, 5], repeats=1, layers=layers, step=lambda: steps.append(1))
    assert len(steps) == measured_steps([2, 3, 5], True, layers)
    assert measured.layers() == layers
    assert measured.layers(TRAINING) == [LINEAR, CAUSAL]
    assert all(cell.peak_bytes == 1 for cell in measured.cells)
    assert [(each.layer, each.mode) for each in measured.exponents()] == [
        (name, mode) for mode in MODES for name in measured.layers(mode)
    ]


def synthetic(lengths=LENGTHS, peak=lambda length: 1000 * length, layers=TABLE_1):
    """Layers that take exactly the time of Table 1, attention twice as long with its backward pass."""
    cells = [
        Cell(name, mode, length, [1e-6 * length**layer.exponent * factor for factor in (9, 1, 0.5)], peak(length))
        for mode in MODES
        for length in lengths
        for name, layer in LAYER_TYPES.items()
        if name in layers
    ]
    return ComplexityMeasurement(512, 8, list(lengths), 2, cells)


def test_exponents_are_of_the_medians_beside_the_stated_and_the_expected():
    for each in synthetic().exponents():
        assert each.time == pytest.approx(each.stated)
        assert each.memory == pytest.approx(1)
        if each.layer in (GRU, CONVOLUTION):
            assert each.expected == pytest.approx(each.stated)
        else:  # at these lengths, projections of width 512 are a good part of attention
            assert 1 < each.expected < 2
    wide = ComplexityMeasurement(1, 1, list(LENGTHS), 2, synthetic().cells)
    assert wide.exponents()[0].expected == pytest.approx(2, abs=0.01)


def test_a_peak_of_nothing_has_no_exponent():
    assert synthetic(peak=lambda length: 0 if length == 4096 else 5).exponents()[0].memory is None
    assert synthetic(peak=lambda length: None).exponents()[0].memory is None
    assert synthetic(peak=lambda length: max(0, length - 64)).exponents()[0].memory is not None  # 0 in the lower half


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": [1, 2]}, "`lengths` 1 2 are not allowed"),
        ({"lengths": [1, 3, 2]}, "`lengths` 1 3 2 are not allowed"),
        ({"lengths": [0, 3, 4]}, "`lengths` 0 3 4 are not allowed"),
        ({"repeats": 0}, "`repeats`=0 is not allowed"),
        ({"d_model": 9}, "`d_model`=9 cannot be divided"),
        ({"num_heads": 0}, "`num_heads`=0 is not allowed"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        measure_complexity(**{"d_model": 8, "num_heads": 2, "memory": False, **options})


@pytest.mark.slow  # 15 seconds: a process imports torch, and six are made of it
def test_memory_is_that_of_the_buffers_in_a_fresh_process():
    """Eager attention keeps at least two matrices of H x n x n; the others have none. In any order, with one result."""
    shape = (64, 4)
    eager = {n: complexity._in_a_fresh_process(EAGER, MODES[0], n, *shape) for n in (2048, 1024)}
    matrix = 4 * 4 * 1024**2
    assert 2 * matrix < eager[1024] < 6 * matrix
    assert 8 * matrix < eager[2048] < 24 * matrix
    for name in (SDPA, GRU):
        assert 0 < complexity._in_a_fresh_process(name, MODES[0], 1024, *shape) < matrix
    again = complexity._in_a_fresh_process(EAGER, MODES[0], 1024, *shape)
    assert again == pytest.approx(eager[1024], rel=0.1)


@pytest.mark.slow  # a minute: three processes compile flex attention, or find it compiled
def test_memory_of_a_compiled_layer_is_its_own():
    """Queries, keys, values and two outputs, and not what the compiler takes: linear in the length."""
    peaks = [complexity._in_a_fresh_process(WINDOWED, MODES[0], n, 512, 8) for n in (2048, 8192, 2048)]
    states = 4 * 512 * 2048
    assert 4 * states < peaks[0] < 6 * states
    assert peaks[1] == pytest.approx(4 * peaks[0], rel=0.1)
    assert peaks[2] == pytest.approx(peaks[0], rel=0.1)
