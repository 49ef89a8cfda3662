"""Claims beside findings: directions, verdicts, and the table."""

import statistics

import pytest
from queue_lists import pretend_to_train, write_list

from hf_vanilla_transformer.lab.claim_results import claims_table, compare
from hf_vanilla_transformer.lab.queue_results import append_row, failure_row, finished_results, row_of
from hf_vanilla_transformer.lab.run_list import read_run_list

SEEDS = [1, 2]


def ended(folder, entries, metric="bleu"):
    """A list whose runs have ended with these scores: by entry, its claim and a score for each seed; None failed."""
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
            if score is None:
                append_row(runs.results, failure_row(run, "no room"))
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
        ("bleu", [20.0, 21.0], [20.6, 21.6], "same"),  # 0.6 apart, 2 standard errors are 2 * 0.71
        ("bleu", [20.0, 20.0], [22.0, 19.0], "same"),  # the greater spread counts
        ("bleu", [20.0, 20.0], [20.1, 20.1], "same"),  # too little to matter
        ("bleu", [20.0, 20.0], [20.2, 20.2], "better"),
        ("perplexity", [10.0, 10.0], [10.05, 10.05], "same"),
        ("perplexity", [10.0, 10.0], [11.0, 11.0], "worse"),
        ("perplexity", [10.0, 10.1], [9.0, 9.1], "better"),
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
    assert compare(ended(tmp_path / "more", entries))[1].findings["bleu"].measured == "same"


@pytest.mark.parametrize(
    ("claim", "scores", "verdict"),
    [
        ("worse", [19.0, 19.0], "agrees"),
        ("worse", [21.0, 21.0], "disagrees"),
        ("worse", [20.0, 20.0], "no difference seen"),
        ("same", [20.0, 20.0], "agrees"),
        ("same", [19.0, 19.0], "disagrees"),
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


def test_the_table_has_claims_and_findings_and_counts_the_verdicts(tmp_path):
    entries = {
        "base": (said(bleu=25.8), [20.0, 20.5]),
        "one": (said(bleu=24.9), [15.0, 15.5]),
        "two": ({**said(bleu="better"), "against": "one", "source": "b|c"}, [16.0]),
        "three": (None, [15.0, 16.0]),
    }
    table, rule, counted = claims_table(ended(tmp_path, entries)).split("\n\n")
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
    assert counted == "Of 2 claims: agrees 1, disagrees 0, no difference seen 0, unknown 1."


def test_a_list_without_claims_has_no_table(tmp_path):
    assert claims_table(ended(tmp_path, {"a": (None, [20.0])})) == ""
