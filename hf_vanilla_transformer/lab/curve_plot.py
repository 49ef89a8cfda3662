"""Validation scores over wall time, a line for each run of a list: what a change buys, and what it costs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..training.checkpoints import last_good_checkpoint
from .charts import new_chart, save_chart
from .claim_plot import check_format
from .claim_results import TITLES
from .queue import run_states
from .queue_results import curve_of
from .run_list import QueuedRun, RunList

Curve = list[dict[str, float]]
_STYLES = ("-", "--", ":", "-.")  # after as many entries as there are colors, the next of these


def read_curves(runs: RunList) -> dict[str, Curve]:
    """Reads what validation found in the runs of a list: of those that have ended, and of those that are on their way.

    Args:
        runs: the list.

    Returns:
        Points, as `curve_of` has them, by name of the run, in the order of the list; without runs that have none.

    Raises:
        OSError: a file cannot be read.
        ValueError: the results of a run are of other settings, or a file of results is damaged.
    """
    states = run_states(runs)
    curves = {run.name: (states[run.name].row or {}).get("curve") or _curve_so_far(run) for run in runs.runs}
    return {name: curve for name, curve in curves.items() if curve}


def _curve_so_far(run: QueuedRun) -> Curve:
    checkpoint = last_good_checkpoint(run.output_dir)
    if checkpoint is None:
        return []
    return curve_of(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"])


def plot_curves(runs: RunList, path: str | Path) -> None:
    """Draws validation scores over the minutes that runs took, a panel for each score.

    Runs of one entry, which differ by their seed, have one color. The last point of a run that has ended is of the
    weights that it ended with, such as the average of its checkpoints. Minutes of different machines, or of one that
    did other work too, cannot be compared.

    Args:
        runs: the list.
        path: the picture, .png, .svg or .pdf; it appears whole or not at all.

    Raises:
        OSError: a file cannot be read, or the picture cannot be written.
        ValueError: as `read_curves`; or matplotlib is not installed, the name has another ending, or no run has been
            validated yet.
    """
    check_format(path)
    curves = read_curves(runs)
    if not curves:
        raise ValueError(f"{runs.path} has nothing to draw: no run has validation scores yet")
    save_chart(_draw(curves, {run.name: run.entry for run in runs.runs}), path, dpi=110)


def _draw(curves: Mapping[str, Curve], entries: Mapping[str, str]) -> Any:
    found = {name for curve in curves.values() for point in curve for name in point}
    metrics = [name for name in TITLES if name in found and name != "perplexity"]
    figure = new_chart(1 + 5 * len(metrics), 4 + 0.25 * (len(curves) // 4))
    from matplotlib import colormaps  # an extra, of which `new_chart` has said if it is missing

    colors = colormaps["tab10"].colors  # type: ignore[attr-defined]
    drawn = list(dict.fromkeys(entries[name] for name in curves))
    labels = {entries[name]: name for name in reversed(list(curves))}  # the first seed of an entry has its label
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for name, curve in curves.items():
            place = drawn.index(entries[name])
            look = {"color": colors[place % len(colors)], "linestyle": _STYLES[place // len(colors) % len(_STYLES)]}
            points = [(point["minutes"], point[metric]) for point in curve if metric in point]
            label = entries[name] if labels[entries[name]] == name else None
            axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=label, **look)
        axes.set(title=f"validation: {TITLES[metric]}", xlabel="minutes")
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


__all__ = ["plot_curves", "read_curves"]
