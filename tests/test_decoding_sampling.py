"""Looking for the most probable token among many: against argmax. Greedy search and sampling: test_decoding.py."""

import pytest
import torch

from hf_vanilla_transformer import decoding_sampling


@pytest.mark.parametrize("vocab_size", [64, 65, 127, 1000])
def test_the_most_probable_token_is_the_first_of_the_largest(vocab_size, monkeypatch):
    monkeypatch.setattr(decoding_sampling, "_WORTH_CHUNKS", 0)
    for distinct in (2, 5, 10**6):
        scores = torch.randint(0, distinct, (40, vocab_size)).float()
        scores[3] = -torch.inf
        scores[4, -1] = torch.nan
        side_by_side = scores.t().contiguous().t()
        assert torch.equal(decoding_sampling.most_probable(scores), scores.argmax(-1))
        assert torch.equal(decoding_sampling.most_probable(side_by_side), scores.argmax(-1))
        assert torch.equal(decoding_sampling.most_probable(side_by_side[:1]), scores[:1].argmax(-1))
