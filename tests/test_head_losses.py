"""What a head is worth: losses against a copy of the model without it, and intervals against samples drawn here."""

import numpy as np
import pytest
from sacrebleu.metrics import BLEU
from test_heads import model, tokenizer, without_columns  # noqa: F401  # fixtures

from hf_vanilla_transformer.evaluation import EvaluationSet, Score
from hf_vanilla_transformer.evaluation.scores import half_width
from hf_vanilla_transformer.inference import translate
from hf_vanilla_transformer.lab.head_losses import HeadAnalysis, HeadFinding, analyse_heads, rank_correlation
from hf_vanilla_transformer.lab.heads import Head, HeadStatistics, attention_statistics, heads_of

SOURCES = ["a b c", "c", "b a a c b", "a a", "", "c b a b"]
OPTIONS = {"num_beams": 1, "max_new_tokens": 5}


@pytest.fixture(scope="module")
def made(model, tokenizer):  # noqa: F811
    """The references are what the whole model makes of the sources, but for one word: so BLEU is neither 0 nor 100."""
    lines = list(translate(model, tokenizer, SOURCES, **OPTIONS))
    references = [f"{line} x y z" if index % 2 else line or "x" for index, line in enumerate(lines)]
    data = EvaluationSet(None, SOURCES, [references])
    steps = []
    analysis = analyse_heads(
        model, tokenizer, data, num_resamples=10, seed=7, step=lambda: steps.append(1), **OPTIONS
    )  # fmt: skip
    assert len(steps) == 1 + len(heads_of(model))
    return data, analysis


def test_losses_and_intervals_are_those_of_a_model_without_the_head(model, tokenizer, made):  # noqa: F811
    data, analysis = made
    references, size = data.references[0], len(SOURCES)
    draws = np.random.default_rng(7)
    samples = [draws.choice(size, size, replace=True) for _ in range(10)]

    def bleu(lines, indices=range(size)):
        return BLEU().corpus_score([lines[index] for index in indices], [[references[index] for index in indices]])

    whole = list(translate(model, tokenizer, SOURCES, **OPTIONS))
    assert analysis.whole.value == pytest.approx(bleu(whole).score)
    assert analysis.sentences == size
    statistics = attention_statistics(model, tokenizer, list(zip(SOURCES, references)))
    for finding in analysis.findings:
        lines = list(translate(without_columns(model, [finding.head]), tokenizer, SOURCES, **OPTIONS))
        assert finding.bleu == pytest.approx(bleu(lines).score)
        assert finding.loss == pytest.approx(bleu(whole).score - bleu(lines).score)
        losses = [bleu(whole, drawn).score - bleu(lines, drawn).score for drawn in samples]
        assert finding.interval == pytest.approx(half_width(np.array(losses)))
        assert finding.statistics == statistics[finding.head]
    assert [finding.head for finding in analysis.findings] == heads_of(model)
    assert any(finding.loss for finding in analysis.findings)  # or nothing would have been tested


def finding(loss, interval=1.0, confidence=0.5, kind="encoder", number=1, **fields):
    return HeadFinding(Head(kind, 1, number), HeadStatistics(confidence, 1.0, **fields), 30 - loss, loss, interval)


def test_significant_are_losses_whose_interval_leaves_out_0():
    assert [finding(loss).is_significant for loss in (-1.5, -0.5, 0.0, 1.0, 1.01)] == [True, False, False, False, True]
    assert not finding(5.0, None).is_significant


def test_positional_are_heads_that_mostly_look_at_one_neighbour():
    assert finding(0.0, most_previous=0.9, most_following=0.0).position == "previous"
    assert finding(0.0, most_previous=0.1, most_following=0.95).position == "following"
    assert finding(0.0, most_previous=0.89, most_following=0.0).position is None
    assert finding(0.0, kind="cross").position is None


def test_ranks_and_agreement_are_of_the_losses():
    findings = [finding(loss, confidence=loss / 10, number=index) for index, loss in enumerate((1.0, 3.0, -2.0))]
    analysis = HeadAnalysis(Score(30.0, "signature"), 5, [*findings, finding(2.0, kind="cross")])
    assert [each.loss for each in analysis.ranked()] == [3.0, 2.0, 1.0, -2.0]
    assert analysis.agreement("encoder") == pytest.approx(1)
    assert analysis.agreement("cross") is None
    assert analysis.agreement("decoder") is None


def test_rank_correlation_is_pearsons_of_mean_ranks():
    assert rank_correlation([1, 5, 9], [3, 2, -7]) == pytest.approx(-1)
    ranks = [[1.5, 3, 1.5, 4.5, 4.5], [2, 2, 4, 5, 2]]
    found = rank_correlation([0.1, 0.2, 0.1, 7, 7], [0, 0, 3, 4, 0])
    assert found == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
