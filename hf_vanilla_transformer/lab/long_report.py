"""The report of the long tasks: accuracy beside what can be known, exponents beside predicted ones, and a chart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .charts import DPI, new_chart
from .complexity import MODES, Cell
from .complexity_layers import NO_BACKWARD
from .long_models import LOCAL, PROGRAMS, SHAPE, WINDOW
from .long_runs import LongMeasurement, Score
from .long_tasks import TASKS
from .planning import format_table

_COLOURS = dict(zip(PROGRAMS, ("#4477aa", "#aa3377", "#ee6677", "#66ccee", "#228833"), strict=True))

_LEGEND = f"""\
What can be known is counted: an answer is within reach if it stands no further back than layers times window, that is
{SHAPE["num_decoder_layers"] * WINDOW} positions, and all others are guessed. Attention without a window reaches all of
them. The state of linear attention keeps up to F things for each head without one disturbing the other (Schlag et al.,
2021): with more to keep, it is expected not to know all of them, and nothing is said of how many. Expected is met
where the accuracy is at least 0.95 times what can be known, or less than that beyond the capacity. Where copying is
learned at one length, another model learns it at the next, because the distance is another; retrieval is learned at one
length, and tested at all.
Exponents are of n, by least squares of logarithms over the upper half of the lengths, of a step of the whole model on
one text in float32. Predicted ones of time are fitted to the operations of all its matrix products, those of memory are
of its largest tensors. Memory is by how much a step raises the highest resident memory of a fresh process. The window
is trained as a mask, which computes what it hides. Compiled flex attention leaves that out; it has no backward pass on
a CPU (torch 2.13: "FlexAttention does not support backward on CPU"), and the compiler's memory hides its own."""


def write_long_report(measured: LongMeasurement, settings: dict[str, Any], folder: Path) -> None:
    """Writes `long.json`, `long.md` and `long.png`.

    Args:
        measured: what was measured.
        settings: how, by name; written beside it.
        folder: to write in.

    Raises:
        ValueError: matplotlib is not installed.
    """
    contents = json.dumps({"settings": settings, "shape": SHAPE, **measured.as_dict()}, indent=1, ensure_ascii=False)
    (folder / "long.json").write_text(contents + "\n", encoding="utf-8")
    (folder / "long.md").write_text("\n".join(long_lines(measured, settings)) + "\n", encoding="utf-8")
    _draw(measured, folder / "long.png")


def long_lines(measured: LongMeasurement, settings: dict[str, Any]) -> list[str]:
    """Writes what was measured in Markdown.

    Args:
        measured: what was measured.
        settings: how, by name.

    Returns:
        The lines.
    """
    shape = ", ".join(f"{name} {value}" for name, value in {**SHAPE, "threads": measured.threads, **settings}.items())
    lines = ["# Long sequences: copying and retrieval", "", shape]
    for name, task in TASKS.items():
        scores = [score for score in measured.scores if score.task == name]
        if not scores and name not in measured.cells:
            continue
        positions = f"Positions are {task.position_encoding}." if task.position_encoding != "none" else "No positions."
        lines += ["", f"## {name.capitalize()}", "", f"{task.what[0].upper()}{task.what[1:]}. {positions}"]
        if scores:
            lines += ["", *_score_lines(scores)]
        for mode in MODES if name in measured.cells else ():
            lines += ["", f"### {mode.capitalize()}", "", *_growth_lines(measured, name, mode)]
            lines += ["", *_cell_lines(measured, name, mode, "milliseconds", lambda cell: f"{cell.median * 1e3:,.1f}")]
            lines += ["", *_cell_lines(measured, name, mode, "MiB", _mebibytes)]
    return [*lines, "", *_LEGEND.splitlines()]


def long_summary(measured: LongMeasurement) -> str:
    """Says in one line what was measured.

    Args:
        measured: what was measured.
    """
    parts = []
    if measured.scores:
        met = sum(score.is_as_expected for score in measured.scores)
        parts.append(f"{met} of {len(measured.scores)} accuracies as expected")
    exponents = [
        f"{each.task}, {each.program} {each.time:.2f} (predicted {each.expected_time:.2f})"
        for each in measured.growths()
        if each.mode == MODES[0]
    ]
    if exponents:
        parts.append(f"exponents of time over length, forward: {'; '.join(exponents)}")
    return "; ".join(parts)


def _score_lines(scores: list[Score]) -> list[str]:
    header = ["attention", "trained at n", "tested at n", "to keep", "capacity", "chance, %", "can be known, %",
              "expected, %", "accuracy, %", "as expected"]  # fmt: skip
    rows = []
    for score in scores:
        ceiling = f"{100 * score.ceiling:.1f}"
        rows.append(
            [
                score.attention,
                str(score.trained_length),
                str(score.length),
                str(score.kept),
                "all" if score.capacity is None else str(score.capacity),
                f"{100 * score.chance:.1f}",
                ceiling,
                ceiling if score.is_within_capacity else "less",
                f"{100 * score.accuracy:.1f}",
                "yes" if score.is_as_expected else "no",
            ]
        )
    return format_table(header, *rows)


def _growth_lines(measured: LongMeasurement, task: str, mode: str) -> list[str]:
    header = ["program", "exponent of time, predicted", "measured", "exponent of memory, predicted", "measured"]
    rows = []
    for name, program in PROGRAMS.items():
        found = [each for each in measured.growths() if (each.task, each.program, each.mode) == (task, name, mode)]
        if found:
            memory = "-" if found[0].memory is None else f"{found[0].memory:.2f}"
            times = [f"{value:.2f}" for value in (found[0].expected_time, found[0].time)]
            rows.append([name, *times, str(found[0].expected_memory), memory])
        elif program.is_compiled and measured.of(task, name, MODES[0]):
            rows.append([name, NO_BACKWARD, "", "", ""])
    return format_table(header, *rows)


def _cell_lines(
    measured: LongMeasurement, task: str, mode: str, unit: str, cell_text: Callable[[Cell], str]
) -> list[str]:
    programs = [name for name in PROGRAMS if measured.of(task, name, mode)]
    rows = [[name, *(cell_text(cell) for cell in measured.of(task, name, mode))] for name in programs]
    return format_table([unit, *(f"n = {length}" for length in measured.lengths)], *rows)


def _mebibytes(cell: Cell) -> str:
    return "-" if cell.peak_bytes is None else f"{cell.peak_bytes / 2**20:,.1f}"


def _draw(measured: LongMeasurement, path: Path) -> None:
    """A row for each task: accuracy, and time and memory of a step with its backward pass."""
    tasks = [name for name in TASKS if name in {*measured.cells, *(score.task for score in measured.scores)}]
    figure = new_chart(13, 4 * len(tasks))
    rows = figure.subplots(len(tasks), 3, squeeze=False)
    for task, (accuracies, times, peaks) in zip(tasks, rows, strict=True):
        for attention, (program, style) in _STYLES.items():
            scores = [score for score in measured.scores if (score.task, score.attention) == (task, attention)]
            lengths = [score.length for score in scores]
            accuracies.plot(lengths, [100 * score.accuracy for score in scores], label=attention, **style)
            if attention == LOCAL and scores:
                ceilings = [100 * score.ceiling for score in scores]
                accuracies.plot(lengths, ceilings, color=_COLOURS[program], linestyle=":", label="within its reach")
        chance = 100 * TASKS[task].ceiling(0)
        accuracies.axhline(chance, color="grey", linestyle=":", label="chance")
        accuracies.set(title=f"{task}, learned", ylabel="accuracy, %", ylim=(0, 105))
        for name in PROGRAMS:
            cells = measured.of(task, name, MODES[-1])
            style = {"color": _COLOURS[name], "marker": "o", "markersize": 4, "label": name}
            if cells:
                times.plot(measured.lengths, [cell.median for cell in cells], **style)
            if found := [(cell.length, cell.peak_bytes / 2**20) for cell in cells if cell.peak_bytes]:
                peaks.plot(*zip(*found, strict=True), **style)
        times.set(title=f"{task}, {MODES[-1]}", ylabel="seconds", yscale="log")
        peaks.set(title=f"{task}, {MODES[-1]}", ylabel="MiB", yscale="log")
        for axes in (accuracies, times, peaks):
            axes.set_xscale("log", base=2)
            axes.set(xlabel="length n")
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend(fontsize=8)
    figure.savefig(path, dpi=DPI)


# Of each attention, the program that it is trained by, in whose colour it is drawn.
_STYLES = {
    attention: (program, {"color": _COLOURS[program], "marker": "o", "markersize": 4})
    for attention, program in {each.attention: each.name for each in PROGRAMS.values() if not each.is_compiled}.items()
}
