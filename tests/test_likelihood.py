"""Perplexity of given labels: against the softmax of the logits, one sentence at a time."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

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


@pytest.mark.parametrize("batch_tokens", [1, 12, 4096])
def test_sum_over_all_labels_without_smoothing_whatever_the_batches(model, batch_tokens):
    data = examples()
    with pytest.raises(ValueError, match="is in training mode"):
        label_likelihood(model.train(), data, batch_tokens)
    result = label_likelihood(model.eval(), data, batch_tokens)
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


def random_examples(lengths):
    ids = [torch.randint(4, 30, (2, length)).tolist() for length in lengths]
    return [{"input_ids": source, "labels": labels} for source, labels in ids]


def test_a_long_sentence_is_scored_alone_and_batches_hold_as_many_tokens_as_they_may(model):
    shapes = []
    model.register_forward_pre_hook(
        lambda _, args, inputs: shapes.append((inputs["input_ids"].shape, inputs["labels"].shape)), with_kwargs=True
    )
    label_likelihood(model.eval(), random_examples([3, 90, 5, 4, *[10] * 40]), batch_tokens=80)
    assert shapes[0] == ((1, 90), (1, 90))
    assert all(rows * length <= 80 for sides in shapes[1:] for rows, length in sides)
    assert len(shapes) <= 2 + 1 + 40 * 10 // 80
    with pytest.raises(ValueError, match="`batch_tokens`=0"):
        label_likelihood(model, random_examples([3]), batch_tokens=0)


class LargestTensor(TorchDispatchMode):
    """Measures the tensors that torch makes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            self.numel = max(self.numel, each.numel() if isinstance(each, torch.Tensor) else 0)
        return result


def test_the_logits_of_all_tokens_never_exist_at_one_time():
    vocab_size, num_tokens = 20_000, 2048
    config = VanillaTransformerConfig(
        vocab_size=vocab_size, d_model=8, num_heads=1, d_ff=8, num_encoder_layers=1, num_decoder_layers=1
    )
    model = VanillaTransformerForConditionalGeneration(config).eval()
    with LargestTensor() as largest:
        result = label_likelihood(model, random_examples([32] * 64))
    assert result.num_tokens == num_tokens
    assert vocab_size * 8 <= largest.numel < vocab_size * num_tokens / 2


def test_perplexity_of_a_hopeless_model_is_infinite_and_of_nothing_is_1():
    assert LabelLikelihood(nll=1e6, num_tokens=2).perplexity == math.inf
    assert LabelLikelihood(nll=0.0, num_tokens=0).perplexity == 1.0
