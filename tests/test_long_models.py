"""The models of the long tasks: how far they see, the operations that torch counts, and how they are tested."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from torch.utils.flop_counter import FlopCounterMode

from hf_vanilla_transformer.lab import long_models
from hf_vanilla_transformer.lab.long_models import (
    ATTENTIONS,
    ELU,
    FULL,
    LOCAL,
    PROGRAMS,
    RANDOM,
    accuracy,
    build_long_model,
    capacity,
    model_operations,
    reach,
)
from hf_vanilla_transformer.lab.long_tasks import TASKS

MASKED, BLOCKS = "window as a mask (sdpa)", "window in blocks (flex)"


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_nothing_is_known_beyond_the_reach_and_something_within_it(attention):
    torch.manual_seed(0)
    model = build_long_model(TASKS["copy"], attention).double().eval()
    ids = TASKS["copy"].examples(1, 150, seed=0).input_ids
    changed = ids.clone()
    changed[0, 5] = 6 + (changed[0, 5] - 5) % 32  # another symbol
    with torch.no_grad():
        is_other = (model(input_ids=ids).logits != model(input_ids=changed).logits).any(-1)[0]
    last = min(5 + reach(attention), 149)
    assert is_other.nonzero().flatten().tolist() == list(range(5, int(last) + 1))


def test_only_linear_attention_has_a_capacity_the_features_of_all_heads():
    assert capacity(FULL) is capacity(LOCAL) is None
    for attention in (ELU, RANDOM):
        model = build_long_model(TASKS["copy"], attention)
        layer = model.model.layers[0].self_attention
        features = layer.feature_map(torch.zeros(1, layer.d_k), are_keys=True)
        assert capacity(attention) == model.config.num_heads * features.shape[-1]


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != BLOCKS])
@pytest.mark.parametrize("length", [64, 150])
def test_operations_are_those_that_torch_counts(name, length):
    """Of written-out attention and of logits, because torch does not count a fused attention or a fused loss."""
    task, program = TASKS["retrieval"], PROGRAMS[name]
    model, examples = build_long_model(task, program.attention, "eager").eval(), task.examples(1, length, seed=0)
    predicts = examples.labels.roll(-1, dims=1) >= 0
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=examples.input_ids, logits_to_keep=predicts, use_cache=False)
    labels = task.kept(length)
    assert counter.get_total_flops() == model_operations(program, length, labels, task.vocab_size)


def test_operations_of_a_window_in_blocks_are_linear():
    blocks, full = (
        [model_operations(PROGRAMS[name], length, 16, 294) / length for length in (2048, 8192)]
        for name in (BLOCKS, MASKED)
    )
    assert blocks[1] == pytest.approx(blocks[0], rel=0.05)
    assert full[1] > 3 * full[0]


@pytest.mark.slow  # some seconds: even uncompiled, flex attention is traced
def test_a_window_in_blocks_is_the_window_as_a_mask(monkeypatch):
    monkeypatch.setattr(long_models, "_compiled", lambda: flex_attention)
    task = TASKS["copy"]
    masked, blocks = (build_long_model(task, LOCAL, PROGRAMS[name].implementation).eval() for name in (MASKED, BLOCKS))
    full = build_long_model(task, FULL).eval()
    for other in (blocks, full):
        other.load_state_dict(masked.state_dict())
    ids = task.examples(2, 300, seed=0).input_ids
    with torch.no_grad():
        expected = masked(input_ids=ids).logits
        torch.testing.assert_close(blocks(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)
        assert (full(input_ids=ids).logits - expected).abs().max() > 1e-2


@pytest.mark.parametrize("name", TASKS)
def test_accuracy_is_of_the_tokens_that_are_asked_for(name):
    """By a model that knows every next token, except the last of each text."""
    examples = TASKS[name].examples(5, 64, seed=0)

    def model(input_ids, logits_to_keep, use_cache):
        guesses = input_ids.roll(-1, dims=1)
        guesses[:, -2] = 3
        return SimpleNamespace(logits=torch.nn.functional.one_hot(guesses, 400)[logits_to_keep].float())

    model.device = "cpu"
    expected = 1 - 1 / TASKS[name].kept(64)
    for positions in (1, 128, 8192):
        assert accuracy(model, examples, positions) == pytest.approx(expected)
