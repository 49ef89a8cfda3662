"""Corpora by temperature: against the formula, in memory and streamed, and the same again after a resumption."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_vanilla_transformer.data.batching import TokenBatchSampler
from hf_vanilla_transformer.data.corpora import Corpus
from hf_vanilla_transformer.data.mixing import tempered_weights
from hf_vanilla_transformer.data.streaming import corpus_shares

CORPORA = st.lists(st.tuples(st.floats(0.1, 9), st.integers(1, 10**7)), min_size=1, max_size=6)


@given(CORPORA, st.floats(1.01, 50))
def test_shares_are_the_powers_of_the_sizes_and_an_epoch_stays_as_long(corpora, temperature):
    weights, sizes = map(list, zip(*corpora, strict=True))
    made = tempered_weights(weights, sizes, temperature)
    counts = np.array(weights) * np.array(sizes)
    powers = counts ** (1 / temperature)
    np.testing.assert_allclose(np.array(made) * sizes, counts.sum() * powers / powers.sum(), rtol=1e-4)
    shares = corpus_shares([Corpus(path="x.tsv", weight=weight) for weight in weights], sizes, temperature)
    np.testing.assert_allclose(shares, powers / powers.sum(), rtol=1e-4)


def test_without_a_temperature_weights_stay_exactly_as_they_are():
    assert tempered_weights([1, 2.5, 0.3], [7, 3, 1], 1) == [1, 2.5, 0.3]


@pytest.mark.parametrize("temperature", [2, 5, 1.7])
def test_corpora_of_one_size_count_exactly_once(temperature):
    assert tempered_weights([1.0] * 15, [3600] * 15, temperature) == [1.0] * 15


def test_an_empty_corpus_is_no_problem():
    assert tempered_weights([1.0, 3.0], [0, 9], 5)[0] == 1.0
    assert tempered_weights([2.0], [0], 5) == [2.0]


@pytest.mark.parametrize("sizes", [[400, 40, 4], [300, 200, 100]])
def test_an_epoch_in_memory_has_the_sentences_of_the_formula_and_each_nearly_as_often(sizes):
    weights = tempered_weights([1.0] * 3, sizes, 5)
    corpus = np.repeat(np.arange(3), sizes)
    lengths = np.random.default_rng(0).integers(2, 20, len(corpus))
    sampler = TokenBatchSampler(lengths, lengths, 100, seed=3, weights=np.array(weights)[corpus])
    expected = sum(sizes) * np.array(sizes) ** (1 / 5) / np.sum(np.array(sizes) ** (1 / 5))
    seen, epochs = Counter(), 60
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        indices = [index for batch in sampler for _, index in batch]
        np.testing.assert_allclose(np.bincount(corpus[indices], minlength=3), expected, atol=1)
        seen.update(indices)
    for index, number in enumerate(corpus):
        # Of a group of two or three of like lengths one is drawn, or left out: 1/2 and 2/3 are as near as these come.
        assert seen[index] / epochs == pytest.approx(weights[number], abs=0.37)


def test_which_sentences_are_drawn_depends_on_seed_and_epoch_only():
    lengths = np.random.default_rng(0).integers(2, 20, 100)
    weights = np.repeat(tempered_weights([1.0, 1.0], [90, 10], 3), [90, 10])

    def epoch_of(seed, epoch):
        sampler = TokenBatchSampler(lengths, lengths, 60, seed=seed, weights=weights)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert epoch_of(1, 4) == epoch_of(1, 4)
    drawn = [
        {index for batch in epoch_of(seed, epoch) for _, index in batch} for seed, epoch in ((1, 4), (1, 5), (2, 4))
    ]
    assert drawn[0] != drawn[1]
    assert drawn[0] != drawn[2]
