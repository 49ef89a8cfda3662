"""Error rates of lines and units: against brute force, and on examples that are counted by hand."""

import random
import unicodedata
from functools import cache

import pytest

from hf_vanilla_transformer.evaluation import PhoneErrorRate, WordErrorRate, edit_distance, score_translations


@cache
def brute_force(first, second):
    """The definition: the last units are equal, or one of the two was inserted, deleted or substituted."""
    if not first or not second:
        return len(first) + len(second)
    if first[-1] == second[-1]:
        return brute_force(first[:-1], second[:-1])
    return 1 + min(
        brute_force(first[:-1], second), brute_force(first, second[:-1]), brute_force(first[:-1], second[:-1])
    )


def test_edit_distance_is_that_of_the_definition():
    draws = random.Random(3)
    for _ in range(300):
        first, second = (tuple(draws.choices("abc", k=draws.randrange(8))) for _ in range(2))
        assert edit_distance(first, second) == brute_force(first, second)


def test_units_are_compared_and_not_characters():
    assert edit_distance(["k", "a̠ː", "n"], ["k", "a̠", "n"]) == 1
    assert edit_distance(["ab", "c"], ["a", "bc"]) == 2


# Wrong in the second line (one substitution and one insertion) and in the third (one deletion); the fourth is right.
LINES = ["a b c", "a x c d", "a", " b  c "]
REFERENCES = ["a b c", "a b c", "a b", "b c"]


def test_rates_are_those_that_are_counted_by_hand():
    scores = score_translations(LINES, REFERENCES, ["wer", "per"])
    assert scores["wer"].value == 100 * 2 / 4
    assert scores["per"].value == 100 * (0 + 2 + 1 + 0) / (3 + 3 + 2 + 2)
    assert "error:line" in scores["wer"].signature
    assert "error:unit" in scores["per"].signature
    assert "nrefs:1" in scores["per"].signature


def test_the_closest_of_several_references_counts():
    others = ["a", "a x c", "a c d e", "b"]
    scores = score_translations(LINES, list(zip(REFERENCES, others)), ["wer", "per"])
    assert scores["wer"].value == 50
    # Of the third line, "a b" is one edit away, and "a c d e" three.
    assert scores["per"].value == 100 * (0 + 1 + 1 + 0) / (3 + 3 + 2 + 2)
    either = score_translations(["a x c d"], [["a b c", "a x c d"]], ["wer", "per"])
    assert (either["wer"].value, either["per"].value) == (0, 0)


@pytest.mark.parametrize(("line", "wer", "per"), [("", 0, 0), ("a", 100, 100)])
def test_of_a_reference_without_units_every_unit_is_an_error(line, wer, per):
    for metric, expected in ((WordErrorRate(), wer), (PhoneErrorRate(), per)):
        assert metric.corpus_score([line], [[""]]).score == expected


def test_rates_over_100_are_possible_for_units_and_case_counts():
    scores = score_translations(["b b b"], ["a"], ["wer", "per"])
    assert (scores["wer"].value, scores["per"].value) == (100, 300)
    assert score_translations(["A"], ["a"], ["wer", "per"], lowercase=True)["wer"].value == 100


@pytest.mark.parametrize(("form", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_two_spellings_of_one_text_are_equal(form, other):
    text = "né \u0303e 각 a"
    line, reference = (unicodedata.normalize(each, text) for each in (form, other))
    assert line != reference
    for references in ([reference], [["x", reference]]):
        scores = score_translations([line], references, ["wer", "per"])
        assert (scores["wer"].value, scores["per"].value) == (0, 0)
    assert score_translations([line], [reference[:-1]], ["per"])["per"].value > 0
