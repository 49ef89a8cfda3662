"""A picture of claims beside findings: a line for each entry, a panel for each metric."""

from pathlib import Path
from typing import Any

from ..training.validation_metrics import is_better_higher
from .charts import new_chart, save_chart
from .claim_results import TITLES, Comparison, compare, mean_of, said_text
from .run_list import RunList

_COLORS = {"agrees": "tab:green", "disagrees": "tab:red", "no difference seen": "tab:orange"}
_OTHERS = "tab:gray"
FORMATS = (".png", ".svg", ".pdf")


def plot_claims(runs: RunList, path: str | Path) -> None:
    """Draws what `claims_table` has: the runs of each entry as dots, their mean as a bar, and what the source says.

    The dashed line is the mean of the first entry of the list, where it has results. The colour says whether the runs
    agree with the source, whose number or word is at the right edge. Runs that diverged are a cross at the edge where
    the worst values are, and are counted at the right.

    Args:
        runs: the list.
        path: the picture, .png, .svg or .pdf; it appears whole or not at all.

    Raises:
        OSError: the picture cannot be written.
        ValueError: matplotlib is not installed, the name has another ending, no entry has a claim, or no run has ended.
    """
    check_format(path)
    first, *others = compare(runs)
    ended = [each for each in [first, *others] if any(one.values or one.diverged for one in each.findings.values())]
    if not ended:
        raise ValueError(f"{runs.path} has nothing to draw: no run of an entry with a claim is in {runs.results}")
    save_chart(_draw(ended, first), path, dpi=110)


def check_format(path: str | Path) -> None:
    """Refuses the name of a picture of a list of runs that has none of the `FORMATS`, before anything is read.

    Args:
        path: the picture.

    Raises:
        ValueError: it has another ending.
    """
    if Path(path).suffix not in FORMATS:
        raise ValueError(f"{path}: a picture ends in {', '.join(FORMATS)}")


def _draw(comparisons: list[Comparison], first: Comparison) -> Any:
    metrics = list(first.findings)
    figure = new_chart(3 + 5 * len(metrics), 1.5 + 0.3 * len(comparisons))
    from matplotlib.ticker import LogFormatter  # an extra, of which `new_chart` has said if it is missing

    for axes, metric in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics, strict=True):
        for place, each in enumerate(comparisons):
            _draw_finding(axes, place, each, metric, first.entry)
        if values := first.findings[metric].values:
            axes.axvline(mean_of(metric, values), color="black", linewidth=0.8, linestyle="--")
        axes.set(title=f"{TITLES[metric]}: measured; at the right, said", ylim=(len(comparisons) - 0.5, -0.5))
        axes.set_yticks(range(len(comparisons)), [each.entry for each in comparisons])
        if metric == "perplexity":  # that of a model which learns nothing is that of a hundred which do
            axes.set_xscale("log")
            for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
                set_formatter(LogFormatter(minor_thresholds=(1, 0.4)))  # 9 and 10 rather than powers of ten
        axes.grid(alpha=0.3)
    handles = [axes.plot([], [], "o", color=color, label=verdict)[0] for verdict, color in _COLORS.items()]
    handles += axes.plot([], [], "o", color=_OTHERS, label="no claim, or unknown")
    if any(finding.diverged for each in comparisons for finding in each.findings.values()):
        handles += axes.plot([], [], "x", color=_OTHERS, label="diverged")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _draw_finding(axes: Any, place: int, comparison: Comparison, metric: str, first: str) -> None:
    finding = comparison.findings[metric]
    color = _COLORS.get(finding.verdict, _OTHERS)
    axes.plot(finding.values, [place] * len(finding.values), "o", color=color, markersize=4, alpha=0.7)
    if finding.values:
        axes.plot([mean_of(metric, finding.values)], [place], "|", color=color, markersize=12, markeredgewidth=2)
    text = said_text(finding)
    if text and comparison.against != first:
        text += f", against {comparison.against}"
    if finding.diverged:
        edge = 0.0 if is_better_higher(metric) else 1.0
        by_axes = axes.get_yaxis_transform()
        axes.plot([edge], [place], "x", color=color, markersize=7, transform=by_axes, clip_on=False)
        text = "; ".join(filter(None, [text, finding.divergence]))
    beside = {"xy": (1, place), "xycoords": ("axes fraction", "data"), "xytext": (6, 0), "textcoords": "offset points"}
    axes.annotate(text, **beside, va="center", fontsize=8)
