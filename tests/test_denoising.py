"""BART's denoising: each step does what it is named after, as often as any other way, and steps follow steps."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from chi_square import p_value

from hf_vanilla_transformer.data.noise.denoising import STEPS, Denoising, StepOptions, check_steps

EOS, MASK, STOP = 2, 4, 5


def step(name, density=0.3, span=3.0):
    return STEPS[name](StepOptions(MASK, frozenset({STOP}), density, span))


def drawn(name, text, times, **options):
    """How often a step makes what of a text."""
    random, made = np.random.default_rng(0), step(name, **options)
    return Counter(tuple(made(list(text), random)) for _ in range(times))


def assert_equally_likely(counts, possible):
    assert set(counts) == set(possible)
    assert p_value([counts[each] for each in possible]) > 0.001


@pytest.mark.parametrize("name", STEPS)
def test_lengths_are_those_announced_and_nothing_is_invented(name):
    random = np.random.default_rng(0)
    for length in range(30):
        text = [STOP if place % 7 == 3 else 100 + place for place in range(length)]
        made = step(name)(list(text), random)
        assert len(made) == int(step(name).length(np.asarray(length)))
        kept = [token for token in made if token != MASK]
        assert not Counter(kept) - Counter(text)
        if name in ("token_masking", "token_deletion", "text_infilling"):
            noise = min(max(round(length * 0.3), 1), max(length - 1, 0))
            assert len(kept) == length - noise
            plain = [100 + place for place in range(length)]  # each token once, so that their order shows
            kept = [token for token in step(name)(list(plain), random) if token != MASK]
            assert kept == [token for token in plain if token in set(kept)]
        else:
            assert Counter(kept) == Counter(text)


def test_masks_and_deletions_are_any_choice_of_tokens():
    text = range(100, 105)
    pairs = list(itertools.combinations(text, 2))
    masked = [tuple(MASK if token in pair else token for token in text) for pair in pairs]
    deleted = [tuple(token for token in text if token not in pair) for pair in pairs]
    assert_equally_likely(drawn("token_masking", text, 4000, density=0.4), masked)
    assert_equally_likely(drawn("token_deletion", text, 4000, density=0.4), deleted)


def test_holes_have_poisson_lengths_given_their_sum_and_stand_anywhere():
    # 4 of 8 tokens in 2 holes: lengths (k, 4 - k) with probability binomial(4, k) / 16, 15 pairs of places for each.
    text = list(range(100, 108))
    expected = {}
    for places in itertools.combinations(range(6), 2):
        for first in range(5):
            sizes, made, position = [first, 4 - first], [], 0
            for place in range(6):
                if place in places:
                    made.append(MASK)
                    position += sizes.pop(0)
                else:
                    made.append(text[position])
                    position += 1
            key = tuple(made)
            expected[key] = expected.get(key, 0) + math.comb(4, first) / 16 / 15
    counts = drawn("text_infilling", text, 4000, density=0.5, span=2.0)
    assert set(counts) <= set(expected)
    observed = [counts[each] for each in expected]
    assert p_value(observed, [4000 * share for share in expected.values()]) > 0.001
    # In a long text each hole by itself is nearly Poisson's: mean and variance are the average length.
    random, made, lengths = np.random.default_rng(1), step("text_infilling"), []
    for _ in range(20):
        masked = made(list(range(1000, 2000)), random)
        before = 999
        for place, token in enumerate([*masked, 2000]):
            if token != MASK:
                if masked[place - 1] == MASK and (place < 2 or masked[place - 2] != MASK):
                    lengths.append(token - before - 1)
                before = token
    assert np.mean(lengths) == pytest.approx(3, rel=0.05)
    assert np.var(lengths) == pytest.approx(3, rel=0.15)
    assert 0 in lengths


def test_sentences_come_in_any_order_and_a_text_begins_with_any_token():
    text = [10, STOP, 11, 12, STOP, STOP, 13]  # the last has no full stop, the second two in a row
    sentences = [(10, STOP), (11, 12, STOP, STOP), (13,)]
    orders = [sum(order, ()) for order in itertools.permutations(sentences)]
    assert_equally_likely(drawn("sentence_permutation", text, 3000), orders)
    assert drawn("sentence_permutation", [10, 11, STOP], 9) == {(10, 11, STOP): 9}
    turned = [(*range(first, 14), *range(10, first)) for first in range(10, 14)]
    assert_equally_likely(drawn("document_rotation", range(10, 14), 2000), turned)


def test_steps_follow_one_another_in_the_order_that_is_given():
    options = StepOptions(MASK, frozenset({STOP}), 0.4, 1.0)
    text = [*range(100, 104), STOP, *range(104, 108), STOP]
    for names in (["token_deletion", "text_infilling"], ["sentence_permutation", "text_infilling", "token_masking"]):
        whole = Denoising(names, options, EOS)
        made = whole(np.array(text), np.random.default_rng(7))
        random, damaged = np.random.default_rng(7), text
        for name in names:
            damaged = STEPS[name](options)(damaged, random)
        assert made == {"input_ids": [*damaged, EOS], "labels": [*text, EOS]}
        lengths = whole.lengths(np.array([len(text)]))
        assert (len(made["input_ids"]), len(made["labels"])) == (lengths[0][0], lengths[1][0])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "denoising_steps is empty"),
        (["infilling"], "denoising_steps has 'infilling', which is none of token_masking"),
        (["token_masking", "token_masking"], "denoising_steps has token_masking twice"),
    ],
)
def test_steps_that_there_are_not_are_refused(steps, message):
    with pytest.raises(ValueError, match=message):
        check_steps(steps)
    with pytest.raises(ValueError, match="`mean_span_length`=0.5 is less than one token"):
        Denoising(["text_infilling"], StepOptions(MASK, mean_span_length=0.5), EOS)
