"""Batches of sentences of like length."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_vanilla_transformer.inference.batching import padded_batch, sorted_batches, token_batches


@given(st.lists(st.integers(0, 50)), st.integers(1, 7))
def test_every_sentence_is_in_one_batch_and_none_is_longer_than_one_in_a_batch_before(lengths, batch_size):
    batches = list(sorted_batches(lengths, batch_size))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    flat = [lengths[index] for batch in batches for index in batch]
    assert flat == sorted(flat, reverse=True)


def test_padding_is_on_the_right_masked_and_ignored_by_the_loss():
    batch = padded_batch([{"input_ids": [5, 6, 2], "labels": [7, 2]}, {"input_ids": [5, 2], "labels": [8, 9, 2]}], 1)
    assert torch.equal(batch["input_ids"], torch.tensor([[5, 6, 2], [5, 2, 1]]))
    assert torch.equal(batch["attention_mask"], torch.tensor([[1, 1, 1], [1, 1, 0]]))
    assert torch.equal(batch["labels"], torch.tensor([[7, 2, -100], [8, 9, 2]]))


def test_without_labels_there_are_none_and_without_a_pad_token_masked_places_hold_0():
    batch = padded_batch([{"input_ids": [5, 2], "source": "text"}, {"input_ids": [2]}], None)
    assert set(batch) == {"input_ids", "attention_mask"}
    assert torch.equal(batch["input_ids"], torch.tensor([[5, 2], [2, 0]]))


def test_token_batches_hold_each_sentence_once_the_longest_first_and_no_more_tokens_than_allowed():
    lengths = [3, 50, 7, 1, 7, 12, 2, 3, 0]
    batches = list(token_batches(lengths, 14))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    in_order = [lengths[index] for batch in batches for index in batch]
    assert in_order == sorted(lengths, reverse=True)
    for batch, following in zip(batches, [*batches[1:], None]):
        longest = lengths[batch[0]]
        assert len(batch) == 1 or len(batch) * longest <= 14
        assert following is None or (len(batch) + 1) * longest > 14  # and is as full as can be
