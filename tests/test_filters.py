"""What is left out of a corpus, each pair under one reason, and what is said of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_vanilla_transformer.data.filters import FilterCounts, Filters

REASONS = ("empty", "duplicate", "too_long", "beyond_positions", "unequal")


def apply(filters, pairs):
    """Indices and counts for pairs of words, of which each is a token, as is the end."""
    lengths = [np.array([len(pair[side].split()) + 1 for pair in pairs], dtype=np.int64) for side in (0, 1)]
    blank = np.array([not all(text.strip() for text in pair) for pair in pairs], dtype=bool)
    numbers = {pair: number for number, pair in enumerate(pairs)}
    kept, counts = filters.apply(lengths, blank, np.array([numbers[pair] for pair in pairs], dtype=np.int64))
    return kept.tolist(), counts


SIDES = st.integers(0, 6).map(lambda count: " ".join(["w"] * count) or "  ") | st.sampled_from(["a", "b c", "", "\t"])


@settings(max_examples=150)
@given(
    pairs=st.lists(st.tuples(SIDES, SIDES), max_size=30),
    max_length=st.none() | st.integers(1, 7),
    ratio=st.none() | st.sampled_from([1.0, 1.5, 2.0, 3.0]),
    drop_duplicates=st.booleans(),
    max_positions=st.none() | st.integers(1, 7),
)
def test_every_pair_is_kept_or_counted_under_one_reason(pairs, max_length, ratio, drop_duplicates, max_positions):
    kept, reasons, seen = [], dict.fromkeys(REASONS, 0), set()
    for index, (source, target) in enumerate(pairs):
        a, b = len(source.split()) + 1, len(target.split()) + 1
        if a == 1 or b == 1:
            reasons["empty"] += 1
        elif drop_duplicates and (source, target) in seen:
            reasons["duplicate"] += 1
        elif max_length is not None and (a > max_length or b > max_length):
            reasons["too_long"] += 1
        elif max_positions is not None and (a > max_positions or b > max_positions):
            reasons["beyond_positions"] += 1
        elif ratio is not None and (a / b > ratio or b / a > ratio):
            reasons["unequal"] += 1
        else:
            kept.append(index)
        seen.add((source, target))
    found, counts = apply(Filters(max_length, ratio, drop_duplicates, max_positions), pairs)
    assert found == kept
    assert vars(counts) == {"read": len(pairs), "kept": len(kept), **reasons}


def test_a_length_of_exactly_the_most_is_kept():
    pairs = [("a b c", "a"), ("a b c d", "a"), ("a", "a b c d e")]
    for filters in (Filters(max_length=4, max_length_ratio=2.0), Filters(max_positions=4)):
        assert apply(filters, pairs)[0] == [0]


def test_texts_without_target_are_filtered_by_their_one_side():
    blank = np.array([False, True, False, False])
    kept, counts = Filters(3, 1.0, True).apply([np.array([3, 1, 3, 4])], blank, np.array([5, 6, 5, 7]))
    assert kept.tolist() == [0]
    expected = dict.fromkeys(REASONS, 0) | {"empty": 1, "duplicate": 1, "too_long": 1}
    assert vars(counts) == {"read": 4, "kept": 1, **expected}


def test_tokens_besides_those_of_a_text_take_positions_too():
    lengths = [np.array([8, 9, 10])]
    kept, counts = Filters(max_positions=10, extra_tokens=1).apply(lengths, np.zeros(3, dtype=bool))
    assert kept.tolist() == [0, 1]
    assert counts.beyond_positions == 1


def test_counts_add_up():
    first, second = FilterCounts(7, 1, 2, 3, 4, 5, 6), FilterCounts(10, 20, 30, 40, 50, 60, 70)
    assert first + second == FilterCounts(17, 21, 32, 43, 54, 65, 76)


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        (Filters(), "1 with an empty side"),
        (Filters(9), "1 with an empty side, 3 longer than max_length=9 tokens"),
        (Filters(drop_duplicates=True), "1 with an empty side, 2 seen before"),
        (Filters(max_positions=64), "1 with an empty side, 4 longer than the model's 64 learned positions"),
        (Filters(max_length_ratio=1.5), "1 with an empty side, 5 beyond max_length_ratio=1.5"),
    ],
)
def test_what_is_said_names_the_filters_that_are_on(filters, said):
    counts = FilterCounts(read=20, kept=5, empty=1, duplicate=2, too_long=3, beyond_positions=4, unequal=5)
    assert filters.describe("a set", counts) == f"a set: 5 of 20 kept; left out: {said}"
