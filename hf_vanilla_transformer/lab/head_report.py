"""The findings of a head analysis as a ranked table, a bar chart, and a line for each claim of the literature."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from .charts import DPI, new_chart
from .head_losses import POSITIONAL, HeadAnalysis, HeadFinding
from .heads import KINDS

_COLOURS = {"encoder": "#4477aa", "decoder": "#ccbb44", "cross": "#aa3377"}
_SHARES = ("previous", "same", "following", "end", "start")

_LEGEND = f"""\
Heads are numbered LAYER.HEAD, both from 1, and ranked by what is lost. ± is half the width of the 95 % interval by
paired bootstrap over sentences; `*` marks losses whose interval leaves out 0, as those of about one useless head in
twenty do by chance. Confidence is the mean of a query's greatest weight, in which `</s>` does not count (Voita et al.,
2019, section 4); entropy is in nats. The shares are of the weight: on the token before, the token itself, the one
after, the end of the source, and `<s>`, which is the first that the decoder reads. A head is positional if its greatest
weight is on the token before, or on the one after, for at least {POSITIONAL:.0%} of the tokens (Voita et al., section
5.1). Attention is measured on sources and references, losses on translations that the model makes without the head."""


def write_head_report(analysis: HeadAnalysis, settings: dict[str, Any], folder: Path) -> None:
    """Writes `heads.json`, `heads.md` and `heads.png`.

    Args:
        analysis: what was found.
        settings: how, by name; written beside the findings.
        folder: to write in.

    Raises:
        ValueError: matplotlib is not installed.
    """
    contents = {"settings": settings, **analysis.as_dict()}
    (folder / "heads.json").write_text(json.dumps(contents, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "heads.md").write_text("\n".join(head_lines(analysis, settings)) + "\n", encoding="utf-8")
    _draw(analysis, folder / "heads.png")


def head_lines(analysis: HeadAnalysis, settings: dict[str, Any]) -> list[str]:
    """Writes the findings in Markdown.

    Args:
        analysis: what was found.
        settings: how, by name.

    Returns:
        The lines.
    """
    rows = ["| | head | BLEU lost | confidence | entropy | previous | same | next | `</s>` | `<s>` | positional |"]
    rows.append("|" + "---|" * 11)
    for rank, each in enumerate(analysis.ranked(), start=1):
        statistics = each.statistics
        shares = [getattr(statistics, name) for name in _SHARES]
        cells = [str(rank), str(each.head), _loss(each), f"{statistics.confidence:.2f}", f"{statistics.entropy:.2f}"]
        cells += ["" if share is None else f"{share:.2f}" for share in shares]
        rows.append(f"| {' | '.join([*cells, (each.position or '').replace('following', 'next')])} |")
    whole = analysis.whole
    interval = "" if whole.interval is None else f" ± {whole.interval:.2f}"
    return [
        "# Attention heads",
        "",
        ", ".join(f"{name} {value}" for name, value in settings.items()),
        "",
        f"All heads: BLEU {whole.value:.2f}{interval} on {analysis.sentences} sentences ({whole.signature})",
        "",
        *claim_lines(analysis),
        "",
        *rows,
        "",
        *_LEGEND.splitlines(),
    ]


def claim_lines(analysis: HeadAnalysis) -> list[str]:
    """Sets what papers found of other models beside what was found here.

    Args:
        analysis: what was found.

    Returns:
        A Markdown table, a row for each claim.
    """
    encoder = analysis.of("encoder")
    significant = [each for each in encoder if each.is_significant]
    measured = "not tested: no samples were drawn"
    if analysis.whole.interval is not None:
        better = sum(each.loss < 0 for each in significant)
        measured = f"{len(significant)} of {len(encoder)} at the 95 % level, {better} of them by a higher BLEU"
    positional = sum(each.position is not None for each in encoder)
    confident = sum(each.statistics.confidence > 0.8 for each in analysis.findings)
    agreements = [f"{kind} {_signed(analysis.agreement(kind))}" for kind in KINDS]
    means = [f"{kind} {_signed(fmean(each.loss for each in analysis.of(kind)))}" for kind in KINDS if analysis.of(kind)]
    rows = [
        (
            "Of 96 heads of encoder self-attention, 8 change BLEU significantly (p < 0.01) if they alone are removed, "
            "half of them by a higher BLEU (Michel et al., 2019, section 3.2)",
            measured,
        ),
        (
            "Some heads of encoder self-attention are positional (Voita et al., 2019, section 5.1)",
            f"{positional} of {len(encoder)}",
        ),
        (
            "A few heads are very confident: more than 0.8 (Voita et al., section 4)",
            f"{confident} of {len(analysis.findings)} heads of all kinds",
        ),
        (
            "A head's importance agrees, to a reasonable extent, with its confidence (Voita et al., section 4, by "
            "layer-wise relevance)",
            f"rank correlation of confidence and loss: {', '.join(agreements)}",
        ),
        (
            "Cross-attention depends most on its heads (Michel et al., section 5)",
            f"mean BLEU lost by a head: {', '.join(means)}",
        ),
    ]
    return [
        "| claimed, of other models | measured here |",
        "|---|---|",
        *(f"| {one} | {other} |" for one, other in rows),
    ]


def head_summary(analysis: HeadAnalysis) -> str:
    """Says in one line what was found.

    Args:
        analysis: what was found.
    """
    ranked = analysis.ranked()
    most, least = ranked[0], ranked[-1]
    line = f"{len(ranked)} heads, BLEU {analysis.whole.value:.2f} with all: most is lost without {most.head}"
    line += f" ({_loss(most)}), least without {least.head} ({_loss(least)})"
    if analysis.whole.interval is not None:
        line += f"; {sum(each.is_significant for each in ranked)} losses differ from 0"
    return line


def _loss(finding: HeadFinding) -> str:
    interval = "" if finding.interval is None else f" ± {finding.interval:.2f}"
    return f"{finding.loss:+.2f}{interval}{' *' if finding.is_significant else ''}"


def _signed(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.2f}"


def _draw(analysis: HeadAnalysis, path: Path) -> None:
    ranked = analysis.ranked()
    figure = new_chart(8, max(3.0, 1.2 + 0.17 * len(ranked)))
    axes = figure.subplots()
    for kind, title in KINDS.items():
        places = [place for place, each in enumerate(ranked) if each.head.kind == kind]
        found = [ranked[place] for place in places]
        errors = None if analysis.whole.interval is None else [each.interval for each in found]
        losses = [each.loss for each in found]
        axes.barh(
            places, losses, xerr=errors, color=_COLOURS[kind], label=title, ecolor="#555555", error_kw={"lw": 0.8}
        )
    axes.set_yticks(range(len(ranked)), [str(each.head) for each in ranked], fontsize=7)
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel=f"BLEU lost without the head (of {analysis.whole.value:.2f}, {analysis.sentences} sentences)")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=DPI)
