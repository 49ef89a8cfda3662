"""What others report of a change, beside what the runs of a list found: claims, the table of them, and who agrees."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from ..evaluation.scores import METRICS
from ..training.validation_metrics import is_better_higher
from .claims import Claim, Direction
from .planning import format_table
from .queue_results import latest_rows, read_rows
from .run_list import RunList

TITLES = {"loss": "Loss", "perplexity": "Perplexity", **METRICS}
# Differences up to these are none: of a perplexity a hundredth of it, of others so much. The paper calls results that
# differ by 0.1 BLEU "nearly identical" (§6.2).
_SAME_PERPLEXITY, _SAME_LOSS, _SAME_SCORE = 0.01, 0.01, 0.1
# So many standard errors of the difference of two means are needed for a difference.
_STANDARD_ERRORS = 2.0

Verdict = Literal["agrees", "disagrees", "no difference seen", "no claim", "unknown"]


@dataclass(frozen=True)
class Finding:
    """What a source says of one metric of one entry, and what its runs found.

    Args:
        metric: such as `perplexity`.
        said: number or direction that the source has; None for nothing.
        claimed: what the source's number or word says of the entry beside the one that it is compared with.
        values: of the runs that have ended, one each seed.
        measured: the same of ours, by the rule of `RULE`; None where it cannot be told.
    """

    metric: str
    said: float | Direction | None
    claimed: Direction | None
    values: Sequence[float]
    measured: Direction | None

    @property
    def verdict(self) -> Verdict:
        """Whether the runs agree with the source."""
        if self.claimed is None:
            return "no claim"
        if self.measured is None:
            return "unknown"
        if self.measured == self.claimed:
            return "agrees"
        return "no difference seen" if self.measured == "same" else "disagrees"


@dataclass(frozen=True)
class Comparison:
    """An entry of a list beside the entry that it is compared with.

    Args:
        entry: its name.
        against: name of the other; its own for the one that all are compared with.
        source: who says something of it; empty for nobody.
        findings: by metric.
        missing: how many of its runs have no results.
    """

    entry: str
    against: str
    source: str
    findings: Mapping[str, Finding] = field(default_factory=dict)
    missing: int = 0


RULE = (
    f"Better or worse: the means differ by more than {_STANDARD_ERRORS:.0f} standard errors, from the largest of three "
    "standard deviations over seeds (of either entry, and the median of all entries), and by more than 1 % of a "
    "perplexity, 0.01 of a loss or 0.1 of another score; else the same. Numbers of a source differ by the latter alone."
)


def compare(runs: RunList) -> list[Comparison]:
    """Puts what sources say of the entries of a list beside what the file of results has.

    Args:
        runs: the list.

    Returns:
        A comparison for each entry, in the order of the list.

    Raises:
        OSError: the file of results cannot be read.
        ValueError: it is damaged.
    """
    rows = latest_rows(read_rows(runs.results))
    entries = list(dict.fromkeys(run.entry for run in runs.runs))
    names = {entry: [run.name for run in runs.runs if run.entry == entry] for entry in entries}
    metrics = [name for name in TITLES if any(name in claim.says for claim in runs.claims.values())]
    values: dict[str, dict[str, list[float]]] = {entry: {} for entry in entries}
    for entry, metric in ((entry, metric) for entry in entries for metric in metrics):
        found = [rows[name].get("scores", {}).get(metric) for name in names[entry] if name in rows]
        values[entry][metric] = [value for value in found if value is not None]
    usual = {metric: _usual_spread([values[entry][metric] for entry in entries]) for metric in metrics}

    def findings(entry: str, claim: Claim, against: str) -> Iterator[Finding]:
        other = runs.claims.get(against, Claim())
        for metric in metrics:
            said = claim.says.get(metric)
            claimed = measured = None
            if entry != against:
                claimed = said if isinstance(said, str) else _direction_said(metric, said, other.says.get(metric))
                measured = _direction_measured(metric, values[entry][metric], values[against][metric], usual[metric])
            yield Finding(metric, said, claimed, values[entry][metric], measured)

    comparisons = []
    for entry in entries:
        claim = runs.claims.get(entry, Claim())
        against = claim.against or entries[0]
        by_metric = {each.metric: each for each in findings(entry, claim, against)}
        missing = sum("scores" not in rows.get(name, {}) for name in names[entry])
        comparisons.append(Comparison(entry, against, claim.source, by_metric, missing))
    return comparisons


def claims_table(runs: RunList) -> str:
    """Writes claims and findings as a table of Markdown, with the rule of agreement and a count below it.

    Args:
        runs: the list.

    Returns:
        The table; nothing where no entry has a claim.

    Raises:
        OSError: the file of results cannot be read.
        ValueError: it is damaged.
    """
    comparisons = compare(runs)
    metrics = list(comparisons[0].findings)
    if not metrics:
        return ""
    titles = [TITLES[metric] for metric in metrics]
    header = ["Run", "Against", "Source", *(f"{title}, said" for title in titles)]
    header += [*(f"{title}, measured" for title in titles), "Runs agree"]
    rows = []
    for each in comparisons:
        findings = each.findings.values()
        cells = [each.entry, "" if each.against == each.entry else each.against, each.source.replace("|", "\\|")]
        cells += [said_text(finding) for finding in findings]
        cells += [_measured(finding) for finding in findings]
        verdicts = [f"{TITLES[each.metric]} {each.verdict}" for each in findings if each.verdict != "no claim"]
        cells.append("; ".join(verdicts) + (f" ({each.missing} missing)" if each.missing else ""))
        rows.append([cell.strip() for cell in cells])
    return "\n".join([*format_table(header, *rows), "", RULE, "", _count(comparisons)])


def _count(comparisons: Sequence[Comparison]) -> str:
    verdicts = [each.verdict for comparison in comparisons for each in comparison.findings.values()]
    counted = [f"{each} {verdicts.count(each)}" for each in get_args(Verdict) if each != "no claim"]
    return f"Of {len(verdicts) - verdicts.count('no claim')} claims: {', '.join(counted)}."


def said_text(finding: Finding) -> str:
    """Writes what a source says for people, such as "5.29 (worse)"; nothing where it says nothing."""
    if finding.said is None or isinstance(finding.said, str):
        return finding.said or ""
    return f"{finding.said:.2f}" + (f" ({finding.claimed})" if finding.claimed else "")


def _measured(finding: Finding) -> str:
    if not finding.values:
        return ""
    digits = 3 if finding.metric == "loss" else 2
    text = f"{statistics.fmean(finding.values):.{digits}f}"
    if len(finding.values) > 1:
        text += f" ± {statistics.stdev(finding.values):.{digits}f}"
    return text + (f" ({finding.measured})" if finding.measured else "")


def _usual_spread(values: Sequence[Sequence[float]]) -> float:
    spreads = [statistics.stdev(each) for each in values if len(each) > 1]
    return statistics.median(spreads) if spreads else 0.0


def _direction_said(metric: str, ours: float | None, theirs: float | Direction | None) -> Direction | None:
    if ours is None or theirs is None or isinstance(theirs, str):
        return None
    return _direction(metric, ours, theirs, 0.0)


def _direction_measured(metric: str, ours: Sequence[float], theirs: Sequence[float], usual: float) -> Direction | None:
    if len(ours) < 2 or len(theirs) < 2:  # one run says nothing of the spread
        return None
    spread = max(statistics.stdev(ours), statistics.stdev(theirs), usual)
    error = spread * math.sqrt(1 / len(ours) + 1 / len(theirs))
    return _direction(metric, statistics.fmean(ours), statistics.fmean(theirs), _STANDARD_ERRORS * error)


def _direction(metric: str, ours: float, theirs: float, margin: float) -> Direction:
    least = {"perplexity": _SAME_PERPLEXITY * theirs, "loss": _SAME_LOSS}.get(metric, _SAME_SCORE)
    if abs(ours - theirs) <= max(margin, least) + 1e-9:  # 25.8 - 25.7 is a little more than 0.1
        return "same"
    return "better" if (ours > theirs) == is_better_higher(metric) else "worse"
