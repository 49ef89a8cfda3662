"""The long tasks: what is asked for is what was said, where it is said to stand, and nothing else tells it."""

import math

import pytest
import torch

from hf_vanilla_transformer.lab.long_tasks import (
    BLANK,
    FIRST,
    KEY_TOKENS,
    KEYS,
    PAIRS,
    SEPARATOR,
    START,
    TASKS,
    VALUE_TOKENS,
    VALUES,
)
from hf_vanilla_transformer.loss import IGNORED_LABEL

COPY, RETRIEVAL = TASKS["copy"], TASKS["retrieval"]


@pytest.mark.parametrize("length", [4, 10, 64])
def test_what_is_copied_is_what_was_read(length):
    examples = COPY.examples(3, length, seed=0)
    for row, labels in zip(examples.input_ids.tolist(), examples.labels.tolist(), strict=True):
        start, *symbols = row[: length // 2]
        assert (start, len(symbols)) == (START, COPY.kept(length))
        assert row == [START, *symbols, SEPARATOR, *symbols]
        assert labels == [IGNORED_LABEL] * (length // 2 + 1) + symbols
        assert all(FIRST <= symbol < COPY.vocab_size for symbol in symbols)
    assert examples.distances().tolist() == [length // 2 - 1] * (3 * (length // 2 - 1))


@pytest.mark.parametrize("length", [50, 64, 200])
def test_what_is_retrieved_is_the_value_that_its_key_was_told_with(length):
    examples = RETRIEVAL.examples(5, length, seed=0)
    for row, labels, sources in zip(*(each.tolist() for each in vars(examples).values()), strict=True):
        assert row[0] == START
        told = {KEY_TOKENS[(token - PAIRS.start) // VALUES]: place for place, token in enumerate(row) if token in PAIRS}
        assert sorted(told) == list(KEY_TOKENS)
        asked = [place for place, label in enumerate(labels) if label != IGNORED_LABEL]
        assert sorted(row[place - 1] for place in asked) == list(KEY_TOKENS)
        for place in asked:
            of_key = told[row[place - 1]]
            assert labels[place] == row[place] == VALUE_TOKENS[(row[of_key] - PAIRS.start) % VALUES]
            assert sources[place] == of_key
        assert row.count(BLANK) == length - 1 - 3 * KEYS
        assert max(row) < RETRIEVAL.vocab_size


def test_places_order_and_values_are_even():
    """Within five standard deviations, for each place, key and value."""
    count, length = 2000, 64
    examples = RETRIEVAL.examples(count, length, seed=1)
    is_pair = (examples.input_ids >= PAIRS.start)[:, 1 : length - 2 * KEYS]
    first_key, first_value = examples.input_ids[:, -2 * KEYS] - FIRST, examples.input_ids[:, -2 * KEYS + 1]
    share = KEYS / is_pair.shape[1]
    for counts, p in (
        (is_pair.sum(0), share),
        (first_key.bincount(minlength=KEYS), 1 / KEYS),
        ((first_value - VALUE_TOKENS.start).bincount(minlength=VALUES), 1 / VALUES),
    ):
        assert (counts - count * p).abs().max() < 5 * math.sqrt(count * p * (1 - p))


def test_the_share_within_reach_is_counted():
    examples = RETRIEVAL.examples(4, 100, seed=2)
    distances = [
        place - 1 - source
        for row in examples.sources.tolist()
        for place, source in enumerate(row)
        if source >= 0  # that of a label
    ]
    assert sorted(examples.distances().tolist()) == sorted(distances)
    for reach in (0, 40, 60, 100):
        assert examples.within(reach) == pytest.approx(sum(each <= reach for each in distances) / len(distances))
    assert examples.within(math.inf) == 1
    copied = COPY.examples(1, 20, seed=0)
    assert (copied.within(8), copied.within(9)) == (0, 1)


def test_a_ceiling_is_what_is_known_and_what_is_guessed():
    assert COPY.ceiling(0) == 1 / 32
    assert COPY.ceiling(1) == 1
    assert RETRIEVAL.ceiling(0.5) == 0.5 + 0.5 / VALUES


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_seed_makes_the_same_examples(task):
    first, again, other = (task.examples(2, 64, seed).input_ids for seed in (3, 3, 4))
    assert first.equal(again)
    assert not first.equal(other)


@pytest.mark.parametrize(("task", "length"), [("copy", 2), ("copy", 9), ("retrieval", 48), ("retrieval", 51)])
def test_lengths_that_a_task_does_not_have_are_refused(task, length):
    with pytest.raises(ValueError, match=f"the task '{task}' has no texts of {length} tokens; allowed: an even number"):
        TASKS[task].examples(1, length, seed=0)
    shortest = TASKS[task].shortest
    assert torch.Size([1, shortest]) == TASKS[task].examples(1, shortest, seed=0).input_ids.shape
