"""Attention before the Transformer, against the formulas of its papers, number by number in float64."""

import math

import pytest
import torch

from hf_vanilla_transformer.lab.recurrent_attention import ATTENTIONS
from hf_vanilla_transformer.lab.recurrent_configuration import RecurrentConfig

WIDTH = 6


def built(kind):
    attention = ATTENTIONS[kind](RecurrentConfig(vocab_size=9, d_model=WIDTH, attention=kind)).double()
    attention.requires_grad_(False)
    torch.nn.init.normal_(attention.key_proj.weight)
    if kind == "additive":
        torch.nn.init.normal_(attention.key_proj.bias)
    return attention


def product(matrix, vector):
    return [sum(float(matrix[i, j]) * vector[j] for j in range(len(vector))) for i in range(len(matrix))]


def additive(attention, h, s):
    """Bahdanau et al. (2015): v^T tanh(W h + U s + b)."""
    w, u, b = attention.key_proj.weight, attention.query_proj.weight, attention.key_proj.bias.tolist()
    inner = [math.tanh(x + y + z) for x, y, z in zip(product(w, h), product(u, s), b)]
    return sum(v * x for v, x in zip(attention.score_proj.weight[0].tolist(), inner))


def multiplicative(attention, h, s):
    """Luong et al. (2015): (W h)^T s."""
    return sum(x * y for x, y in zip(product(attention.key_proj.weight, h), s))


@pytest.mark.parametrize(("kind", "formula"), [("additive", additive), ("multiplicative", multiplicative)])
def test_scores_weights_and_contexts_are_those_of_the_paper(kind, formula):
    attention = built(kind)
    states, queries = torch.randn(2, 4, WIDTH).double(), torch.randn(2, 3, WIDTH).double()
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0]])
    contexts, weights = attention(queries, attention.key_proj(states), states, mask)
    for row in range(2):
        tokens = mask[row].nonzero().flatten().tolist()
        for position in range(3):
            scores = [formula(attention, states[row, j].tolist(), queries[row, position].tolist()) for j in tokens]
            total = sum(math.exp(score) for score in scores)
            expected = [math.exp(score) / total for score in scores]
            assert weights[row, position, tokens].tolist() == pytest.approx(expected, rel=1e-10)
            assert float(weights[row, position].sum()) == pytest.approx(1)
            context = sum(weight * states[row, j] for weight, j in zip(expected, tokens))
            torch.testing.assert_close(contexts[row, position], context)


def test_a_source_of_padding_alone_gives_numbers():
    attention = built("multiplicative")
    states = torch.zeros(1, 3, WIDTH).double()
    contexts, weights = attention(torch.ones(1, 1, WIDTH).double(), states, states, torch.zeros(1, 3))
    assert contexts.isfinite().all()
    assert float(weights.sum()) == pytest.approx(1)
