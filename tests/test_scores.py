"""Scores: that sacrebleu gets what it should, and that intervals are its own."""

import math
from collections import Counter

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF, TER

from hf_vanilla_transformer.evaluation import PhoneErrorRate, WordErrorRate, make_metrics, score_translations, scores
from hf_vanilla_transformer.evaluation.scores import HIGHER_IS_BETTER, METRICS


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
    assert scores["bleu"].value == pytest.approx(expected, rel=1e-9)
    for part in ("case:mixed", "tok:13a", "nrefs:1"):
        assert part in scores["bleu"].signature
    assert "nc:6" in scores["chrf"].signature


def test_perfect_translations_score_100_and_case_counts():
    text = ["Ein Hund rennt durch den Park .", "Zwei Männer sitzen auf einer Bank ."]
    assert score_translations(text, text)["bleu"].value == pytest.approx(100)
    assert score_translations(text, text)["chrf"].value == pytest.approx(100)
    assert score_translations([line.lower() for line in text], text)["bleu"].value < 100


@pytest.mark.parametrize(("translations", "references"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_unequal_or_empty_sets_are_refused_with_their_sizes(translations, references):
    with pytest.raises(ValueError, match=f"{len(translations)} translations .* {len(references)} references"):
        score_translations(translations, references)


TRANSLATIONS = ["ein Hund läuft durch den Park", "zwei Männer sitzen dort auf der Bank", "Ja !"]
REFERENCES = ["Ein Hund rennt durch den Park.", "zwei Männer sitzen auf der Bank", "Ja!"]
OTHERS = ["ein Hund läuft im Park", "zwei Herren sitzen dort auf der Bank", "Jawohl !"]


def metrics_of_sacrebleu(lowercase=False, tokenize="13a"):
    bleu = BLEU(lowercase=lowercase, tokenize=tokenize)
    paper = BLEU(tokenize="none", smooth_method="none")
    return {"bleu": bleu, "chrf": CHRF(lowercase=lowercase), "ter": TER(), "paper_bleu": paper}


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("tokenize", ["13a", "none", "char"])
def test_several_references_and_all_options_reach_sacrebleu(lowercase, tokenize):
    metrics = metrics_of_sacrebleu(lowercase, tokenize)
    references = list(zip(REFERENCES, OTHERS))
    found = score_translations(TRANSLATIONS, references, list(metrics), lowercase=lowercase, tokenize=tokenize)
    for name, metric in metrics.items():
        assert found[name].value == metric.corpus_score(TRANSLATIONS, [REFERENCES, OTHERS]).score
        assert found[name].signature == str(metric.get_signature())
        assert (found[name].interval, found[name].samples) == (None, None)
    assert "nrefs:2" in found["bleu"].signature


def test_some_sentences_may_have_more_references_than_others():
    several = [[REFERENCES[0], OTHERS[0]], REFERENCES[1], [REFERENCES[2]]]
    found = score_translations(TRANSLATIONS, several, ["bleu", "ter", "chrf"])
    streams = [REFERENCES, [OTHERS[0], None, None]]
    assert found["bleu"].value == BLEU().corpus_score(TRANSLATIONS, streams).score
    assert found["ter"].value == TER().corpus_score(TRANSLATIONS, streams).score
    assert "nrefs:var" in found["chrf"].signature


def long_texts(size):
    """A system that errs in some sentences, and the references of all."""
    references = [" ".join(REFERENCES[i % 3].split()[i % 4 :] + REFERENCES[i % 2].split()) for i in range(size)]
    return [text.replace("Park", "Wald") if i % 4 else text for i, text in enumerate(references)], references


@pytest.mark.parametrize(("num_resamples", "seed"), [(200, 12345), (41, 7)])
def test_intervals_are_those_of_sacrebleu_for_the_same_seed(monkeypatch, num_resamples, seed):
    translations, references = long_texts(37)
    metrics = {**metrics_of_sacrebleu(), "wer": WordErrorRate(), "per": PhoneErrorRate()}
    assert metrics.keys() == METRICS.keys()
    found = score_translations(translations, references, list(metrics), num_resamples=num_resamples, seed=seed)
    monkeypatch.setenv("SACREBLEU_SEED", str(seed))
    for name, metric in metrics.items():
        expected = metric.corpus_score(translations, [references], n_bootstrap=num_resamples)
        assert found[name].value == pytest.approx(expected.score, rel=1e-12)
        assert found[name].interval == pytest.approx(expected._ci, rel=1e-4)  # sacrebleu adds up in single precision
        assert found[name].interval > 0
        assert found[name].samples.mean() == pytest.approx(expected._mean, rel=1e-4)
        assert found[name].samples.shape == (num_resamples,)
        assert found[name].signature == str(metric.get_signature())
        assert f"bs:{num_resamples}|seed:{seed}" in found[name].signature


def test_the_interval_of_a_share_is_that_of_the_binomial_distribution():
    """Of n lines of which a share p is wrong, resampled shares have the standard error sqrt(p (1 - p) / n)."""
    size, wrong = 400, 100
    translations = ["b" if i < wrong else "a" for i in range(size)]
    found = score_translations(translations, ["a"] * size, ["wer"], num_resamples=2000)["wer"]
    share = wrong / size
    assert found.value == 100 * share
    assert found.interval == pytest.approx(196 * np.sqrt(share * (1 - share) / size), rel=0.08)


@pytest.mark.parametrize("value", [-1, 1])
def test_too_few_samples_are_refused(value):
    with pytest.raises(ValueError, match=f"`num_resamples`={value}"):
        score_translations(TRANSLATIONS, REFERENCES, num_resamples=value)


def test_better_is_higher_for_those_that_say_so():
    perfect = score_translations(REFERENCES * 2, REFERENCES * 2, list(METRICS))
    worse = score_translations(["nichts davon"] * 6, REFERENCES * 2, list(METRICS))
    assert {name for name in METRICS if perfect[name].value > worse[name].value} == HIGHER_IS_BETTER


def test_ter_is_computed_only_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(TER, "_extract_corpus_statistics", None)
    assert list(score_translations(TRANSLATIONS, REFERENCES)) == ["bleu", "chrf"]
    with pytest.raises(TypeError):
        score_translations(TRANSLATIONS, REFERENCES, ["ter"])


def test_a_sentence_without_a_reference_and_an_unknown_tokeniser_are_refused():
    with pytest.raises(ValueError, match="translation 1 .* no reference"):
        score_translations(TRANSLATIONS, [["a"], [], ["b"]])
    with pytest.raises(ValueError, match="`tokenize`='moses'.*13a"):
        score_translations(TRANSLATIONS, REFERENCES, tokenize="moses")
    with pytest.raises(ValueError, match="'cer', which is none of bleu, chrf, ter, wer, per"):
        score_translations(TRANSLATIONS, REFERENCES, ["bleu", "cer"])


def test_a_tokeniser_that_is_not_installed_is_named(monkeypatch):
    def missing(*args, **kwargs):
        raise RuntimeError("Please install\n it")

    monkeypatch.setattr(scores, "BLEU", type("BLEU", (), {"TOKENIZERS": BLEU.TOKENIZERS, "__init__": missing}))
    with pytest.raises(ValueError, match="`tokenize`='ja-mecab' cannot be used: Please install it"):
        make_metrics(tokenize="ja-mecab")
