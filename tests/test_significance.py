"""Paired bootstrap: against sacrebleu's own program."""

import os
import re
import subprocess
import sys

import pytest

from hf_vanilla_transformer.evaluation import paired_bootstrap, score_translations

METRICS = ["bleu", "chrf", "ter"]
WORDS = ["Ein", "Hund", "läuft", "durch", "den", "grünen", "Park", "neben", "einer", "Bank", "."]


def texts(size=40):
    """References, and two systems: one errs in every fourth sentence, the other in every third, and otherwise."""
    references = [" ".join(WORDS[i % 5 :] + WORDS[: i % 7]) for i in range(size)]
    system = [text.replace("Park", "Garten") if i % 4 == 0 else text for i, text in enumerate(references)]
    baseline = [text.replace("Hund", "HUND Hund") if i % 3 == 0 else text for i, text in enumerate(references)]
    return system, baseline, references


def test_figures_and_signatures_are_those_of_sacrebleu_itself(tmp_path):
    system, baseline, references = texts()
    others = [text.replace("grünen", "großen") for text in references]
    for name, lines in (("system", system), ("baseline", baseline), ("one", references), ("two", others)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "one", "two", "-i", "baseline", "system", "-m", "bleu", "chrf", "ter"]
    command += ["--paired-bs", "--paired-bs-n", "200", "-f", "latex", "-w", "4"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "SACREBLEU_SEED": "77"}, capture_output=True, text=True, check=True
    )
    before = dict(os.environ)
    results = paired_bootstrap(system, baseline, list(zip(references, others)), METRICS, num_resamples=200, seed=77)
    assert dict(os.environ) == before
    rows = [line for line in done.stdout.splitlines() if "&" in line and "System" not in line]
    assert len(rows) == 2
    for row, prefix in zip(rows, ("baseline_", "")):
        cells = [[float(number) for number in re.findall(r"\d+\.\d+", cell)] for cell in row.split("&")[1:]]
        for cell, result in zip(cells, results.values(), strict=True):
            names = [f"{prefix}{name}" for name in ("score", "mean", "interval")] + ["p_value"] * (not prefix)
            assert [getattr(result, name) for name in names] == pytest.approx(cell, abs=6e-5)
    signatures = re.findall(r"nrefs:\S+", done.stdout)
    assert [result.signature for result in results.values()] == signatures
    assert list(results) == ["bleu", "chrf", "ter"]
    assert results["bleu"].score == score_translations(system, list(zip(references, others)))["bleu"].value


def test_a_system_against_itself_and_against_a_hopeless_one():
    system, _, references = texts()
    same = paired_bootstrap(system, system, references, num_resamples=50)
    assert set(same) == {"bleu", "chrf"}
    assert same["bleu"].mean == same["bleu"].baseline_mean
    assert same["bleu"].p_value == pytest.approx(1 / 51)  # which is why the table does not show it
    worse = paired_bootstrap(system, ["nichts"] * len(system), references, num_resamples=50)
    assert worse["bleu"].p_value == pytest.approx(1 / 51)


def test_options_reach_the_metrics_and_the_seed_the_draws():
    system, baseline, references = texts()
    results = paired_bootstrap(system, baseline, references, lowercase=True, tokenize="none", num_resamples=20, seed=5)
    for part in ("case:lc", "tok:none", "bs:20", "seed:5"):
        assert part in results["bleu"].signature
    other = paired_bootstrap(system, baseline, references, lowercase=True, tokenize="none", num_resamples=20, seed=6)
    assert other["bleu"].score == results["bleu"].score
    assert other["bleu"].mean != results["bleu"].mean


def test_error_rates_are_compared_as_the_rest():
    system, baseline, references = texts()
    metrics = ["paper_bleu", "bleu", "wer", "per"]
    results = paired_bootstrap(system, baseline, references, metrics, num_resamples=100, seed=4)
    assert list(results) == metrics
    for text, prefix in ((system, ""), (baseline, "baseline_")):
        scores = score_translations(text, references, metrics, num_resamples=100, seed=4)
        for name, score in scores.items():
            assert getattr(results[name], f"{prefix}score") == pytest.approx(score.value)
            assert getattr(results[name], f"{prefix}interval") == pytest.approx(score.interval, rel=1e-4)
    assert results["wer"].score == 25.0


@pytest.mark.parametrize("name", ["num_resamples", "seed"])
def test_what_sacrebleu_would_take_for_something_else_is_refused(name):
    with pytest.raises(ValueError, match=f"`{name}`=0"):
        paired_bootstrap(["a"], ["a"], ["a"], **{name: 0})


def test_sets_of_unequal_size_are_refused():
    with pytest.raises(ValueError, match="2 translations .* 1 of the baseline"):
        paired_bootstrap(["a", "b"], ["a"], ["a", "b"])
    with pytest.raises(ValueError, match="1 translations .* 2 references"):
        paired_bootstrap(["a"], ["a"], ["a", "b"])
