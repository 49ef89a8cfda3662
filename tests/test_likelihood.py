"""Perplexity of given labels: against the softmax of the logits, one sentence at a time."""

import math

import pytest
import torch

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.evaluation import LabelLikelihood, label_likelihood


@pytest.fixture
def model():
    config = VanillaTransformerConfig(
        vocab_size=30, d_model=16, num_heads=2, d_ff=32, num_encoder_layers=1, num_decoder_layers=1
    )
    return VanillaTransformerForConditionalGeneration(config)


def examples():
    lengths = [(3, 9), (8, 1), (5, 5), (1, 2), (7, 4)]
    return [
        {"input_ids": torch.randint(4, 30, (s,)).tolist(), "labels": torch.randint(4, 30, (t,)).tolist(), "source": "x"}
        for s, t in lengths
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_sum_over_all_labels_without_smoothing_whatever_the_batches(model, batch_size):
    data = examples()
    with pytest.raises(ValueError, match="is in training mode"):
        label_likelihood(model.train(), data, batch_size)
    result = label_likelihood(model.eval(), data, batch_size)
    expected = 0.0
    for example in data:
        labels = example["labels"]
        logits = model(
            input_ids=torch.tensor([example["input_ids"]]), decoder_input_ids=torch.tensor([[0, *labels[:-1]]])
        ).logits[0]
        log_probs = logits.double().log_softmax(-1)
        expected -= sum(log_probs[position, label].item() for position, label in enumerate(labels))
    assert result.num_tokens == sum(len(example["labels"]) for example in data)
    assert result.nll == pytest.approx(expected, rel=1e-6)
    assert result.perplexity == pytest.approx(math.exp(expected / result.num_tokens), rel=1e-5)


def test_perplexity_of_a_hopeless_model_is_infinite_and_of_nothing_is_1():
    assert LabelLikelihood(nll=1e6, num_tokens=2).perplexity == math.inf
    assert LabelLikelihood(nll=0.0, num_tokens=0).perplexity == 1.0
