"""The projection of few rows: against float64."""

import pytest
import torch

from hf_vanilla_transformer import decoding_projection


@pytest.mark.parametrize("vocab_size", [60, 61])
@pytest.mark.parametrize("few_rows", [0, 5, 64])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_section_3_4_a_decoding_projection_of_few_rows(vocab_size, few_rows, has_bias, threads, monkeypatch):
    monkeypatch.setattr(decoding_projection, "_FEW_ROWS", few_rows)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    weight, bias = torch.randn(vocab_size, 16), torch.randn(vocab_size) if has_bias else None
    project = decoding_projection.SlicedProjection(weight, bias)
    for shape in [(1, 1), (2, 4), (3, 3), (5, 7), (2, 1), (1, 1), (4, 2)]:  # memory grows, and is used again
        states = torch.randn(*shape, 16)
        expected = states.double() @ weight.double().t() + (0 if bias is None else bias.double())
        torch.testing.assert_close(project(states).double(), expected, rtol=0, atol=1e-5)
