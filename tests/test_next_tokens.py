"""Causal and prefix language modelling: labels that are the text, and prefixes that end anywhere."""

from collections import Counter

import numpy as np
import pytest
from chi_square import p_value

from hf_vanilla_transformer.data.noise.next_tokens import CausalLanguageModelling, PrefixLanguageModelling
from hf_vanilla_transformer.loss import IGNORED_LABEL

BOS, EOS = 0, 2


@pytest.mark.parametrize("length", [0, 1, 5])
def test_every_token_and_the_end_is_predicted_from_those_before_it(length):
    text = list(range(10, 10 + length))
    objective = CausalLanguageModelling(BOS, EOS)
    made = objective(text, np.random.default_rng(0))
    assert made == {"input_ids": [BOS, *text, EOS], "labels": [IGNORED_LABEL, *text, EOS]}
    assert tuple(int(each) for each in objective.lengths(length)) == (length + 2, length + 2)


@pytest.mark.parametrize("length", [0, 1, 2, 6])
def test_what_follows_a_prefix_is_predicted_and_prefixes_end_anywhere(length):
    text = list(range(10, 10 + length))
    objective, random = PrefixLanguageModelling(BOS, EOS), np.random.default_rng(1)
    counts = Counter()
    for _ in range(1000):
        made = objective(np.array(text), random)
        prefix = made["prefix_length"]
        assert made["input_ids"] == [BOS, *text, EOS]
        assert made["labels"] == [IGNORED_LABEL] * prefix + [*text, EOS][prefix - 1 :]
        counts[prefix] += 1
    # `<s>` and 1 to n - 1 tokens: something to see, and something to say besides the end.
    assert set(counts) == (set(range(2, length + 1)) if length > 1 else {1})
    if length > 2:
        assert p_value(list(counts.values())) > 0.001
