"""BLEU and chrF: that sacrebleu gets what it should."""

import math
from collections import Counter

import pytest
from sacrebleu.metrics import BLEU, CHRF, TER

from hf_vanilla_transformer.evaluation import make_metrics, score_translations, scores


def test_bleu_is_that_of_the_formula_on_tokens_that_need_no_tokeniser():
    translations = ["the cat sat on the mat today", "a dog runs in the park"]
    references = ["the cat sat on a mat today", "a dog runs in the big park"]
    matches, totals = Counter(), Counter()
    for translation, reference in zip(translations, references, strict=True):
        for n in range(1, 5):
            grams = [
                Counter(zip(*[text.split()[i:] for i in range(n)], strict=False)) for text in (translation, reference)
            ]
            matches[n] += (grams[0] & grams[1]).total()
            totals[n] += grams[0].total()
    lengths = [sum(len(text.split()) for text in texts) for texts in (translations, references)]
    brevity = min(1.0, math.exp(1 - lengths[1] / lengths[0]))
    expected = 100 * brevity * math.exp(sum(math.log(matches[n] / totals[n]) for n in range(1, 5)) / 4)
    scores = score_translations(translations, references)
    assert scores.bleu == pytest.approx(expected, rel=1e-9)
    for part in ("case:mixed", "tok:13a", "nrefs:1"):
        assert part in scores.bleu_signature
    assert "nc:6" in scores.chrf_signature


def test_perfect_translations_score_100_and_case_counts():
    text = ["Ein Hund rennt durch den Park .", "Zwei Männer sitzen auf einer Bank ."]
    assert score_translations(text, text).bleu == pytest.approx(100)
    assert score_translations(text, text).chrf == pytest.approx(100)
    assert score_translations([line.lower() for line in text], text).bleu < 100


@pytest.mark.parametrize(("translations", "references"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_unequal_or_empty_sets_are_refused_with_their_sizes(translations, references):
    with pytest.raises(ValueError, match=f"{len(translations)} translations .* {len(references)} references"):
        score_translations(translations, references)


TRANSLATIONS = ["ein Hund läuft durch den Park", "zwei Männer sitzen dort auf der Bank", "Ja !"]
REFERENCES = ["Ein Hund rennt durch den Park.", "zwei Männer sitzen auf der Bank", "Ja!"]
OTHERS = ["ein Hund läuft im Park", "zwei Herren sitzen dort auf der Bank", "Jawohl !"]


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("tokenize", ["13a", "none", "char"])
def test_several_references_and_all_options_reach_sacrebleu(lowercase, tokenize):
    scores = score_translations(
        TRANSLATIONS, list(zip(REFERENCES, OTHERS)), ter=True, lowercase=lowercase, tokenize=tokenize
    )
    metrics = {"bleu": BLEU(lowercase=lowercase, tokenize=tokenize), "chrf": CHRF(lowercase=lowercase), "ter": TER()}
    for name, metric in metrics.items():
        assert getattr(scores, name) == metric.corpus_score(TRANSLATIONS, [REFERENCES, OTHERS]).score
        assert getattr(scores, f"{name}_signature") == str(metric.get_signature())
    assert "nrefs:2" in scores.bleu_signature


def test_some_sentences_may_have_more_references_than_others():
    several = [[REFERENCES[0], OTHERS[0]], REFERENCES[1], [REFERENCES[2]]]
    scores = score_translations(TRANSLATIONS, several, ter=True)
    streams = [REFERENCES, [OTHERS[0], None, None]]
    assert scores.bleu == BLEU().corpus_score(TRANSLATIONS, streams).score
    assert scores.ter == TER().corpus_score(TRANSLATIONS, streams).score
    assert "nrefs:var" in scores.chrf_signature


def test_ter_is_computed_only_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(TER, "corpus_score", None)
    scores = score_translations(TRANSLATIONS, REFERENCES)
    assert (scores.ter, scores.ter_signature) == (None, None)


def test_a_sentence_without_a_reference_and_an_unknown_tokeniser_are_refused():
    with pytest.raises(ValueError, match="translation 1 .* no reference"):
        score_translations(TRANSLATIONS, [["a"], [], ["b"]])
    with pytest.raises(ValueError, match="`tokenize`='moses'.*13a"):
        score_translations(TRANSLATIONS, REFERENCES, tokenize="moses")


def test_a_tokeniser_that_is_not_installed_is_named(monkeypatch):
    def missing(*args, **kwargs):
        raise RuntimeError("Please install\n it")

    monkeypatch.setattr(scores, "BLEU", type("BLEU", (), {"TOKENIZERS": BLEU.TOKENIZERS, "__init__": missing}))
    with pytest.raises(ValueError, match="`tokenize`='ja-mecab' cannot be used: Please install it"):
        make_metrics(tokenize="ja-mecab")
