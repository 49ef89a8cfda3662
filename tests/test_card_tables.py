"""Tables of cards: error rates, languages, and text that would break a table."""

import pytest

from hf_vanilla_transformer.publishing.card_tables import cell, results_section, score_table, table


def score(value, interval=0.5):
    return {"value": value, "interval": interval, "signature": f"of {value}"}


TRAINING = {"runs": [{"seed": 1}, {"seed": 2}, {"seed": 3}], "shipped": 1, "chosen_by": "the best WER on dev"}
PRONUNCIATION = {
    "name": "test", "title": "Test", "role": "test", "sentences": 900, "references": 1, "texts": ["kor", "vie"],
    "scorings": [
        {
            "name": "cased", "title": "cased", "text": None,
            "runs": [{"wer": score(16.0), "per": score(3.0)}, {"wer": score(15.0), "per": score(2.9)},
                     {"wer": score(17.0), "per": score(3.4)}],
            "parts": {
                "kor": [{"wer": score(20.5), "per": score(4.0)}] + [{"wer": score(20.0), "per": score(3.9)}] * 2,
                "vie": [{"wer": score(11.5), "per": score(2.0)}] + [{"wer": score(10.0, None), "per": score(1.9)}] * 2,
            },
            "published": [
                {"system": "X", "metric": "wer", "value": 16.34, "source": "a paper", "by_text": {}},
                {"system": "Y", "metric": "per", "value": 3.3, "source": "another", "by_text": {"kor": 4.4}},
            ],
        }
    ],
}  # fmt: skip


def test_error_rates_by_language_of_the_run_that_is_shipped():
    text = results_section([PRONUNCIATION], TRAINING)
    assert "900 lines, one reference each, in 2 texts, over which scores are averaged" in text
    wer = "| WER (lower is better) | 15.00 | 14.50 to 15.50 | 16.00 | 15.00 | 17.00 | 16.00 ± 1.00 |"
    assert wer in text
    assert "| kor | 20.00 | 19.50 to 20.50 | 20.17 | 3.90 | 3.40 to 4.40 | 3.93 | 4.40 |" in text
    assert "| vie | 10.00 | - | 10.50 | 1.90 | 1.40 to 2.40 | 1.93 |  |" in text
    assert " | 95 % interval | Mean of 3 seeds | PER of Y |" in text
    assert (
        "| mean of 3 seeds | WER (lower is better) | 16.00 |  |\n| X | WER (lower is better) | 16.34 | a paper |"
        in text
    )
    assert "- PER: `of 2.9`" in text


def test_test_sets_come_before_validation_sets():
    first = {**PRONUNCIATION, "role": "validation", "title": "Dev"}
    text = results_section([first, PRONUNCIATION], TRAINING)
    assert text.index("### Test") < text.index("### Dev")


def test_one_run_has_no_spread():
    training = {"runs": [{"seed": 1}], "shipped": 0}
    (scoring,) = PRONUNCIATION["scorings"]
    parts = {name: of_runs[:1] for name, of_runs in scoring["parts"].items()}
    one = {**PRONUNCIATION, "scorings": [{**scoring, "runs": scoring["runs"][:1], "parts": parts}]}
    assert "ean of" not in results_section([one], training)
    text = score_table({"runs": [{"bleu": score(41.234)}]}, training)
    assert text.splitlines() == [
        "| Metric | This checkpoint | 95 % interval |", "| --- | --- | --- |", "| BLEU | 41.23 | 40.73 to 41.73 |"
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["a | b", "*a* _b_ `c`", "<b>", "[a](b)", "a\\|b", "a\nb", "a  b\u2028c"])
def test_text_stays_in_its_cell(text):
    lines = table(["Text", "More"], [[text, "x"]]).splitlines()
    assert len(lines) == 3
    row = lines[2].replace("\\\\", "")
    assert len([part for part in row.replace("\\|", "").split("|") if part.strip()]) == 2
    plain = cell(text)
    for special in "\\|*_`<[":
        plain = plain.replace("\\" + special, special)
    assert plain == " ".join(text.split())
