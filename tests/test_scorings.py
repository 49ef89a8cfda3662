"""Ways to score: what they do to a text, and that they say it."""

import pytest

from hf_vanilla_transformer.evaluation import (
    Scoring,
    moses_lowercase_scoring,
    moses_lowercased,
    paper_scoring,
    paper_tokenized,
)

TEXT = ["Er sagt: „Ja-Wort.“", "", "Ein E-Mail-Programm"]


def test_text_is_left_as_it_is_unless_asked():
    assert (Scoring().prepare, Scoring().description) == (None, None)


def test_text_is_changed_as_papers_do():
    pytest.importorskip("sacremoses")
    moses, paper = moses_lowercase_scoring("de", ["chrf"]), paper_scoring("de")
    assert moses.prepare(TEXT) == moses_lowercased(TEXT, "de")
    assert (moses.metrics, moses.tokenize) == (["chrf"], "none")
    assert paper.prepare(TEXT) == paper_tokenized(TEXT, "de")
    assert paper.metrics == ["paper_bleu"]
    assert moses.description != paper.description
