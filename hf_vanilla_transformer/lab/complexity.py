"""Table 1 of the paper as a measurement: time and memory of layers of equal width over the length of the sequence."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from .benchmarks import (
    forget_peak_memory,
    give_back_freed_memory,
    in_a_fresh_process,
    in_turns,
    peak_memory_of_this_process,
)
from .complexity_layers import ABSENT, KERNEL_SIZE, LAYER_TYPES, TABLE_1, WINDOWED

LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
FORWARD, TRAINING = MODES = ("forward", "forward and backward")
# Positions of a step that wakes the libraries up: more than those up to which training writes attention out on a CPU.
_SHORT = 128
# Of a compiled one: what is compiled for the second of two lengths is for any.
SHORT_COMPILED = (256, 384)


@dataclass(frozen=True)
class Cell:
    """What was measured of one layer at one length.

    Args:
        layer: key of `LAYER_TYPES`.
        mode: of `MODES`.
        length: n.
        seconds: of every measured step.
        peak_bytes: memory that a step needs beside the layer and its input; None if it was not measured.
    """

    layer: str
    mode: str
    length: int
    seconds: list[float]
    peak_bytes: int | None

    @property
    def median(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Exponents:
    """How time and memory grow with the length, as exponents of n fitted over the upper half of the lengths.

    Args:
        layer: key of `LAYER_TYPES`.
        mode: of `MODES`.
        stated: by Table 1, where n is all that counts.
        expected: fitted to the operations of the layer, projections included, at the same lengths.
        time: fitted to the medians.
        memory: fitted to the peaks; None where one of them is 0 or was not measured.
    """

    layer: str
    mode: str
    stated: int
    expected: float
    time: float
    memory: float | None


@dataclass(frozen=True)
class ComplexityMeasurement:
    """All that was measured.

    Args:
        d_model: width of all layers.
        num_heads: of the attentions.
        lengths: n, ascending.
        threads: of torch.
        cells: by mode, layer and length.
    """

    d_model: int
    num_heads: int
    lengths: list[int]
    threads: int
    cells: list[Cell]

    def of(self, layer: str, mode: str) -> list[Cell]:
        """Returns the cells of a layer, in the order of their lengths.

        Args:
            layer: key of `LAYER_TYPES`.
            mode: of `MODES`.
        """
        return [cell for cell in self.cells if (cell.layer, cell.mode) == (layer, mode)]

    def layers(self, mode: str = FORWARD) -> list[str]:
        """Returns the layers that were measured, in their order.

        Args:
            mode: of `MODES`; not every layer has both.
        """
        return list(dict.fromkeys(cell.layer for cell in self.cells if cell.mode == mode))

    def exponents(self) -> list[Exponents]:
        """Fits the exponents of every layer in every mode."""
        found = []
        for mode in MODES:
            for name in self.layers(mode):
                cells, layer = self.of(name, mode), LAYER_TYPES[name]
                found.append(
                    Exponents(
                        name,
                        mode,
                        layer.exponent,
                        fitted_exponent(self.lengths, self._operations(name)),
                        fitted_exponent(self.lengths, [cell.median for cell in cells]),
                        fitted_memory(self.lengths, cells),
                    )
                )
        return found

    def _operations(self, name: str) -> list[float]:
        return [LAYER_TYPES[name].operations(n, self.d_model, self.num_heads) for n in self.lengths]

    def as_dict(self) -> dict[str, Any]:
        """Returns everything in the form of JSON."""
        exponents = [asdict(each) for each in self.exponents()]
        absent = dict(zip(("layer", "complexity", "stated", "why"), ABSENT, strict=True))
        cells = [{**asdict(cell), "median": cell.median} for cell in self.cells]
        whole = {name: value for name, value in vars(self).items() if name != "cells"}
        absents = {} if WINDOWED in self.layers() else {"absent": absent}
        return {**whole, "kernel_size": KERNEL_SIZE, "exponents": exponents, **absents, "cells": cells}


def fitted_exponent(lengths: Sequence[int], values: Sequence[float]) -> float:
    """Fits values to c · n^exponent by least squares of logarithms, over the upper half of the lengths.

    At short lengths, what a step costs at any length hides how it grows.

    Args:
        lengths: n, ascending; of an odd number, the middle one belongs to the upper half.
        values: of each length, positive in the upper half.

    Returns:
        The exponent.

    Raises:
        ValueError: there are fewer than three lengths, whose upper half is no two points.
    """
    if len(lengths) < 3:
        raise ValueError(f"{len(lengths)} lengths are too few to fit an exponent to their upper half; give 3 or more")
    half = len(lengths) // 2
    return slope_of_logarithms(lengths[half:], values[half:])


def slope_of_logarithms(numbers: Sequence[float], values: Sequence[float]) -> float:
    """Fits values to c · n^exponent by least squares of logarithms.

    Args:
        numbers: n, two or more, positive.
        values: of each number, positive.

    Returns:
        The exponent.
    """
    return statistics.linear_regression(*([math.log(each) for each in side] for side in (numbers, values))).slope


def fitted_memory(lengths: Sequence[int], cells: Sequence[Cell]) -> float | None:
    """Fits the exponent of the memory of steps, as `fitted_exponent` does.

    Args:
        lengths: n, ascending.
        cells: of each length.

    Returns:
        The exponent; None where a peak of the upper half is 0 or was not measured.
    """
    peaks = [cell.peak_bytes or 0 for cell in cells]
    return fitted_exponent(lengths, peaks) if min(peaks[len(peaks) // 2 :]) > 0 else None


def measure_complexity(
    d_model: int = 512,
    num_heads: int = 8,
    lengths: Sequence[int] = LENGTHS,
    repeats: int = 7,
    memory: bool = True,
    layers: Sequence[str] = TABLE_1,
    step: Callable[[], Any] = lambda: None,
) -> ComplexityMeasurement:
    """Measures every layer at every length, forward alone and with its backward pass, on one sequence in float32.

    Times of one length are measured in turns, layer by layer, so that what else the machine does slows all alike.

    Memory is measured in a process of its own for each cell: by how much a step raises the highest resident memory
    above what the process had with the layer and its input. Resident memory sees all that is allocated: the buffers of
    torch, which Python's tracemalloc does not see, and those of the libraries below it, which torch's own profiler
    does not see. A fresh process has no freed buffers that the step could use instead of new ones. Before it is
    measured, a step on a short input wakes the libraries up and allocates the gradients of the weights, which do not
    depend on the length. A compiled layer runs once more before, and what its compiler has freed is given back.

    Args:
        d_model: width of all layers.
        num_heads: of the attentions.
        lengths: n, ascending; at least three.
        repeats: measured steps of each layer; two more are not measured.
        memory: whether to measure memory too.
        layers: keys of `LAYER_TYPES`. Compiled ones are measured forward only.
        step: called when the times of a length or the memory of a cell are measured: `measured_steps` times.

    Returns:
        The measurement.

    Raises:
        ValueError: a number is not allowed, or `d_model` is not a multiple of `num_heads`.
    """
    lengths = list(lengths)
    if len(lengths) < 3 or lengths[0] < 1 or lengths != sorted(set(lengths)):
        given = " ".join(map(str, lengths))
        raise ValueError(f"`lengths` {given} are not allowed; allowed: three or more, ascending, of at least 1")
    for option, value in (("d_model", d_model), ("num_heads", num_heads), ("repeats", repeats)):
        if value < 1:
            raise ValueError(f"`{option}`={value} is not allowed; allowed: an integer of at least 1")
    if d_model % num_heads:
        raise ValueError(f"`d_model`={d_model} cannot be divided among `num_heads`={num_heads} heads")
    made = {name: _layer(name, d_model, num_heads) for name in LAYER_TYPES if name in layers}

    def make_steps(mode: str, length: int) -> dict[str, Callable[[], Any]]:
        states = _states(length, d_model)
        return {name: partial(_step, made[name], states, mode) for name in measurable(layers, mode)}

    def measure_peak(name: str, mode: str, length: int) -> int:
        return _in_a_fresh_process(name, mode, length, d_model, num_heads)

    cells = measure_cells(lengths, make_steps, measure_peak if memory else None, repeats, step)
    return ComplexityMeasurement(d_model, num_heads, lengths, torch.get_num_threads(), cells)


def measure_cells(
    lengths: Sequence[int],
    make_steps: Callable[[str, int], dict[str, Callable[[], Any]]],
    measure_peak: Callable[[str, str, int], int] | None,
    repeats: int,
    step: Callable[[], Any],
    warmups: int = 2,
) -> list[Cell]:
    """Measures steps in every mode at every length: times of one length in turns, and memory step by step.

    Args:
        lengths: n, ascending.
        make_steps: what makes the steps of a mode and a length, by name.
        measure_peak: what measures the memory of the step of a name, a mode and a length; None measures times only.
        repeats: measured steps of each.
        step: called when the times of a length or the memory of a cell are measured: `measured_steps` times.
        warmups: steps of each before these, which are not measured.

    Returns:
        The cells, in the order of modes, lengths and steps.
    """
    cells = []
    for mode in MODES:
        for length in lengths:
            seconds = in_turns(make_steps(mode, length), repeats, warmups)
            step()
            for name, found in seconds.items():
                peak = None
                if measure_peak is not None:
                    peak = measure_peak(name, mode, length)
                    step()
                cells.append(Cell(name, mode, length, found, peak))
    return cells


def measured_steps(
    lengths: Sequence[int], memory: bool, names: Sequence[str] = TABLE_1, types: Mapping[str, Any] = LAYER_TYPES
) -> int:
    """Returns how often `measure_cells` calls `step`.

    Args:
        lengths: as there.
        memory: whether it is measured.
        names: as of `measurable`.
        types: likewise.
    """
    with_memory = sum(len(measurable(names, mode, types)) for mode in MODES) if memory else 0
    return len(lengths) * (len(MODES) + with_memory)


def measurable(names: Sequence[str], mode: str, types: Mapping[str, Any] = LAYER_TYPES) -> list[str]:
    """Returns what can be measured in a mode, in the order of the types: compiled ones forward only.

    Args:
        names: keys of `types`.
        mode: of `MODES`.
        types: by name, which say of themselves whether they are compiled.
    """
    return [name for name in types if name in names and (mode == FORWARD or not types[name].is_compiled)]


def _layer(name: str, d_model: int, num_heads: int) -> nn.Module:
    torch.manual_seed(0)
    return LAYER_TYPES[name].make(d_model, num_heads)


def _states(length: int, d_model: int) -> torch.Tensor:
    return torch.randn(1, length, d_model, generator=torch.Generator().manual_seed(0))


def _step(layer: nn.Module, states: torch.Tensor, mode: str) -> None:
    if mode == FORWARD:
        with torch.inference_mode():
            layer.eval()(states)
        return
    # A layer in a stack passes gradients on to its input too.
    states = states.detach().requires_grad_()
    layer.train()(states).sum().backward()


def _in_a_fresh_process(*args: Any) -> int:
    return in_a_fresh_process(peak_of_step, *args, torch.get_num_threads())


def peak_of_step(name: str, mode: str, length: int, d_model: int, num_heads: int, threads: int) -> int:
    """Measures the memory that a step needs; to be called in a fresh process, as `measure_complexity` says.

    Args:
        name: key of `LAYER_TYPES`.
        mode: of `MODES`.
        length: n.
        d_model: width of the layer.
        num_heads: of an attention.
        threads: of torch.

    Returns:
        Bytes by which the peak of the resident memory rises.
    """
    torch.set_num_threads(threads)
    layer, states = _layer(name, d_model, num_heads), _states(length, d_model)
    is_compiled = LAYER_TYPES[name].is_compiled
    for short in SHORT_COMPILED if is_compiled else (_SHORT,):
        _step(layer, _states(short, d_model), mode)
    return rise_of_peak(lambda: _step(layer, states, mode), is_compiled)


def rise_of_peak(step: Callable[[], Any], is_compiled: bool = False) -> int:
    """Runs a step, and returns by how many bytes it raises the highest resident memory above what there is before.

    Args:
        step: what to run.
        is_compiled: whether it may be compiled yet: it then runs once before, and what was freed is given back.
    """
    if is_compiled:
        step()
        give_back_freed_memory()
    forget_peak_memory()
    before = peak_memory_of_this_process()
    step()
    return peak_memory_of_this_process() - before
