"""Masked language modelling: BERT's numbers, by counting, and labels that undo what was done."""

import itertools
from collections import Counter

import numpy as np
import pytest
from chi_square import p_value

from hf_vanilla_transformer.data.noise.masking import MASKED, REPLACED, MaskedLanguageModelling
from hf_vanilla_transformer.loss import IGNORED_LABEL

EOS, MASK = 2, 4
WORDS = list(range(10, 60))
objective = MaskedLanguageModelling(MASK, EOS, WORDS)


@pytest.mark.parametrize("length", [0, 1, 2, 7, 40])
def test_labels_put_back_what_is_hidden_and_nothing_else_has_one(length):
    random = np.random.default_rng(0)
    text = [10 + place % 50 for place in range(length)]
    for _ in range(50):
        made = objective(np.array(text), random)
        assert len(made["input_ids"]) == len(made["labels"]) == length + 1
        restored = [
            given if label == IGNORED_LABEL else label for given, label in zip(made["input_ids"], made["labels"])
        ]
        assert restored == [*text, EOS]
        predicted = sum(label != IGNORED_LABEL for label in made["labels"])
        assert predicted == (max(round(length * 0.15), 1) if length else 0)
        assert made["labels"][-1] == IGNORED_LABEL, "the end of a text is never masked"
        assert tuple(int(each) for each in objective.lengths(length)) == (length + 1, length + 1)


def test_of_the_predicted_tokens_so_many_are_masked_replaced_and_kept():
    random = np.random.default_rng(1)
    text = [10] * 200
    fates, others = Counter(), Counter()
    for _ in range(400):
        made = objective(text, random)
        for given, label in zip(made["input_ids"], made["labels"]):
            if label != IGNORED_LABEL:
                fates["masked" if given == MASK else "kept" if given == 10 else "replaced"] += 1
                others[given] += given not in (10, MASK)
    total = fates.total()
    assert total == 400 * 30
    # A random token is the one that stood there once in 50 times.
    shares = {"masked": MASKED, "replaced": REPLACED * 49 / 50, "kept": 1 - MASKED - REPLACED * 49 / 50}
    expected = [total * shares[name] for name in fates]
    assert p_value(list(fates.values()), expected) > 0.001
    drawn = [others[word] for word in WORDS if word != 10]
    assert p_value(drawn) > 0.001, "each other word is as likely"


def test_every_choice_of_places_is_equally_likely():
    random = np.random.default_rng(2)
    made = MaskedLanguageModelling(MASK, EOS, WORDS, noise_density=0.4)
    places = list(itertools.combinations(range(5), 2))
    counts = Counter(
        tuple(place for place, label in enumerate(made(range(10, 15), random)["labels"]) if label != IGNORED_LABEL)
        for _ in range(400 * len(places))
    )
    assert set(counts) == set(places)
    assert p_value(list(counts.values())) > 0.001
