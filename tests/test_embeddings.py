"""Token embeddings by themselves; test_paper_conformance.py has them in the model."""

import math

import pytest
import torch

from hf_vanilla_transformer.embeddings import TokenEmbedding


@pytest.mark.parametrize("d_model", [1, 5, 512])
def test_a_token_embedding_is_its_row_times_sqrt_d_model(d_model):
    embedding = TokenEmbedding(20, d_model).double()
    ids = torch.tensor([[3, 7, 3], [19, 0, 1]])
    rows = embedding.weight.tolist()
    expected = [[[x * math.sqrt(d_model) for x in rows[i]] for i in sentence] for sentence in ids.tolist()]
    torch.testing.assert_close(embedding(ids), torch.tensor(expected, dtype=torch.float64), rtol=1e-15, atol=0)


def test_the_stored_matrix_is_not_scaled_and_gradients_carry_the_factor():
    embedding = TokenEmbedding(5, 16).double()
    before = embedding.weight.detach().clone()
    embedding(torch.tensor([[2, 2, 4]])).sum().backward()
    assert torch.equal(embedding.weight, before)
    expected = torch.zeros(5, 16, dtype=torch.float64)
    expected[2], expected[4] = 2 * 4.0, 4.0  # sqrt(16) a use
    assert torch.equal(embedding.weight.grad, expected)
