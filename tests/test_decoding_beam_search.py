"""Looking for the best among many scores: against sorting all of them. The search itself: test_decoding.py."""

import pytest
import torch

from hf_vanilla_transformer import decoding_beam_search as beam_search


@pytest.mark.parametrize("shape", [(2, 3, 1000), (1, 4, 641), (3, 1, 64), (2, 2, 5)])
def test_the_best_candidates_are_those_of_a_full_sort(shape):
    scores, offsets = torch.randn(shape), torch.randn(shape[:2])
    count = min(8, shape[1] * shape[2])
    values, indices = beam_search._best(scores, offsets, count)
    expected = (scores + offsets.unsqueeze(-1)).flatten(1).sort(dim=1, descending=True)
    torch.testing.assert_close(values, expected.values[:, :count])
    assert torch.equal(indices, expected.indices[:, :count])
