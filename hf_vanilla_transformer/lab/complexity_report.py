"""The measured Table 1: fitted exponents beside those of the paper, all times and peaks, and a chart."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .charts import DPI, new_chart
from .complexity import FORWARD, MODES, Cell, ComplexityMeasurement
from .complexity_layers import ABSENT, CONVOLUTION, GRU, KERNEL_SIZE, LAYER_TYPES, NO_BACKWARD, SDPA, WINDOWED
from .planning import format_table

_COLOURS = dict(
    zip(LAYER_TYPES, ("#aa3377", "#4477aa", "#ccbb44", "#228833", "#ee6677", "#66ccee", "#000000"), strict=True)
)

_LEGEND = """\
Exponents are of n, by least squares of logarithms over the upper half of the lengths. Those that the paper states count
what grows fastest, and leave out the projections of attention, n · d² operations of its own; "expected" is fitted to
all operations of the layer at the same lengths, and is what a machine would show whose every operation takes equally
long. What is stated of linear attention is of its sums (Katharopoulos et al., 2020). The paper states none for memory.
Memory is by how much one step raises the highest resident memory of a fresh process that has the layer and its input;
work space of libraries, such as that of a convolution, is in it and does not grow. A compiled layer has run there
before, and what its compiler has freed was given back. In training on a CPU, what stands as sdpa writes attention out
up to n = 64, which is faster. One sequence, float32; times are medians of repetitions in turns."""


def write_complexity_report(measured: ComplexityMeasurement, settings: dict[str, Any], folder: Path) -> None:
    """Writes `complexity.json`, `complexity.md` and `complexity.png`.

    Args:
        measured: what was measured.
        settings: how, by name; written beside it.
        folder: to write in.

    Raises:
        ValueError: matplotlib is not installed.
    """
    contents = json.dumps({"settings": settings, **measured.as_dict()}, indent=1, ensure_ascii=False)
    (folder / "complexity.json").write_text(contents + "\n", encoding="utf-8")
    lines = complexity_lines(measured, settings)
    (folder / "complexity.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _draw(measured, folder / "complexity.png")


def complexity_lines(measured: ComplexityMeasurement, settings: dict[str, Any]) -> list[str]:
    """Writes what was measured in Markdown.

    Args:
        measured: what was measured.
        settings: how, by name.

    Returns:
        The lines.
    """
    shape = f"d = {measured.d_model}, {measured.num_heads} heads, {measured.threads} threads"
    lines = ["# Table 1, measured", "", ", ".join([shape, *(f"{name} {value}" for name, value in settings.items())])]
    if claims := claim_lines(measured):
        lines += ["", *claims]
    for mode in MODES:
        lines += ["", f"## {mode.capitalize()}", "", *_exponent_lines(measured, mode)]
        cells = {name: measured.of(name, mode) for name in measured.layers(mode)}
        lines += ["", *cell_lines(measured.lengths, cells, "milliseconds", lambda cell: f"{cell.median * 1e3:,.2f}")]
        lines += ["", *cell_lines(measured.lengths, cells, "MiB", mebibytes)]
    return [*lines, "", *_LEGEND.splitlines()]


def claim_lines(measured: ComplexityMeasurement) -> list[str]:
    """Sets what section 4 of the paper says of Table 1 beside what was measured.

    Args:
        measured: what was measured.

    Returns:
        A Markdown table, a row for each claim; nothing if a layer of them is missing.
    """
    if not {SDPA, GRU, CONVOLUTION} <= set(measured.layers()):
        return []
    ratios = _ratios(measured, GRU, SDPA)
    shorter = [f"{ratio:.2f} at {n}" for n, ratio in ratios.items() if n < measured.d_model]
    times = (
        f"time of the GRU over that of attention (sdpa): {', '.join(shorter)}" if shorter else "no length is below d"
    )
    length, ratio = list(_ratios(measured, CONVOLUTION, GRU).items())[-1]
    operations = LAYER_TYPES[CONVOLUTION].operations(1, 1, 1) / LAYER_TYPES[GRU].operations(1, 1, 1)
    return [
        "| claimed in section 4 | measured here, forward |",
        "|---|---|",
        f"| Self-attention is faster than recurrence where n < d | {times if shorter else 'no length is below d'} |",
        f"| Convolution is more expensive than recurrence, by a factor of k = {KERNEL_SIZE} | {ratio:.2f} times the "
        f"GRU's time at n = {length}; a GRU has six matrices where the claim counts one, so that {operations:.2f} "
        "times its operations are left |",
    ]


def complexity_summary(measured: ComplexityMeasurement) -> str:
    """Says in one line what was measured.

    Args:
        measured: what was measured.
    """
    exponents = [
        f"{each.layer} {each.time:.2f} (stated {each.stated})" for each in measured.exponents() if each.mode == FORWARD
    ]
    return f"exponents of time over length, forward: {'; '.join(exponents)}"


def _ratios(measured: ComplexityMeasurement, one: str, other: str) -> dict[int, float]:
    pairs = zip(measured.of(one, FORWARD), measured.of(other, FORWARD), strict=True)
    return {cell.length: cell.median / beside.median for cell, beside in pairs}


def _exponent_lines(measured: ComplexityMeasurement, mode: str) -> list[str]:
    lines = ["| layer | paper | exponent: stated | expected | time | memory |", "|---|---|---|---|---|---|"]
    for each in measured.exponents():
        if each.mode == mode:
            memory = "-" if each.memory is None else f"{each.memory:.2f}"
            complexity = LAYER_TYPES[each.layer].complexity
            numbers = f"{each.stated} | {each.expected:.2f} | {each.time:.2f} | {memory}"
            lines.append(f"| {each.layer} | {complexity} | {numbers} |")
    absent = [] if WINDOWED in measured.layers() else [ABSENT]
    for name in measured.layers():
        if name not in measured.layers(mode):
            layer = LAYER_TYPES[name]
            absent.append((name, layer.complexity, layer.exponent, NO_BACKWARD))
    return [*lines, *(f"| {name} | {form} | {stated} | {why} | | |" for name, form, stated, why in absent)]


def cell_lines(
    lengths: Sequence[int], cells: Mapping[str, Sequence[Cell]], unit: str, cell_text: Callable[[Cell], str]
) -> list[str]:
    """Writes a table of Markdown with a row for each name and a column for each length.

    Args:
        lengths: n, ascending.
        cells: of each length, by name.
        unit: of the numbers, which stands above the names.
        cell_text: what to write of a cell.
    """
    rows = [[name, *map(cell_text, row)] for name, row in cells.items()]
    return format_table([unit, *(f"n = {length}" for length in lengths)], *rows)


def mebibytes(cell: Cell) -> str:
    """Says how much memory a step takes, or "-" where that was not measured."""
    return "-" if cell.peak_bytes is None else f"{cell.peak_bytes / 2**20:,.1f}"


def _draw(measured: ComplexityMeasurement, path: Path) -> None:
    figure = new_chart(10, 8)
    for mode, (times, peaks) in zip(MODES, figure.subplots(2, 2), strict=True):
        for name in measured.layers(mode):
            cells = measured.of(name, mode)
            (exponents,) = (each for each in measured.exponents() if (each.layer, each.mode) == (name, mode))
            label = f"{name}: n^{exponents.time:.2f} (stated {exponents.stated})"
            style = {"color": _COLOURS[name], "marker": "o", "markersize": 4}
            times.plot(measured.lengths, [cell.median * 1e3 for cell in cells], label=label, **style)
            found = [(cell.length, cell.peak_bytes / 2**20) for cell in cells if cell.peak_bytes]
            label = name if exponents.memory is None else f"{name}: n^{exponents.memory:.2f}"
            if found:
                peaks.plot(*zip(*found, strict=True), label=label, **style)
        for axes, what in ((times, "milliseconds"), (peaks, "MiB")):
            axes.set_xscale("log", base=2)
            axes.set(title=mode, xlabel=f"length n (d = {measured.d_model})", ylabel=what, yscale="log")
            axes.set_xticks(measured.lengths, [str(length) for length in measured.lengths])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend(fontsize=8)
    figure.savefig(path, dpi=DPI)
