"""The staged models: the text's tasks and parameter counts, its own module as a reference, and what each stage sees."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from hf_vanilla_transformer.interop.torch_transformer import load_torch_transformer
from hf_vanilla_transformer.lab.stage_runs import plain_forward, visibility
from hf_vanilla_transformer.lab.stages import (
    CAUSAL,
    EXPERIMENTS,
    MANY_TO_ONE,
    ONE_TO_MANY,
    ORDER,
    PADDING,
    PLAIN,
    POSITIONS,
    REPEAT,
    STAGES,
    TOKENS,
    build,
    count_parameters,
)


def test_parameters_are_as_many_as_the_text_counts():
    assert count_parameters(build(PLAIN, 0)) == 88
    assert count_parameters(build(replace(PLAIN, fields={**PLAIN.fields, "d_ff": 1}), 0)) == 46
    for stage in (TOKENS, CAUSAL, POSITIONS):
        assert count_parameters(build(stage, 0)) == 1332
    # One token more: a row of the embedding, and a row and a bias of the head.
    assert count_parameters(build(PADDING, 0)) == 1332 + 8 + 8 + 1


def test_tasks_are_those_of_the_text():
    assert REPEAT == (((0, 0, 0, 0), (0, 0, 0, 0)), ((1, 1, 1, 1), (1, 1, 1, 1)))
    assert MANY_TO_ONE == (((0, 0, 0), (1,)), ((1, 1, 1), (0,)))
    assert ONE_TO_MANY == (((1,), (0, 0, 0)), ((0,), (1, 1, 1)))
    assert ORDER == (((0, 1, 0, 1), (0, 1, 0, 1)), ((1, 0, 1, 0), (1, 0, 1, 0)))
    listed, printed = (each.pairs for each in EXPERIMENTS if each.stage is PADDING)
    assert [len(each) for each in (listed, printed)] == [8, 8]
    assert set(listed) - set(printed) == {((0, 0, 0, 0), (1, 1, 1, 1)), ((1, 1, 1, 1), (0, 0, 0, 0))}


def test_every_stage_has_an_experiment_and_all_samples_are_shared_out():
    assert {each.stage.name for each in EXPERIMENTS} == set(STAGES)
    assert all(each.samples % len(each.pairs) == 0 for each in EXPERIMENTS)


class TextModule(nn.Module):
    """The text's model in torch's own layers: one embedding for both sides, and a head of its own."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(4, 8), nn.Linear(8, 4)
        options = {"dropout": 0.0, "layer_norm_eps": 1e-5, "norm_first": True, "batch_first": True}
        self.transformer = nn.Transformer(8, 1, 1, 1, 8, **options)

    def forward(self, source, target, mask):
        source, target = (self.embedding(each) * math.sqrt(8) for each in (source, target))
        return self.head(self.transformer(source, target, tgt_mask=mask))


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("stage", [TOKENS, CAUSAL], ids=lambda stage: stage.name)
@torch.no_grad()
def test_a_stage_computes_what_the_module_computes_that_the_text_uses(stage):
    torch.manual_seed(3)
    theirs = TextModule()
    for weight in theirs.parameters():
        weight.normal_()
    ours = build(stage, 0).eval()
    names = {"source_embedding": "embedding.weight", "projection": "head.weight", "num_heads": 1}
    same = {name: getattr(ours.config, name) for name in ("norm_position", "layer_norm_eps", "position_encoding")}
    ids = {"bos_token_id": 2, "decoder_start_token_id": 2, "eos_token_id": 3, "pad_token_id": None}
    ours.load_state_dict(load_torch_transformer(theirs.state_dict(), **names, **same, **ids).state_dict())
    source, target = torch.tensor([[2, 0, 1, 1, 3]]), torch.tensor([[2, 1, 0, 1]])
    mask = nn.Transformer.generate_square_subsequent_mask(4) if stage.is_causal else None
    logits = ours(input_ids=source, decoder_input_ids=target, **visibility(target, stage.is_causal)).logits
    assert torch.allclose(logits, theirs(source, target, mask), atol=1e-5)


@pytest.mark.parametrize(("stage", "sees_future", "sees_order"), [
    (TOKENS, True, False), (CAUSAL, False, False), (POSITIONS, False, True), (PADDING, False, True)
])  # fmt: skip
@torch.no_grad()
def test_a_stage_has_what_it_is_named_after(stage, sees_future, sees_order):
    model = build(stage, 0).eval()
    source, target = torch.tensor([[2, 0, 1, 1, 3]]), torch.tensor([[2, 0, 1, 0]])
    masks = visibility(target, stage.is_causal)

    def first_logits(source, target):
        return model(input_ids=source, decoder_input_ids=target, **masks).logits[0, 0]

    before, later = first_logits(source, target), torch.tensor([[2, 0, 1, 1]])
    assert torch.allclose(first_logits(source, later), before, atol=1e-6) != sees_future
    assert torch.allclose(first_logits(source[:, [0, 2, 1, 3, 4]], target), before, atol=1e-6) != sees_order


@torch.no_grad()
def test_with_the_mask_of_the_source_padding_changes_nothing():
    model = build(PADDING, 0).eval()
    source, padded = torch.tensor([[2, 1, 3]]), torch.tensor([[2, 1, 3, 4, 4]])
    target, padded_target = torch.tensor([[2, 0, 0]]), torch.tensor([[2, 0, 0, 4, 4]])
    logits = model(input_ids=source, decoder_input_ids=target).logits
    mask = padded.ne(4).long()
    masked = model(input_ids=padded, attention_mask=mask, decoder_input_ids=padded_target).logits
    assert torch.allclose(masked[:, :3], logits, atol=1e-6)
    seen = model(input_ids=padded, attention_mask=torch.ones_like(mask), decoder_input_ids=padded_target).logits
    assert not torch.allclose(seen[:, :3], logits, atol=1e-3)


@torch.no_grad()
def test_the_plain_model_says_the_same_whatever_it_reads():
    """Because its last norm is over one number, which is its own mean."""
    model = build(PLAIN, 0).eval()
    for weight in model.parameters():
        weight.normal_()
    source, target = torch.randn(3, 4, 1), torch.randn(3, 5, 1)
    bias = model.decoder.final_norm.bias
    assert torch.allclose(plain_forward(model, source, target), bias.expand(3, 5, 1), atol=1e-6)
