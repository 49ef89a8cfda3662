"""Systems side by side: that every figure is of the right text, and averages and spreads are those of numpy."""

import json

import numpy as np
import pytest

from hf_vanilla_transformer.evaluation import (
    EvaluationSet,
    ScoreTotals,
    Scoring,
    System,
    compare_systems,
    moses_lowercase_scoring,
    moses_lowercased,
    paired_bootstrap,
    paper_scoring,
    paper_tokenized,
    score_translations,
)

REFERENCES = ["Ein Hund läuft durch den Park.", "Zwei Männer sitzen auf einer Bank.", 'Sie sagt: „Ja."'] * 4
OTHERS = [text.replace("Park", "Garten") for text in REFERENCES]
GOOD = System("good", [[text.replace("einer", "der") for text in REFERENCES]])
BAD = System("bad", [[text.lower().replace("ein", "kein") for text in REFERENCES]])
ONE_SET = [EvaluationSet("some", [""] * 12, [REFERENCES], "de")]
FAST = Scoring(["bleu", "chrf"])


def as_dicts(scores):
    return {name: score.as_dict() for name, score in scores.items()}


def only_set(comparison):
    (scoring,) = comparison["scorings"]
    assert scoring["macro_average"] is None
    (found,) = scoring["test_sets"]
    return found


def test_scores_of_one_system_with_several_references():
    data = EvaluationSet(None, [], [REFERENCES, OTHERS])
    comparison = compare_systems([GOOD], [data], num_resamples=30, seed=4)
    metrics = ["bleu", "chrf", "ter"]
    scores = score_translations(GOOD.translations[0], list(zip(REFERENCES, OTHERS)), metrics, num_resamples=30, seed=4)
    assert only_set(comparison) == {
        "name": None,
        "sentences": 12,
        "references": 2,
        "systems": [{"name": "good", "scores": as_dicts(scores), "likelihood": None}],
        "spread": None,
        "paired_bootstrap": None,
    }
    assert comparison["scorings"][0]["text"] is None
    assert json.loads(json.dumps(comparison)) == comparison


def test_the_baseline_comes_last_and_is_tested_against():
    scoring = Scoring(["chrf", "wer"], lowercase=True)
    found = only_set(compare_systems([GOOD], ONE_SET, [scoring], BAD, num_resamples=30, seed=3))
    options = {"metrics": ["chrf", "wer"], "lowercase": True, "num_resamples": 30, "seed": 3}
    expected = paired_bootstrap(GOOD.translations[0], BAD.translations[0], REFERENCES, **options)
    assert found["paired_bootstrap"] == {name: vars(one) for name, one in expected.items()}
    assert [system["name"] for system in found["systems"]] == ["good", "bad"]
    assert found["spread"] is None  # a baseline is no run of the same recipe
    chrf = found["paired_bootstrap"]["chrf"]
    values = [system["scores"]["chrf"]["value"] for system in found["systems"]]
    assert values == [chrf["score"], chrf["baseline_score"]]
    assert chrf["score"] != chrf["baseline_score"]


def test_a_baseline_is_for_one_system_on_one_test_set():
    with pytest.raises(ValueError, match="not with 2 on 1"):
        compare_systems([GOOD, BAD], ONE_SET, [FAST], BAD)
    with pytest.raises(ValueError, match="not with 1 on 2"):
        compare_systems([GOOD], ONE_SET * 2, [FAST], BAD)


def test_without_samples_there_are_no_intervals():
    sets = [*ONE_SET, EvaluationSet("other", [""] * 12, [OTHERS])]
    system = System("good", GOOD.translations * 2)
    (scoring,) = compare_systems([system], sets, [FAST], num_resamples=0)["scorings"]
    for part in (*scoring["test_sets"], scoring["macro_average"]):
        for score in part["systems"][0]["scores"].values():
            assert score["interval"] is None


def test_one_list_of_translations_is_scored_in_each_way_asked_for():
    pytest.importorskip("sacremoses")
    ways = [FAST, moses_lowercase_scoring("de", ["bleu", "chrf"]), paper_scoring("de")]
    plain, moses, paper = compare_systems([GOOD, BAD], ONE_SET, ways, num_resamples=10)["scorings"]
    for number, system in enumerate((GOOD, BAD)):
        (text,) = system.translations
        cut = [moses_lowercased(each, "de") for each in (text, REFERENCES)]
        split = [paper_tokenized(each, "de") for each in (text, REFERENCES)]
        for found, texts, options in (
            (plain, (text, REFERENCES), {}),
            (moses, cut, {"tokenize": "none"}),
            (paper, split, {"metrics": ["paper_bleu"]}),
        ):
            scores = score_translations(*texts, **options, num_resamples=10)
            assert found["test_sets"][0]["systems"][number]["scores"] == as_dicts(scores)
    assert plain["text"] is None
    assert "moses.de" in moses["text"]
    assert "compounds:split" in paper["text"]


def test_the_tokeniser_is_that_of_the_language_of_each_test_set():
    sets = [EvaluationSet("zh", [""], [["你好 世界"]], "zh"), EvaluationSet("de", [""], [["Ja !"]], "de")]
    system = System("some", [["你好"], ["Ja!"]])
    (found,) = compare_systems([system], sets, [Scoring(["bleu"])], num_resamples=0)["scorings"]
    signatures = [each["systems"][0]["scores"]["bleu"]["signature"] for each in found["test_sets"]]
    assert ["tok:zh" in signatures[0], "tok:13a" in signatures[1]] == [True, True]
    macro = found["macro_average"]["systems"][0]["scores"]["bleu"]["signature"]
    assert macro == signatures[0].replace("tok:zh", "tok:zh+13a") + "|macro:2"
    (found,) = compare_systems([system], sets, [Scoring(["bleu"], tokenize="char")], num_resamples=0)["scorings"]
    assert "tok:char" in found["test_sets"][0]["systems"][0]["scores"]["bleu"]["signature"]


def pronunciations(seed, sizes=(60, 45, 30)):
    """References of three languages, and a system that errs in a share of the lines of each."""
    draws = np.random.default_rng(seed)
    references = [[" ".join(np.random.default_rng(i).choice(list("abcd"), 5)) for i in range(n)] for n in sizes]
    translations = [
        [f"{line} x" if draws.random() < share else line for line in text]
        for text, share in zip(references, (0.1, 0.4, 0.7))
    ]
    sets = [EvaluationSet(f"set {n}", [""] * n, [text]) for n, text in zip(sizes, references)]
    return System(f"seed {seed}", translations), sets


def test_the_macro_average_gives_each_test_set_the_same_weight():
    system, sets = pronunciations(1)
    (found,) = compare_systems([system], sets, [Scoring(["wer", "per"])], num_resamples=200, seed=5)["scorings"]
    wrong = [
        [line != reference for line, reference in zip(text, data.references[0])]
        for text, data in zip(system.translations, sets)
    ]
    macro = found["macro_average"]["systems"][0]["scores"]["wer"]
    assert macro["value"] == pytest.approx(100 * np.mean([np.mean(each) for each in wrong]))
    assert macro["value"] != pytest.approx(100 * np.mean(np.concatenate(wrong)))
    # Test sets are independent: variances of their shares add up, and the interval is normal.
    error = np.sqrt(sum(np.var(each) / len(each) for each in wrong)) / len(wrong)
    assert macro["interval"] == pytest.approx(196 * error, rel=0.2)
    # Resampled within each test set, each with a seed of its own, and averaged sample by sample.
    samples = np.zeros(200)
    for number, each in enumerate(wrong):
        draws = np.random.default_rng(5 + number)
        samples += [np.mean(np.array(each)[draws.choice(len(each), len(each))]) for _ in range(200)]
    samples = np.sort(100 * samples / len(wrong))
    assert macro["interval"] == pytest.approx((samples[-6] - samples[5]) / 2)
    assert "seed:5|" in macro["signature"]
    assert macro["signature"].endswith("|macro:3")
    assert "seed:7" in found["test_sets"][2]["systems"][0]["scores"]["wer"]["signature"]


def test_several_systems_have_a_spread_on_each_test_set_and_on_average():
    systems, sets = [pronunciations(seed)[0] for seed in (1, 2, 3)], pronunciations(1)[1]
    (found,) = compare_systems(systems, sets, [Scoring(["per"])], num_resamples=5)["scorings"]
    for part in (*found["test_sets"], found["macro_average"]):
        values = [system["scores"]["per"]["value"] for system in part["systems"]]
        assert [system["name"] for system in part["systems"]] == ["seed 1", "seed 2", "seed 3"]
        assert part["spread"]["per"] == {
            "mean": pytest.approx(np.mean(values)),
            "standard_deviation": pytest.approx(np.std(values, ddof=1)),
            "min": min(values),
            "max": max(values),
        }
        assert min(values) < max(values)


def test_likelihoods_stand_where_they_belong():
    sets = [*ONE_SET, EvaluationSet("other", [""] * 12, [OTHERS])]
    totals = ScoreTotals()
    totals.num_tokens, totals.nll = 4, 2.0
    system = System("model", GOOD.translations * 2, [None, totals])
    (found,) = compare_systems([system], sets, [FAST], num_resamples=0)["scorings"]
    first, second = (each["systems"][0]["likelihood"] for each in found["test_sets"])
    assert first is None
    assert second == totals.as_dict()
