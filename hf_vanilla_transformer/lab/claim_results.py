"""What others report of a change, beside what the runs of a list found: claims, the table of them, and who agrees."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal, get_args

from ..evaluation.scores import METRICS
from ..training.validation_metrics import is_better_higher
from .claims import Claim, Direction
from .planning import format_table
from .queue_results import divergence_text, last_row, read_rows, score_of
from .run_list import RunList

TITLES = {"loss": "Loss", "perplexity": "Perplexity", **METRICS}
# Differences up to these do not matter: of the logarithm of a perplexity, of a loss, of other scores. The paper calls
# results that differ by 0.1 BLEU "nearly identical" (§6.2).
_LEAST_THAT_MATTERS, _LEAST_OF_SCORES = {"perplexity": math.log(1.01), "loss": 0.01}, 0.1
# Two entries are the same if their difference is within this, whatever chance did.
_SAME_WITHIN, _SAME_WITHIN_OF_SCORES = {"perplexity": math.log(1.03), "loss": 0.03}, 1.0
# So many standard errors of the difference of two means are needed for a difference.
_STANDARD_ERRORS = 2.0
_ROUNDING = 1e-9  # 25.8 - 25.7 is a little more than 0.1

Measured = Direction | Literal["no difference seen"]
Verdict = Literal["agrees", "disagrees", "no difference seen", "no claim", "unknown"]


@dataclass(frozen=True)
class Finding:
    """What a source says of one metric of one entry, and what its runs found.

    Args:
        metric: such as `perplexity`.
        said: number or direction that the source has; None for nothing.
        claimed: what the source's number or word says of the entry beside the one that it is compared with.
        values: of the runs that have ended, one each seed; those that are finite.
        measured: the same of ours, by the rule of `RULE`; None where it cannot be told.
        diverged: how many runs diverged, or have a value that is not finite.
    """

    metric: str
    said: float | Direction | None
    claimed: Direction | None
    values: Sequence[float]
    measured: Measured | None
    diverged: int = 0

    @property
    def verdict(self) -> Verdict:
        """Whether the runs agree with the source."""
        if self.claimed is None:
            return "no claim"
        if self.measured is None:
            return "unknown"
        if self.measured == self.claimed:
            return "agrees"
        return "no difference seen" if self.measured in ("same", "no difference seen") else "disagrees"

    @property
    def divergence(self) -> str:
        """How many of the runs diverged, such as "diverged in 2 of 2"; nothing where none did."""
        return divergence_text(self.diverged, len(self.values) + self.diverged)


@dataclass(frozen=True)
class Comparison:
    """An entry of a list beside the entry that it is compared with.

    Args:
        entry: its name.
        against: name of the other; its own for the one that all are compared with.
        source: who says something of it; empty for nobody.
        findings: by metric.
        missing: how many of its runs have no results of the list's settings.
    """

    entry: str
    against: str
    source: str
    findings: Mapping[str, Finding] = field(default_factory=dict)
    missing: int = 0


RULE = (
    f"Better or worse: the means over seeds differ by more than {_STANDARD_ERRORS:.0f} standard errors, and by more "
    "than what matters: 1 % of a perplexity, 0.01 of a loss, 0.1 of another score. Perplexities are averaged and "
    "compared by their logarithms. A standard error comes from the largest of three standard deviations over seeds: of "
    "either entry, and the usual one, which is the median of all entries, corrected because that of a few runs is "
    "mostly too small. "
    f"Same: the difference and {_STANDARD_ERRORS:.0f} standard errors together are within 3 % of a perplexity, 0.03 of "
    "a loss or 1 of another score. Else no difference was seen, which confirms nothing. An entry of which a run "
    "diverged (a loss, gradient or score was not finite) is worse than one of which none did; of two such entries "
    "nothing can be told. With two seeds and no true difference, chance alone makes about 3 of 100 pairs of entries "
    "differ in a list of thirty entries, and 10 of 100 in a list of two. Runs whose results are of other settings than "
    "the list's are missing. Numbers of a source differ by what matters alone."
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
    lines = read_rows(runs.results)
    entries = list(dict.fromkeys(run.entry for run in runs.runs))
    rows = {entry: [last_row(run, lines) or {} for run in runs.runs if run.entry == entry] for entry in entries}
    metrics = [name for name in TITLES if any(name in claim.says for claim in runs.claims.values())]
    scores: dict[str, dict[str, list[float]]] = {entry: {} for entry in entries}
    for entry, metric in ((entry, metric) for entry in entries for metric in metrics):
        found = [score_of(row, metric) for row in rows[entry]]
        scores[entry][metric] = [score for score in found if score is not None]
    usual = {metric: _usual_spread(metric, [scores[entry][metric] for entry in entries]) for metric in metrics}

    def findings(entry: str, claim: Claim, against: str) -> Iterator[Finding]:
        other = runs.claims.get(against, Claim())
        for metric in metrics:
            said = claim.says.get(metric)
            claimed = measured = None
            if entry != against:
                claimed = said if isinstance(said, str) else _direction_said(metric, said, other.says.get(metric))
                measured = _direction_measured(metric, scores[entry][metric], scores[against][metric], usual[metric])
            values = _finite(scores[entry][metric])
            yield Finding(metric, said, claimed, values, measured, len(scores[entry][metric]) - len(values))

    comparisons = []
    for entry in entries:
        claim = runs.claims.get(entry, Claim())
        against = claim.against or entries[0]
        by_metric = {each.metric: each for each in findings(entry, claim, against)}
        missing = sum("scores" not in row and "diverged_at" not in row for row in rows[entry])
        comparisons.append(Comparison(entry, against, claim.source, by_metric, missing))
    return comparisons


def claims_table(runs: RunList) -> str:
    """Writes claims and findings as a table of Markdown; below it the rule, what it can see, and a count of verdicts.

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
    table = "\n".join(format_table(header, *rows))
    return "\n\n".join([table, RULE, _smallest_differences(comparisons), _count(comparisons)])


def _smallest_differences(comparisons: Sequence[Comparison]) -> str:
    """Says, metric by metric, what the rule takes for a difference where the spread is the usual one."""
    parts = []
    for metric in comparisons[0].findings:
        values = [each.findings[metric].values for each in comparisons]
        if not (numbers := [len(each) for each in values if len(each) > 1]):
            parts.append(f"{TITLES[metric]} not known yet")
            continue
        seeds = statistics.mode(numbers)
        seen = max(_least(metric), _STANDARD_ERRORS * _usual_spread(metric, values) * math.sqrt(2 / seeds))
        size = f"{100 * math.expm1(seen):.1f} %" if metric == "perplexity" else f"{seen:.{_digits(metric)}f}"
        parts.append(f"{TITLES[metric]} {size} ({seeds} seeds)")
    return (
        f"The smallest difference that the rule can see, by the usual spread: {', '.join(parts)}. If the true "
        "difference is just that, it is seen in half of all cases."
    )


def _count(comparisons: Sequence[Comparison]) -> str:
    verdicts = [each.verdict for comparison in comparisons for each in comparison.findings.values()]
    counted = [f"{each} {verdicts.count(each)}" for each in get_args(Verdict) if each != "no claim"]
    return f"Of {len(verdicts) - verdicts.count('no claim')} claims: {', '.join(counted)}."


def said_text(finding: Finding) -> str:
    """Writes what a source says for people, such as "5.29 (worse)"; nothing where it says nothing."""
    if finding.said is None or isinstance(finding.said, str):
        return finding.said or ""
    return f"{finding.said:.2f}" + (f" ({finding.claimed})" if finding.claimed else "")


def mean_of(metric: str, values: Sequence[float]) -> float:
    """Computes the mean of the runs of an entry as the rule compares it.

    Args:
        metric: such as `perplexity`, of which it is the geometric mean.
        values: of the metric, finite, at least one.

    Returns:
        The mean.
    """
    mean = statistics.fmean(_scaled(metric, values))
    return math.exp(mean) if metric == "perplexity" else mean


def _measured(finding: Finding) -> str:
    parts, digits = [], _digits(finding.metric)
    if finding.values:
        mean = mean_of(finding.metric, finding.values)
        parts.append(f"{mean:.{digits}f}")
        if len(finding.values) > 1:
            spread = statistics.stdev(_scaled(finding.metric, finding.values))
            parts[0] += f" ± {spread * mean if finding.metric == 'perplexity' else spread:.{digits}f}"
    if finding.diverged:
        parts.append(finding.divergence)
    return ", ".join(parts) + (f" ({finding.measured})" if finding.measured else "")


def _digits(metric: str) -> int:
    return 3 if metric == "loss" else 2


def _finite(scores: Sequence[float]) -> list[float]:
    return [score for score in scores if math.isfinite(score)]


def _scaled(metric: str, values: Sequence[float]) -> list[float]:
    """Values as they are compared: perplexities by their logarithms, which differ by ratios."""
    return [math.log(value) for value in values] if metric == "perplexity" else list(values)


def _least(metric: str) -> float:
    return _LEAST_THAT_MATTERS.get(metric, _LEAST_OF_SCORES)


def _usual_spread(metric: str, values: Sequence[Sequence[float]]) -> float:
    """The standard deviation over seeds that entries have in the middle, on the scale on which they are compared."""
    finite = [_scaled(metric, _finite(each)) for each in values]
    spreads = [statistics.stdev(each) / _median_of_spreads(len(each)) for each in finite if len(each) > 1]
    return statistics.median(spreads) if spreads else 0.0


def _median_of_spreads(seeds: int) -> float:
    """The median of standard deviations of so many values, of the true one: 0.67 for two, 0.83 for three.

    The square root of the median of chi-square with seeds - 1 degrees of freedom, divided by these: exact for one
    degree, by the cubes of Wilson and Hilferty (1931) for more.
    """
    degrees = seeds - 1
    if degrees == 1:
        return NormalDist().inv_cdf(0.75)
    return math.sqrt((1 - 2 / (9 * degrees)) ** 3)


def _direction_said(metric: str, ours: float | None, theirs: float | Direction | None) -> Direction | None:
    if ours is None or theirs is None or isinstance(theirs, str):
        return None
    ours, theirs = _scaled(metric, [ours, theirs])
    return _direction(metric, ours - theirs, _least(metric)) or "same"


def _direction_measured(metric: str, ours: Sequence[float], theirs: Sequence[float], usual: float) -> Measured | None:
    """Compares the scores of two entries by the rule of `RULE`; those of runs that diverged are not finite."""
    if not ours or not theirs:
        return None
    values = [_scaled(metric, _finite(each)) for each in (ours, theirs)]
    have_diverged = [len(finite) < len(each) for finite, each in zip(values, (ours, theirs), strict=True)]
    if any(have_diverged):
        return None if all(have_diverged) else "worse" if have_diverged[0] else "better"
    if min(map(len, values)) < 2:  # one run says nothing of the spread
        return None
    spread = max(*map(statistics.stdev, values), usual)
    chance = _STANDARD_ERRORS * spread * math.sqrt(sum(1 / len(each) for each in values))
    difference = statistics.fmean(values[0]) - statistics.fmean(values[1])
    if direction := _direction(metric, difference, max(chance, _least(metric))):
        return direction
    within = _SAME_WITHIN.get(metric, _SAME_WITHIN_OF_SCORES)
    return "same" if abs(difference) + chance <= within + _ROUNDING else "no difference seen"


def _direction(metric: str, difference: float, margin: float) -> Direction | None:
    """What a difference of more than the margin means; None for one of less."""
    if abs(difference) <= margin + _ROUNDING:
        return None
    return "better" if (difference > 0) == is_better_higher(metric) else "worse"
