"""Tables: every figure of a comparison stands in the right row, and what it means is said."""

import pytest
from test_comparison import BAD, FAST, GOOD, ONE_SET, pronunciations

from hf_vanilla_transformer.evaluation import (
    ScoreTotals,
    Scoring,
    System,
    compare_systems,
    comparison_table,
    moses_lowercase_scoring,
)


def row(table, name):
    """The cells after the name of a row, of which there is one."""
    (line,) = (line for line in table.splitlines() if line.startswith(f"{name} "))
    return line.removeprefix(name).split()


def shown(score):
    return [f"{score['value']:.2f}", "±", f"{score['interval']:.2f}"]


def test_one_system_has_scores_with_intervals_and_signatures():
    comparison = compare_systems([GOOD], ONE_SET, num_resamples=20)
    scores = comparison["scorings"][0]["test_sets"][0]["systems"][0]["scores"]
    table = comparison_table(comparison)
    assert table.splitlines()[0].split() == ["BLEU", "chrF", "TER"]
    assert row(table, "good") == [cell for name in ("bleu", "chrf", "ter") for cell in shown(scores[name])]
    assert f"TER: {scores['ter']['signature']}" in table.splitlines()
    assert "Test set: some, 12 sentences" in table
    assert "95 %" in table
    for absent in ("perplexity", "mean", "Average", "Text:", "Paired"):
        assert absent not in table


def test_without_samples_no_interval_is_spoken_of():
    table = comparison_table(compare_systems([GOOD], ONE_SET, [FAST], num_resamples=0))
    assert "±" not in table
    assert "bs:" not in table


def test_a_baseline_has_its_row_and_the_difference_a_p_value():
    comparison = compare_systems([GOOD], ONE_SET, [FAST], BAD, num_resamples=30)
    table = comparison_table(comparison)
    assert len(row(table, "bad")) == 6
    bleu = comparison["scorings"][0]["test_sets"][0]["paired_bootstrap"]["bleu"]
    assert f"p = {bleu['p_value']:.4f}" in table
    assert f"{bleu['baseline_mean']:.2f} ± {bleu['baseline_interval']:.2f}" in table


def test_of_two_equal_systems_no_p_value_is_shown():
    table = comparison_table(compare_systems([GOOD], ONE_SET, [FAST], GOOD, num_resamples=10))
    assert "p = " not in table
    assert table.count("the same") == 2


def test_each_way_to_score_has_a_table_of_its_own_and_says_what_was_done():
    pytest.importorskip("sacremoses")
    comparison = compare_systems([GOOD], ONE_SET, [FAST, moses_lowercase_scoring("de")], num_resamples=0)
    plain, moses = (comparison_table({"scorings": [each]}) for each in comparison["scorings"])
    assert comparison_table(comparison) == f"{plain}\n\n{moses}"
    assert "no table with others" in moses
    assert "no table with others" not in plain
    assert comparison["scorings"][1]["text"] in moses


def test_several_systems_end_with_their_spread():
    comparison = compare_systems([GOOD, BAD], ONE_SET, [FAST], num_resamples=0)
    spread = comparison["scorings"][0]["test_sets"][0]["spread"]
    table = comparison_table(comparison)
    for key, name in (("mean", "mean"), ("standard_deviation", "standard deviation"), ("min", "min"), ("max", "max")):
        assert row(table, name) == [f"{spread[metric][key]:.2f}" for metric in ("bleu", "chrf")]


def test_several_test_sets_have_an_average_and_a_row_each():
    system, sets = pronunciations(1)
    comparison = compare_systems([system], sets, [Scoring(["wer", "per"])], num_resamples=20)
    table, (scoring,) = comparison_table(comparison), comparison["scorings"]
    assert table.startswith("Average over 3 test sets\n")
    macro = scoring["macro_average"]["systems"][0]["scores"]
    assert row(table, "seed 1") == shown(macro["wer"]) + shown(macro["per"])
    for data in scoring["test_sets"]:
        scores = data["systems"][0]["scores"]
        assert row(table, data["name"]) == [str(data["sentences"]), *shown(scores["wer"]), *shown(scores["per"])]


def test_several_systems_on_several_test_sets_have_mean_and_deviation_by_test_set():
    systems, sets = [pronunciations(seed)[0] for seed in (1, 2)], pronunciations(1)[1]
    comparison = compare_systems(systems, sets, [Scoring(["per"])], num_resamples=20)
    table, (scoring,) = comparison_table(comparison), comparison["scorings"]
    assert row(table, "seed 2") == shown(scoring["macro_average"]["systems"][1]["scores"]["per"])
    assert row(table, "mean") == [f"{scoring['macro_average']['spread']['per']['mean']:.2f}"]
    assert "By test set: mean of 2 systems ± standard deviation" in table
    for data in scoring["test_sets"]:
        spread = data["spread"]["per"]
        expected = [str(data["sentences"]), f"{spread['mean']:.2f}", "±", f"{spread['standard_deviation']:.2f}"]
        assert row(table, data["name"]) == expected


def test_the_engines_of_models_are_said_below_and_written():
    models = [System(name, GOOD.translations, [], engine) for name, engine in (("one", "torch"), ("two", "x (int8)"))]
    comparison = compare_systems([*models, BAD], ONE_SET, [FAST], num_resamples=0)
    assert comparison["engines"] == {"one": "torch", "two": "x (int8)"}
    assert comparison_table(comparison).endswith("\n\nTranslated by torch: one; x (int8): two")
    assert "Translated by" not in comparison_table(compare_systems([BAD], ONE_SET, [FAST], num_resamples=0))


def test_likelihoods_are_shown_of_those_that_have_one():
    totals = ScoreTotals()
    totals.num_tokens, totals.num_characters, totals.nll = 4, 9, 2.0
    model = System("model", GOOD.translations, [totals])
    table = comparison_table(compare_systems([model], ONE_SET, [FAST], BAD, num_resamples=2))
    assert row(table, "model")[-2:] == [f"{totals.perplexity:.3f}", f"{totals.nats_per_character:.4f}"]
    assert row(table, "bad")[-2:] == ["-", "-"]
    system, sets = pronunciations(1)
    model = System("model", system.translations, [totals, None, totals])
    table = comparison_table(compare_systems([model], sets, [Scoring(["per"])], num_resamples=2))
    assert row(table, "set 60")[-1] == f"{totals.nats_per_character:.4f}"
    assert row(table, "set 45")[-1] == "-"
    assert len(row(table, "model")) == 3
