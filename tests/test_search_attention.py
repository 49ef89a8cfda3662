"""Attention and positions for a page: against the model's own output and the formulas of §3.5."""

import json
import math
import re

import pytest
import torch
from test_pair_scores import build

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.demo import attention_of, positions_of, record_search

TEXT = "a b b c"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["a b c"], model="wordpiece", vocab_size=10, min_frequency=1)


@pytest.fixture(scope="module")
def model(tokenizer):
    return build(tokenizer, num_encoder_layers=2, num_decoder_layers=3)


def test_it_is_the_models_attention_rounded(model, tokenizer):
    best = record_search(model, tokenizer, TEXT, num_beams=2, max_new_tokens=5).hypotheses[0]
    record = attention_of(model, tokenizer, TEXT, best.token_ids).as_dict()
    source, read = torch.tensor([tokenizer(TEXT)["input_ids"]]), torch.tensor([[0, *best.token_ids[:-1]]])
    with torch.no_grad():
        output = model(source, decoder_input_ids=read, output_attentions=True, use_cache=False)
    expected = {"encoder": output.encoder_attentions, "decoder": output.decoder_attentions}
    for kind, layers in {**expected, "cross": output.cross_attentions}.items():
        weights = torch.tensor(record[kind], dtype=torch.float64)
        assert weights.shape == (len(layers), 2, *layers[0].shape[2:])
        torch.testing.assert_close(weights, torch.cat(layers).double(), rtol=0, atol=5.1e-5)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]).double(), rtol=0, atol=5e-4)
        assert max(map(len, re.findall(r"[^][, ]+", json.dumps(record[kind])))) <= len("0.1234")
    alignment = torch.tensor(record["alignment"])
    torch.testing.assert_close(alignment, output.cross_attentions[1][0].mean(0), rtol=0, atol=5.1e-5)
    assert record["target_tokens"] == list(best.tokens)
    assert record["read_tokens"] == ["<s>", *best.tokens[:-1]]
    assert record["source_tokens"] == ["a", "b", "b", "c", "</s>"]
    assert (record["text"], record["translation"]) == (TEXT, best.text)


def test_a_hypothesis_that_has_not_ended_attends_as_it_does_in_a_longer_one(model, tokenizer):
    whole, part = (attention_of(model, tokenizer, TEXT, ids).as_dict() for ids in ([7, 8, 9, 2], [7, 8]))
    assert part["cross"] == [[head[:2] for head in layer] for layer in whole["cross"]]
    assert part["target_tokens"] == ["a", "b"]


def test_what_is_no_hypothesis_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="`target_ids` has no token"):
        attention_of(model, tokenizer, TEXT, [])
    with pytest.raises(ValueError, match="`target_ids` has 99 at 1"):
        attention_of(model, tokenizer, TEXT, [7, 99])
    with pytest.raises(ValueError, match="has no visible character"):
        attention_of(model, tokenizer, " ", [7])


def test_positions_are_the_sinusoids_of_the_paper(model):
    encodings = positions_of(model, 40)
    for position, dimension in ((0, 0), (0, 1), (1, 0), (39, 6), (39, 15)):
        angle = position / 10000 ** (2 * (dimension // 2) / 16)
        expected = math.cos(angle) if dimension % 2 else math.sin(angle)
        assert encodings[position][dimension] == pytest.approx(expected, abs=5.1e-5)
    assert (len(encodings), len(encodings[0])) == (40, 16)


def test_learned_positions_are_shown_as_far_as_they_go_and_others_are_refused(model, tokenizer):
    learned = build(tokenizer, position_encoding="learned", num_learned_positions=4)
    weight = learned.get_encoder().embed_positions.weight
    torch.testing.assert_close(torch.tensor(positions_of(learned, 4)), weight.detach(), rtol=0, atol=5.1e-5)
    with pytest.raises(ValueError, match="no learned position 4"):
        positions_of(learned, 5)
    with pytest.raises(ValueError, match="`position_encoding`='rotary' adds no encoding"):
        positions_of(build(tokenizer, position_encoding="rotary"), 5)
    with pytest.raises(ValueError, match="`length`=0 is not allowed"):
        positions_of(model, 0)
