"""The report of the long tasks: accuracy beside what can be known, exponents beside predicted ones, and a chart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .charts import DPI, new_chart
from .complexity import MODES, Cell
from .complexity_layers import NO_BACKWARD
from .complexity_report import cell_lines, mebibytes
from .long_models import LOCAL, PROGRAMS, SHAPE, WINDOW
from .long_runs import Growth, LongMeasurement, Score
from .long_tasks import TASKS
from .planning import format_table

_COLOURS = dict(zip(PROGRAMS, ("#4477aa", "#aa3377", "#ee6677", "#66ccee", "#228833"), strict=True))

_LEGEND = f"""\
What can be known is counted: an answer is within reach if it stands no further back than layers times window, that is
{SHAPE["num_decoder_layers"] * WINDOW} positions, and all others are guessed. Attention without a window reaches all of
them. The state of linear attention keeps up to F things for each head without one disturbing the other (Schlag et al.,
2021): with more to keep, it is expected not to know all of them, and nothing is said of how many. Expected is met
where the accuracy is at least 0.95 times what can be known, less two standard errors of the answers, or below that
beyond the capacity. Where copying is learned at one length, another model learns it at the next, because the distance
is another; retrieval is learned at 64 positions, then at one length, and tested at all.
Exponents are of n, by least squares of logarithms over the upper half of the lengths, of a step of the whole model on
one text in float32. Predicted ones of time are fitted to the operations of all its matrix products, those of memory are
of its largest tensors. Memory is by how much a step raises the highest resident memory of a fresh process; a compiled
program has run there before, and what its compiler has freed was given back. The window is trained as a mask, which
computes what it hides. Compiled flex attention leaves that out, and has no backward pass on a CPU (torch 2.13:
"FlexAttention does not support backward on CPU")."""


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
    lines, growths = ["# Long sequences: copying and retrieval", "", shape], measured.growths()
    for name, task in TASKS.items():
        scores = [score for score in measured.scores if score.task == name]
        if not scores and name not in measured.cells:
            continue
        positions = f"Positions are {task.position_encoding}." if task.position_encoding != "none" else "No positions."
        lines += ["", f"## {name.capitalize()}", "", f"{task.what[0].upper()}{task.what[1:]}. {positions}"]
        if scores:
            lines += ["", *_score_lines(scores)]
        for mode in MODES if name in measured.cells else ():
            lines += ["", f"### {mode.capitalize()}", "", *_growth_lines(measured, growths, name, mode)]
            cells = {each: found for each in PROGRAMS if (found := measured.of(name, each, mode))}
            for unit, cell_text in (("milliseconds", _milliseconds), ("MiB", mebibytes)):
                lines += ["", *cell_lines(measured.lengths, cells, unit, cell_text)]
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


def _growth_lines(measured: LongMeasurement, growths: list[Growth], task: str, mode: str) -> list[str]:
    header = ["program", "exponent of time, predicted", "measured", "exponent of memory, predicted", "measured"]
    rows = []
    for name, program in PROGRAMS.items():
        found = [each for each in growths if (each.task, each.program, each.mode) == (task, name, mode)]
        if found:
            memory = "-" if found[0].memory is None else f"{found[0].memory:.2f}"
            times = [f"{value:.2f}" for value in (found[0].expected_time, found[0].time)]
            rows.append([name, *times, str(found[0].expected_memory), memory])
        elif program.is_compiled and measured.of(task, name, MODES[0]):
            rows.append([name, NO_BACKWARD, "", "", ""])
    return format_table(header, *rows)


def _milliseconds(cell: Cell) -> str:
    return f"{cell.median * 1e3:,.1f}"


def _draw(measured: LongMeasurement, path: Path) -> None:
    """A row for each task: accuracy, time of a step in both modes, and memory of one with its backward pass."""
    tasks = [name for name in TASKS if name in {*measured.cells, *(score.task for score in measured.scores)}]
    figure = new_chart(16, 4 * len(tasks))
    from matplotlib.ticker import ScalarFormatter  # an extra, of which `new_chart` has said if it is missing

    for task, row in zip(tasks, figure.subplots(len(tasks), 4, squeeze=False), strict=True):
        _draw_accuracies(row[0], [score for score in measured.scores if score.task == task], TASKS[task].ceiling(0))
        for mode, axes in zip(MODES, row[1:3], strict=True):
            _draw_steps(axes, measured, task, mode, "seconds", lambda cell: cell.median)
        _draw_steps(row[3], measured, task, MODES[-1], "MiB", lambda cell: (cell.peak_bytes or 0) / 2**20)
        for axes in row:
            if not axes.lines:
                axes.set_axis_off()
                continue
            axes.set(xlabel="length n")
            axes.set_title(f"{task}, {axes.get_title()}")
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=DPI)


def _draw_accuracies(axes: Any, scores: list[Score], chance: float) -> None:
    for attention, colour in _COLOURS_OF_ATTENTIONS.items():
        if not (found := [score for score in scores if score.attention == attention]):
            continue
        lengths = [score.length for score in found]
        accuracies = [100 * score.accuracy for score in found]
        axes.plot(lengths, accuracies, color=colour, marker="o", markersize=4, label=attention)
        if attention == LOCAL:
            ceilings = [100 * score.ceiling for score in found]
            axes.plot(lengths, ceilings, color=colour, linestyle=":", label="within its reach")
    if scores:
        axes.axhline(100 * chance, color="grey", linestyle=":", label="chance")
        axes.set(title="learned", ylabel="accuracy, %", ylim=(0, 105))


def _draw_steps(
    axes: Any, measured: LongMeasurement, task: str, mode: str, unit: str, value: Callable[[Cell], float]
) -> None:
    for name, colour in _COLOURS.items():
        points = [(cell.length, value(cell)) for cell in measured.of(task, name, mode) if value(cell)]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, label=name)
            axes.set(title=mode, ylabel=unit, yscale="log")


# An attention has the colour of the program that it is trained by.
_COLOURS_OF_ATTENTIONS = {each.attention: _COLOURS[each.name] for each in PROGRAMS.values() if not each.is_compiled}
