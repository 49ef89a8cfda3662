"""Span corruption: nothing is lost, the lengths are those announced, and every mask is as likely as any other."""

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_vanilla_transformer.data.noise.span_corruption import span_corruption, span_corruption_lengths

EOS = 2
SENTINELS = list(range(100, 200))
bounded = settings(max_examples=300)
densities = st.floats(0.01, 0.99)
span_lengths = st.floats(1, 20)


def corrupt(length, seed=0, num_sentinels=100, **options):
    """Input and target of the text 1000, 1001, ..., so that a token says where it stood."""
    tokens = range(1000, 1000 + length)
    return span_corruption(tokens, SENTINELS[:num_sentinels], np.random.default_rng(seed), **options, eos_token_id=EOS)


def spans_of(target):
    """What each sentinel of a target stands for, in order."""
    assert target[-1] == EOS
    spans = {}
    for token in target[:-1]:
        if token in SENTINELS:
            assert token not in spans
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    return spans


def merged(source, target):
    """The text, from an input and its target."""
    spans = spans_of(target)
    assert source[-1] == EOS
    return [token for piece in source[:-1] for token in spans.get(piece, [piece])]


def mask_of(source, length):
    """For each token, whether it is noise."""
    return tuple(1000 + place not in source for place in range(length))


def runs(mask):
    return sum(is_noise for is_noise, _ in itertools.groupby(mask))


# --- Any text, any options.


@bounded
@given(st.integers(0, 200), st.integers(0, 2**32), st.integers(1, 100), densities, span_lengths)
def test_input_and_target_together_are_the_text(length, seed, num_sentinels, density, span_length):
    source, target = corrupt(length, seed, num_sentinels, noise_density=density, mean_span_length=span_length)
    assert merged(source, target) == list(range(1000, 1000 + length))
    spans = spans_of(target)
    assert list(spans) == SENTINELS[: len(spans)] == [token for token in source if token in SENTINELS]
    assert all(spans.values())
    mask = mask_of(source, length)
    assert runs(mask) == len(spans)  # no two spans touch, so no sentinel follows another
    if length >= 2:
        assert any(mask)
        assert not all(mask)


@bounded
@given(st.integers(0, 300), st.integers(0, 2**32), st.integers(1, 100), densities, span_lengths)
def test_lengths_are_those_announced_whatever_is_drawn(length, seed, num_sentinels, density, span_length):
    source, target = corrupt(length, seed, num_sentinels, noise_density=density, mean_span_length=span_length)
    assert (len(source), len(target)) == span_corruption_lengths(length, num_sentinels, density, span_length)


@bounded
@given(st.lists(st.integers(0, 1000), max_size=20), st.integers(1, 100), densities, span_lengths)
def test_lengths_of_many_texts_are_those_of_each(lengths, num_sentinels, density, span_length):
    options = (num_sentinels, density, span_length)
    inputs, targets = span_corruption_lengths(np.array(lengths, dtype=np.int32), *options)
    assert inputs.shape == targets.shape == (len(lengths),)
    assert [*zip(inputs, targets)] == [span_corruption_lengths(length, *options) for length in lengths]


def test_amount_of_noise_and_number_of_spans_follow_the_formula():
    for length in range(2, 500):
        # By exact arithmetic, where round takes halves to the even number. 0.25 and 2.5 are exact in binary too.
        noise = min(max(round(length * Fraction(1, 4)), 1), length - 1)
        spans = min(max(round(noise / Fraction(5, 2)), 1), 40)
        source, target = corrupt(length, num_sentinels=40, noise_density=0.25, mean_span_length=2.5)
        assert sum(mask_of(source, length)) == noise
        assert len(spans_of(target)) == spans
        assert (len(source), len(target)) == (length - noise + spans + 1, noise + spans + 1)


def test_defaults_are_those_of_t5():
    # T5: texts of 512 tokens, 15 % of noise in spans of 3 tokens: 77 tokens in 26 spans.
    inputs, targets = span_corruption_lengths(512, 100)
    assert (inputs, targets) == (512 - 77 + 26 + 1, 77 + 26 + 1)
    source, target = corrupt(512)
    assert (len(source), len(target)) == (inputs, targets)


def test_the_example_of_the_documentation():
    words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
    vocabulary = {word: number for number, word in enumerate(words, start=3)}
    wanted = (
        "Thank you <sentinel_0> me to your party <sentinel_1> week </s>",
        "<sentinel_0> for inviting <sentinel_1> last </s>",
    )
    names = {number: word for word, number in vocabulary.items()} | {
        100: "<sentinel_0>",
        101: "<sentinel_1>",
        2: "</s>",
    }
    found = set()
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        ids = span_corruption(list(vocabulary.values()), SENTINELS, rng, 0.3, 1.5, eos_token_id=EOS)
        found.add(tuple(" ".join(names[number] for number in side) for side in ids))
    assert wanted in found


# --- Little text, few sentinels, much noise.


def test_a_text_of_one_token_or_none_is_kept():
    for density in (0.01, 0.5, 0.99):
        assert corrupt(0, noise_density=density) == ([EOS], [EOS])
        assert corrupt(1, noise_density=density) == ([1000, EOS], [EOS])


def test_of_two_tokens_either_may_be_noise():
    sides = {tuple(map(tuple, corrupt(2, seed))) for seed in range(50)}
    assert sides == {((100, 1001, EOS), (100, 1000, EOS)), ((1000, 100, EOS), (100, 1001, EOS))}


def test_few_sentinels_make_fewer_spans_and_not_less_noise():
    many, few = corrupt(512), corrupt(512, num_sentinels=5)
    assert sum(mask_of(few[0], 512)) == sum(mask_of(many[0], 512))
    assert list(spans_of(few[1])) == SENTINELS[:5]


def test_spans_are_no_more_than_kept_tokens_can_part():
    # 9 of 10 are noise, in spans of one: but one kept token parts only two spans.
    source, target = corrupt(10, noise_density=0.9, mean_span_length=1)
    assert len(spans_of(target)) == 2
    assert sum(mask_of(source, 10)) == 9


def test_an_array_gives_lists_of_plain_integers():
    rng = np.random.default_rng(0)
    for side in span_corruption(np.arange(1000, 1050), np.array(SENTINELS).tolist(), rng, eos_token_id=EOS):
        assert isinstance(side, list)
        assert {type(token) for token in side} == {int}


# --- What is drawn.


def test_the_same_generator_state_gives_the_same_spans_and_another_gives_others():
    assert corrupt(200, seed=1) == corrupt(200, seed=1)
    assert corrupt(200, seed=1) != corrupt(200, seed=2)
    rng = np.random.default_rng(1)
    first, second = (span_corruption(range(1000, 1200), SENTINELS, rng, eos_token_id=EOS) for _ in range(2))
    assert first != second


def test_noise_and_spans_have_the_density_and_the_length_asked_for():
    # Summed over lengths, what is rounded up and down evens out.
    for density, span_length in ((0.15, 3.0), (0.5, 5.0), (0.3, 1.7)):
        noise = spans = tokens = 0
        for length in range(100, 400):
            source, target = corrupt(length, length, noise_density=density, mean_span_length=span_length)
            noise += sum(mask_of(source, length))
            spans += len(spans_of(target))
            tokens += length
        assert noise / tokens == pytest.approx(density, rel=0.01)
        assert noise / spans == pytest.approx(span_length, rel=0.01)


@pytest.mark.parametrize(
    ("length", "density", "span_length", "num_sentinels"),
    [(8, 0.4, 1.5, 100), (9, 0.5, 1.3, 100), (10, 0.15, 3.0, 100), (7, 0.7, 1.0, 100), (9, 0.6, 1.0, 2)],
)
def test_every_mask_is_equally_likely(length, density, span_length, num_sentinels):
    options = {"noise_density": density, "mean_span_length": span_length, "num_sentinels": num_sentinels}
    noise, spans = (sum(mask_of(corrupt(length, **options)[0], length)), len(spans_of(corrupt(length, **options)[1])))
    allowed = [
        mask for mask in itertools.product([False, True], repeat=length) if sum(mask) == noise and runs(mask) == spans
    ]
    assert len(allowed) >= 6
    rng = np.random.default_rng(0)
    samples = 400 * len(allowed)
    counts = Counter(
        mask_of(
            span_corruption(
                range(1000, 1000 + length), SENTINELS[:num_sentinels], rng, density, span_length, eos_token_id=EOS
            )[0],
            length,
        )
        for _ in range(samples)
    )
    assert set(counts) == set(allowed)
    chi_square = sum((count - 400) ** 2 / 400 for count in counts.values())
    freedom = len(allowed) - 1  # the mean of chi-square; its variance is twice that
    assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5 + 4


# --- What is refused.


@pytest.mark.parametrize("density", [0, 1, -0.1, 1.5, float("nan")])
def test_a_density_that_is_no_share_is_refused(density):
    with pytest.raises(ValueError, match=rf"`noise_density`={density} "):
        corrupt(10, noise_density=density)
    with pytest.raises(ValueError, match=rf"`noise_density`={density} "):
        span_corruption_lengths(10, 100, noise_density=density)


@pytest.mark.parametrize("span_length", [0, 0.9, -3, float("nan")])
def test_spans_shorter_than_a_token_are_refused(span_length):
    with pytest.raises(ValueError, match=rf"`mean_span_length`={span_length} "):
        corrupt(10, mean_span_length=span_length)


def test_no_sentinels_are_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"^0 sentinel tokens.*`num_sentinels`"):
        corrupt(10, num_sentinels=0)


def test_negative_lengths_are_refused():
    with pytest.raises(ValueError, match="-2"):
        span_corruption_lengths(np.array([3, -2]), 100)


def test_a_text_that_has_its_end_token_is_refused():
    with pytest.raises(ValueError, match=r"\(id 2\) at position 1"):
        span_corruption([5, 2, 7], SENTINELS, np.random.default_rng(0), eos_token_id=EOS)
