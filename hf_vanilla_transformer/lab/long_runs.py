"""Long tasks, run: what models learn, how far that carries, and what a step of them takes over the length."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from .benchmarks import in_a_fresh_process
from .complexity import (
    FORWARD,
    MODES,
    SHORT_COMPILED,
    Cell,
    fitted_exponent,
    fitted_memory,
    measurable,
    measure_cells,
    rise_of_peak,
)
from .inputs import train_small
from .long_models import PROGRAMS, accuracy, build_long_model, capacity, model_operations, reach
from .long_tasks import TASKS, Examples

LENGTHS = (512, 1024, 2048, 4096, 8192)
# Of those that models are trained at: copying is learned for one distance, and is trained at each of them; retrieval
# is trained at one length, and asked for at all.
TRAINED_LENGTHS = {"copy": (64, 128, 256), "retrieval": (512,)}
UPDATES = 1000
POSITIONS = 2048  # of a batch
_TESTED_POSITIONS = 2**18
_TEST_SEED = 1_000_003  # those that are learned from have the seed of their model
_SHORT = 128  # positions of a step that wakes the libraries up; more than those up to which attention is written out


@dataclass(frozen=True)
class Score:
    """What a model knows of a task at one length, beside what it can know.

    Args:
        task: key of `TASKS`.
        attention: key of `ATTENTIONS`.
        trained_length: at which it was trained.
        length: at which it was tested.
        kept: how many things have to be kept until they are asked for.
        capacity: how many the state of a layer can keep apart; None if every key is kept.
        ceiling: expected accuracy of a model that knows whatever is within reach, and guesses the rest.
        chance: of one that guesses all.
        accuracy: what was measured.
        answers: of how many tokens.
    """

    task: str
    attention: str
    trained_length: int
    length: int
    kept: int
    capacity: int | None
    ceiling: float
    chance: float
    accuracy: float
    answers: int

    @property
    def is_within_capacity(self) -> bool:
        """Whether all that has to be kept can be."""
        return self.capacity is None or self.kept <= self.capacity

    @property
    def is_as_expected(self) -> bool:
        """Whether nearly all that can be known is known; beyond the capacity, whether something is not.

        What is guessed is right more or less often by chance: two standard errors of the answers are allowed for.
        """
        chance = 2 * math.sqrt(self.ceiling * (1 - self.ceiling) / self.answers)
        reaches = self.accuracy >= 0.95 * self.ceiling - chance
        return reaches if self.is_within_capacity else not reaches


@dataclass(frozen=True)
class Growth:
    """How time and memory of a program grow with the length, as exponents of n by `fitted_exponent`.

    Args:
        task: key of `TASKS`.
        program: key of `PROGRAMS`.
        mode: of `MODES`.
        expected_time: fitted to the operations.
        time: fitted to the medians.
        expected_memory: that of the largest tensors.
        memory: fitted to the peaks; None where one of them is 0 or was not measured.
    """

    task: str
    program: str
    mode: str
    expected_time: float
    time: float
    expected_memory: int
    memory: float | None


@dataclass(frozen=True)
class LongMeasurement:
    """All that was measured.

    Args:
        scores: of trained models.
        lengths: of the steps, ascending.
        cells: by task, the time and memory of steps; the layer of each is a program.
        threads: of torch.
    """

    scores: list[Score]
    lengths: list[int]
    cells: dict[str, list[Cell]]
    threads: int

    def of(self, task: str, program: str, mode: str) -> list[Cell]:
        """Returns the steps of a program, in the order of their lengths.

        Args:
            task: key of `TASKS`.
            program: key of `PROGRAMS`.
            mode: of `MODES`; not every program has both.
        """
        return [cell for cell in self.cells.get(task, []) if (cell.layer, cell.mode) == (program, mode)]

    def growths(self) -> list[Growth]:
        """Fits the exponents of every program in every mode of every task."""
        found = []
        for task, mode, program in ((task, mode, each) for task in self.cells for mode in MODES for each in PROGRAMS):
            if not (cells := self.of(task, program, mode)):
                continue
            operations = [_operations(task, program, length) for length in self.lengths]
            found.append(
                Growth(
                    task,
                    program,
                    mode,
                    fitted_exponent(self.lengths, operations),
                    fitted_exponent(self.lengths, [cell.median for cell in cells]),
                    PROGRAMS[program].memory_exponent,
                    fitted_memory(self.lengths, cells),
                )
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """Returns everything in the form of JSON."""
        cells = {
            task: [{**asdict(cell), "median": cell.median} for cell in found] for task, found in self.cells.items()
        }
        growths = [asdict(each) for each in self.growths()]
        return {**vars(self), "scores": [asdict(each) for each in self.scores], "cells": cells, "exponents": growths}


def learn(
    task_name: str,
    attention: str,
    trained_length: int,
    lengths: Sequence[int],
    updates: int = UPDATES,
    seed: int = 0,
    positions: int = POSITIONS,
    tested_positions: int = _TESTED_POSITIONS,
) -> list[Score]:
    """Trains a model on a task at one length, and tests it at several.

    Args:
        task_name: key of `TASKS`.
        attention: key of `ATTENTIONS`.
        trained_length: n in training, whose first half may be of shorter texts: `Task.first_length`.
        lengths: n in tests.
        updates: of the training; no example is seen twice.
        seed: of weights and examples.
        positions: of a batch, at least one text.
        tested_positions: of each test, likewise.

    Returns:
        A score for each length.
    """
    task, first = TASKS[task_name], TASKS[task_name].first_length
    phases = [(trained_length, updates)]
    if first is not None and first < trained_length and updates > 1:
        phases = [(first, updates // 2), (trained_length, updates - updates // 2)]
    torch.manual_seed(seed)
    model = build_long_model(task, attention)
    for length, steps in phases:
        batch_size = max(1, positions // length)
        examples = task.examples(steps * batch_size, length, seed)
        inputs = {"input_ids": examples.input_ids, "labels": examples.labels}
        train_small(model, inputs, steps, seed, batch_size)
    scores = []
    for length in lengths:
        test = task.examples(max(1, tested_positions // length), length, _TEST_SEED)
        share, kept, state = test.within(reach(attention)), task.kept(length), capacity(attention)
        scores.append(
            Score(
                task_name, attention, trained_length, length, kept, state, task.ceiling(share), task.ceiling(0),
                accuracy(model, test), test.distances().numel(),
            )
        )  # fmt: skip
    return scores


def lengths_to_test(task_name: str, trained_length: int, lengths: Sequence[int]) -> list[int]:
    """Returns the lengths at which a model is tested: its own, and where it may carry over, all longer ones.

    A model that copies over a distance has learned that distance, which is another at every length; retrieval is the
    same wherever things stand.

    Args:
        task_name: key of `TASKS`.
        trained_length: n in training.
        lengths: those of the measurement.
    """
    longer = [length for length in lengths if length > trained_length]
    return [trained_length, *(longer if task_name == "retrieval" else [])]


def measure_steps(
    task_name: str,
    programs: Sequence[str] = tuple(PROGRAMS),
    lengths: Sequence[int] = LENGTHS,
    repeats: int = 3,
    memory: bool = True,
    step: Callable[[], Any] = lambda: None,
) -> list[Cell]:
    """Measures a step of every model at every length, forward alone and with its backward pass, on one text.

    As `measure_complexity` does for layers: times of one length in turns, memory in a process of its own for each cell.

    Args:
        task_name: key of `TASKS`, whose texts they are.
        programs: keys of `PROGRAMS`; compiled ones are measured forward only.
        lengths: n, ascending; at least three.
        repeats: measured steps of each; one more is not measured.
        memory: whether to measure memory too.
        step: called when the times of a length or the memory of a cell are measured: `measured_steps` times.

    Returns:
        The cells; `layer` is the program.
    """
    models = {name: _model(task_name, name) for name in programs}

    def make_steps(mode: str, length: int) -> dict[str, Callable[[], Any]]:
        examples = TASKS[task_name].examples(1, length, 0)
        return {name: partial(_step, models[name], examples, mode) for name in measurable(programs, mode, PROGRAMS)}

    def measure_peak(name: str, mode: str, length: int) -> int:
        threads = torch.get_num_threads()
        return int(in_a_fresh_process(peak_of_model_step, task_name, name, mode, length, threads))

    return measure_cells(lengths, make_steps, measure_peak if memory else None, repeats, step, warmups=1)


def peak_of_model_step(task_name: str, program: str, mode: str, length: int, threads: int) -> int:
    """Measures the memory that a step needs beside the weights, their gradients and the text, in a fresh process.

    Args:
        task_name: key of `TASKS`.
        program: key of `PROGRAMS`.
        mode: of `MODES`.
        length: n.
        threads: of torch.

    Returns:
        Bytes by which the peak of the resident memory rises.
    """
    torch.set_num_threads(threads)
    model, examples = _model(task_name, program), TASKS[task_name].examples(1, length, 0)
    is_compiled = PROGRAMS[program].is_compiled
    for short in SHORT_COMPILED if is_compiled else (_SHORT,):
        _step(model, TASKS[task_name].examples(1, short, 0), mode)
    return rise_of_peak(lambda: _step(model, examples, mode), is_compiled)


def check_lengths(task_name: str, lengths: Sequence[int], least: int, option: str) -> None:
    """Refuses lengths that a task does not have, or to which nothing can be fitted.

    Args:
        task_name: key of `TASKS`.
        lengths: n, ascending.
        least: how many there have to be.
        option: what gave them, for the message.

    Raises:
        ValueError: a length is not allowed.
    """
    if len(lengths) < least or list(lengths) != sorted(set(lengths)):
        given = " ".join(map(str, lengths))
        raise ValueError(f"`{option}` {given} are not allowed; allowed: {least} or more, ascending")
    for length in lengths:
        TASKS[task_name].check(length)


def _model(task_name: str, program: str) -> Any:
    torch.manual_seed(0)
    return build_long_model(TASKS[task_name], PROGRAMS[program].attention, PROGRAMS[program].implementation)


def _step(model: Any, examples: Examples, mode: str) -> None:
    texts = {"input_ids": examples.input_ids, "labels": examples.labels}
    if mode == FORWARD:
        with torch.inference_mode():
            model.eval()(**texts, return_logits=False)
        return
    model.train()(**texts).loss.backward()


def _operations(task_name: str, program: str, length: int) -> float:
    task = TASKS[task_name]
    return model_operations(PROGRAMS[program], length, task.kept(length), task.vocab_size)
