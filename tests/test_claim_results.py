"""Claims beside findings: directions, verdicts, and the table."""

import math
import re
import statistics

import numpy as np
import pytest
import torch
from queue_lists import pretend_to_train, write_list

from hf_vanilla_transformer.lab import claim_results
from hf_vanilla_transformer.lab.claim_results import claims_table, compare, mean_of
from hf_vanilla_transformer.lab.queue_results import append_row, failure_row, finished_results, row_of
from hf_vanilla_transformer.lab.run_list import read_run_list

SEEDS = [1, 2]
DIVERGED = "diverged"


def ended(folder, entries, metric="bleu"):
    """A list whose runs have ended with these scores: by entry, its claim and a score for each seed; None failed."""
    errors = {None: "no room", DIVERGED: "update 7: the loss is nan. It comes of sentences 1, 2"}
    runs = [
        {"name": name, "seeds": SEEDS, **({"claim": claim} if claim else {})} for name, (claim, _) in entries.items()
    ]
    for run in runs:
        run["output_dir"] = str(folder / run["name"])
    runs = read_run_list(write_list(folder, runs))
    for run in runs.runs:
        scores = entries[run.entry][1]
        if len(scores) >= run.arguments.seed:
            score = scores[run.arguments.seed - 1]
            if score in errors:
                append_row(runs.results, failure_row(run, errors[score]))
                continue
            pretend_to_train(run, **{metric: score})
            append_row(runs.results, row_of(run, finished_results(run)))
    return runs


def said(**metrics):
    return {"source": "a", **metrics}


@pytest.mark.parametrize(
    ("metric", "theirs", "ours", "claimed"),
    [
        ("bleu", 25.8, 24.9, "worse"),
        ("bleu", 25.8, 25.7, "same"),  # which the paper calls nearly identical, and floats a little more than 0.1
        ("bleu", 25.8, 26.2, "better"),
        ("perplexity", 4.92, 5.29, "worse"),
        ("perplexity", 4.92, 4.88, "same"),  # 0.8 %
        ("perplexity", 4.92, 4.67, "better"),
        ("perplexity", 49.2, 49.6, "same"),
        ("loss", 1.6, 1.605, "same"),
        ("loss", 1.6, 1.7, "worse"),
        ("wer", 12.0, 11.5, "better"),
    ],
)
def test_numbers_of_a_source_are_compared_with_those_of_its_other_entry(tmp_path, metric, theirs, ours, claimed):
    runs = ended(tmp_path, {"base": (said(**{metric: theirs}), []), "changed": (said(**{metric: ours}), [])})
    base, changed = compare(runs)
    assert (changed.findings[metric].claimed, changed.findings[metric].said) == (claimed, ours)
    assert (base.findings[metric].claimed, base.findings[metric].verdict) == (None, "no claim")
    assert (changed.against, changed.findings[metric].verdict, changed.missing) == ("base", "unknown", 2)


@pytest.mark.parametrize(
    ("metric", "base", "changed", "measured"),
    [
        ("bleu", [20.0, 20.2], [21.0, 21.2], "better"),  # 1.0 apart, 2 standard errors are 2 * 0.14
        ("bleu", [20.0, 20.2], [19.0, 19.2], "worse"),
        ("bleu", [20.0, 21.0], [20.6, 21.6], "no difference seen"),  # 0.6 apart, 2 standard errors are 2 * 0.71
        ("bleu", [20.0, 20.0], [22.0, 19.0], "no difference seen"),  # the greater spread counts
        ("bleu", [20.0, 20.1], [20.2, 20.1], "same"),  # 0.1 apart, and 2 standard errors are 0.21
        ("bleu", [20.0, 20.0], [20.1, 20.1], "same"),  # too little to matter
        ("bleu", [20.0, 20.0], [20.2, 20.2], "better"),
        ("perplexity", [10.0, 10.0], [10.05, 10.05], "same"),
        ("perplexity", [10.0, 10.0], [11.0, 11.0], "worse"),
        ("perplexity", [10.0, 10.1], [9.0, 9.1], "better"),
        ("perplexity", [2.0, 2.02], [200.0, 600.0], "worse"),  # 2 standard errors are a factor of 4.7, or 566
    ],
)
def test_ours_differ_by_more_than_their_spread_over_seeds(tmp_path, metric, base, changed, measured):
    runs = ended(tmp_path, {"base": (said(**{metric: 10.0}), base), "changed": (None, changed)}, metric)
    (finding,) = compare(runs)[1].findings.values()
    assert (finding.measured, list(finding.values)) == (measured, changed)


def test_the_spread_of_the_other_entries_counts_where_two_runs_happen_to_agree(tmp_path):
    entries = {"base": (said(bleu=20.0), [20.0, 20.0]), "changed": (None, [20.5, 20.5])}
    assert compare(ended(tmp_path, entries))[1].findings["bleu"].measured == "better"
    (tmp_path / "more").mkdir()
    entries |= {name: (None, [20.0, 21.0]) for name in "cde"}
    assert compare(ended(tmp_path / "more", entries))[1].findings["bleu"].measured == "no difference seen"


@pytest.mark.parametrize("seeds", range(2, 9))
def test_the_usual_spread_is_corrected_by_the_median_of_chi_square(seeds):
    degrees = torch.tensor(seeds - 1, dtype=torch.float64)
    median = degrees * claim_results._median_of_spreads(seeds) ** 2
    assert torch.special.gammainc(degrees / 2, median / 2).item() == pytest.approx(0.5, abs=0.005)


def test_chance_makes_few_differences_where_there_are_none():
    """Thirty entries with equal true means and two seeds, sixty times; each entry is compared once."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(60):
        scores = random.normal(30.0, 1.0, (30, 2)).tolist()
        usual = claim_results._usual_spread("bleu", scores)
        pairs = zip(scores[::2], scores[1::2], strict=True)
        found += [claim_results._direction_measured("bleu", ours, theirs, usual) for ours, theirs in pairs]
    assert 0.01 < sum(each in ("better", "worse") for each in found) / len(found) < 0.06


def test_perplexities_are_compared_by_their_ratios(tmp_path):
    base, changed, beside = [10.0, 10.4], [11.6, 12.0], [10.1, 10.6]
    outcomes = []
    for factor in (1, 100):
        folder = tmp_path / str(factor)
        folder.mkdir()
        values = [[factor * value for value in each] for each in (base, changed, beside)]
        entries = {name: (said(perplexity=10.0), each) for name, each in zip("abc", values, strict=True)}
        runs = ended(folder, entries, "perplexity")
        outcomes.append([each.findings["perplexity"].measured for each in compare(runs)])
        assert mean_of("perplexity", values[0]) == pytest.approx(math.prod(values[0]) ** 0.5)
        assert f"| {mean_of('perplexity', values[1]):.2f} ± " in claims_table(runs)
    assert outcomes[0] == outcomes[1] == [None, "worse", "no difference seen"]


def test_the_smallest_difference_that_can_be_seen_is_said(tmp_path):
    """Beside an entry of the usual spread, just more than it is a difference, and just less is none."""
    shifted = {f"up-{shift}": (None, [20.0 + shift, 21.0 + shift]) for shift in (2.0, 2.2)}
    runs = ended(tmp_path, {"base": (said(bleu=25.8, chrf=50.0), [20.0, 21.0]), **shifted})
    smallest = claims_table(runs).split("\n\n")[2]
    usual = statistics.stdev([20.0, 21.0]) / statistics.NormalDist().inv_cdf(0.75)
    assert f"BLEU {2 * usual:.2f} (2 seeds), chrF not known yet" in smallest
    assert 2.0 < float(re.search(r"BLEU ([\d.]+)", smallest)[1]) < 2.2
    assert [each.findings["bleu"].measured for each in compare(runs)[1:]] == ["no difference seen", "better"]


@pytest.mark.parametrize(
    ("claim", "scores", "verdict"),
    [
        ("worse", [19.0, 19.0], "agrees"),
        ("worse", [21.0, 21.0], "disagrees"),
        ("worse", [20.0, 20.0], "no difference seen"),
        ("same", [20.0, 20.0], "agrees"),
        ("same", [19.0, 19.0], "disagrees"),
        ("same", [19.0, 21.0], "no difference seen"),  # noise confirms nothing
        ("worse", [19.0, 21.0], "no difference seen"),
        ("better", [21.0], "unknown"),  # one run says nothing of the spread
        ("better", [21.0, None], "unknown"),
        ("better", [], "unknown"),
    ],
)
def test_verdicts(tmp_path, claim, scores, verdict):
    runs = ended(tmp_path, {"base": (None, [20.0, 20.0]), "changed": (said(bleu=claim), scores)})
    changed = compare(runs)[1]
    assert changed.findings["bleu"].verdict == verdict
    assert changed.missing == 2 - len([score for score in scores if score is not None])


@pytest.mark.parametrize(
    ("base", "changed", "measured"),
    [
        ([20.0, 21.0], [DIVERGED, 30.0], "worse"),
        ([20.0, 21.0], [DIVERGED, DIVERGED], "worse"),
        ([20.0, 21.0], [30.0, math.inf], "worse"),
        ([20.0, 21.0], [math.nan, math.nan], "worse"),
        ([20.0], [DIVERGED], "worse"),
        ([DIVERGED, 30.0], [20.0, 21.0], "better"),
        ([DIVERGED, 30.0], [20.0, DIVERGED], None),
        ([], [DIVERGED, DIVERGED], None),
        ([None, None], [DIVERGED, 20.0], None),
    ],
)
def test_a_run_that_diverged_is_worse_than_any_other(tmp_path, base, changed, measured):
    runs = ended(tmp_path, {"base": (None, base), "changed": (said(bleu="worse"), changed)})
    finding = compare(runs)[1].findings["bleu"]
    lost = [each for each in changed if each == DIVERGED or not math.isfinite(each)]
    assert (finding.measured, finding.diverged) == (measured, len(lost))
    assert list(finding.values) == [each for each in changed if each not in lost]
    assert finding.verdict == {"worse": "agrees", "better": "disagrees", None: "unknown"}[measured]
    assert compare(runs)[1].missing == 2 - len(changed)
    said_so = f"diverged in {len(lost)} of {len(changed)}" + (f" ({measured})" if measured else "")
    assert (said_so in claims_table(runs)) == bool(lost)


def test_results_of_other_settings_are_missing(tmp_path):
    runs = ended(tmp_path, {"base": (None, [20.0, 20.0]), "changed": (said(bleu="worse"), [19.0, 19.0])})
    for options, missing in (({"logging_steps": 7}, 0), ({"max_steps": 3}, 2)):
        entry = {"name": "changed", "seeds": SEEDS, "claim": said(bleu="worse"), **options}
        now = read_run_list(write_list(tmp_path, [{"name": "base", "seeds": SEEDS}, entry]))
        assert now.results == runs.results
        base, changed = compare(now)
        assert (base.missing, changed.missing, len(changed.findings["bleu"].values)) == (0, missing, 2 - missing)


def test_the_table_has_claims_and_findings_and_counts_the_verdicts(tmp_path):
    entries = {
        "base": (said(bleu=25.8), [20.0, 20.5]),
        "one": (said(bleu=24.9), [15.0, 15.5]),
        "two": ({**said(bleu="better"), "against": "one", "source": "b|c"}, [16.0]),
        "three": (None, [15.0, 16.0]),
    }
    table, rule, smallest, counted = claims_table(ended(tmp_path, entries)).split("\n\n")
    header, _, *lines = [[cell.strip() for cell in line.split(" | ")] for line in table.strip("|").splitlines()]
    assert header[-1].strip(" |") == "Runs agree"
    mean, spread = statistics.fmean([15.0, 15.5]), statistics.stdev([15.0, 15.5])
    cells = [cell.strip("| ") for cell in lines[1]]
    assert cells == ["one", "base", "a", "24.90 (worse)", f"{mean:.2f} ± {spread:.2f} (worse)", "BLEU agrees"]
    assert [cell.strip("| ") for cell in lines[0]][1:4] == ["", "a", "25.80"]
    assert [cell.strip("| ") for cell in lines[2]] == [
        "two",
        "one",
        "b\\|c",
        "better",
        "16.00",
        "BLEU unknown (1 missing)",
    ]
    assert [cell.strip("| ") for cell in lines[3]][-2:] == [
        f"{15.5:.2f} ± {statistics.stdev([15.0, 16.0]):.2f} (worse)",
        "",
    ]
    assert "standard errors" in rule
    assert "smallest difference" in smallest
    assert counted == "Of 2 claims: agrees 1, disagrees 0, no difference seen 0, unknown 1."


def test_a_list_without_claims_has_no_table(tmp_path):
    assert claims_table(ended(tmp_path, {"a": (None, [20.0])})) == ""
