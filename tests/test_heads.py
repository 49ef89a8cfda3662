"""What heads look at: against heads built by hand and loops over single sentences; and heads that are switched off."""

import copy
import math

import pytest
import torch
from test_pair_scores import build
from transformers import MarianConfig, MarianMTModel

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.lab.heads import KINDS, Head, attention_statistics, attentions, heads_of, heads_off
from hf_vanilla_transformer.tokenization_ids import text_to_ids

PAIRS = [("a b c", "A B"), ("", "A"), ("c", "C A B B C A"), ("b a", " "), ("a a b c b", "B")]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["a b c", "A B C"], vocab_size=262)


@pytest.fixture(scope="module")
def model(tokenizer):
    model = build(tokenizer, num_encoder_layers=2, d_k=5, d_v=3, attention_bias=True)
    with torch.no_grad():  # untrained heads look everywhere alike; and biases are 0 at first
        for attention in attentions(model).values():
            attention.q_proj.weight.mul_(6)
            attention.out_proj.bias.normal_()
    return model


def inputs(model, tokenizer, source, target):
    """One sentence, without padding: the source with `</s>`, and `<s>` with the target but for its last token."""
    (ids,), (labels,) = text_to_ids(tokenizer, [source]), text_to_ids(tokenizer, [target], as_target=True)
    read = [model.config.decoder_start_token_id, *labels[:-1]]
    return {"input_ids": torch.tensor([ids]), "decoder_input_ids": torch.tensor([read])}


def shift(d_model, distance):
    """The matrix that takes the sinusoids of a position to those of another one, `distance` further."""
    matrix = torch.zeros(d_model, d_model)
    for index in range(0, d_model, 2):
        angle = distance * 10000 ** (-index / d_model)
        matrix[index, index : index + 2] = torch.tensor([math.cos(angle), math.sin(angle)])
        matrix[index + 1, index : index + 2] = torch.tensor([-math.sin(angle), math.cos(angle)])
    return matrix


def test_heads_that_look_exactly_at_a_neighbour_are_found(tokenizer):
    config = VanillaTransformerConfig(
        vocab_size=len(tokenizer), d_model=16, num_heads=3, d_k=16, d_v=2, d_ff=8, num_encoder_layers=1,
        num_decoder_layers=1,
    )  # fmt: skip
    model = VanillaTransformerForConditionalGeneration(config).eval()
    sharp = 50
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()  # what is left are the positions
        for kind, distances in {"encoder": (-1, 0, 1), "decoder": (-1, 0, -1)}.items():
            attention = attentions(model)[kind, 1]
            attention.k_proj.weight.copy_(torch.eye(16).repeat(3, 1) * sharp)
            attention.q_proj.weight.copy_(torch.cat([shift(16, each) for each in distances]) * sharp)
    found = attention_statistics(model, tokenizer, PAIRS)
    tokens = [len(ids) - 1 for ids in text_to_ids(tokenizer, [PAIRS[index][0] for index in (0, 2, 4)])]
    of_head = {"previous": Head("encoder", 1, 1), "same": Head("encoder", 1, 2), "following": Head("encoder", 1, 3)}
    for name, head in of_head.items():
        for other in of_head:
            # The first token has none before it, and looks at itself, which is nearest.
            share = len(tokens) / sum(tokens) if (name, other) == ("previous", "same") else float(name == other)
            assert getattr(found[head], other) == pytest.approx(share, abs=1e-12)
        assert getattr(found[head], name) == 1.0
        assert found[head].entropy == 0.0
    assert found[of_head["previous"]].most_previous == found[of_head["following"]].most_following == 1.0
    assert found[of_head["same"]].most_previous == found[of_head["same"]].most_following == 0.0
    # The last token of every sentence is followed by its end.
    assert found[of_head["following"]].end == pytest.approx(len(tokens) / sum(tokens))
    assert (found[Head("decoder", 1, 1)].previous, found[Head("decoder", 1, 2)].same) == (1.0, 1.0)


def mean(values):
    return sum(values) / len(values)


def by_loops(weights, kind, ends):
    """The statistics of one head from the weights of whole sentences, each a list of rows; `ends` are indices."""
    lists = {}

    def add(name, value):
        lists.setdefault(name, []).append(value)

    for rows, end in zip(weights, ends, strict=True):
        for place, row in enumerate(rows):
            if (kind == "encoder" and place == end) or (kind == "decoder" and place == 0):
                continue
            others = [weight for index, weight in enumerate(row) if kind == "decoder" or index != end]
            add("confidence", max(others))
            add("entropy", -sum(weight * math.log(weight) for weight in row if weight > 0))
            if kind == "cross":
                add("end", row[end])
                continue
            add("same", row[place])
            most = row.index(max(row))
            if place > 0:
                add("previous", row[place - 1])
                add("most_previous", float(most == place - 1))
            if kind == "encoder":
                add("end", row[end])
                add("following", row[place + 1])
                add("most_following", float(most == place + 1))
            else:
                add("start", row[0])
    return {name: mean(values) for name, values in lists.items()}


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_statistics_are_means_over_tokens_and_padding_changes_nothing(model, tokenizer, batch_tokens):
    found = attention_statistics(model, tokenizer, PAIRS, batch_tokens)
    assert list(found) == heads_of(model)
    kept = [pair for pair in PAIRS if all(side.strip() for side in pair)]
    outputs, ends = [], []
    for source, target in kept:
        given = inputs(model, tokenizer, source, target)
        ends.append(given["input_ids"].shape[1] - 1)
        with torch.no_grad():
            outputs.append(model(**given, use_cache=False, output_attentions=True))
    names = {"encoder": "encoder_attentions", "decoder": "decoder_attentions", "cross": "cross_attentions"}
    for head, statistics in found.items():
        weights = [getattr(output, names[head.kind])[head.layer - 1][0, head.number - 1] for output in outputs]
        expected = by_loops([each.double().tolist() for each in weights], head.kind, ends)
        measured = {name: value for name, value in vars(statistics).items() if value is not None}
        assert measured == pytest.approx(expected, abs=1e-5), head


def test_statistics_of_nothing_and_of_too_much_are_refused(model, tokenizer):
    with pytest.raises(ValueError, match="no pair has a source and a translation"):
        attention_statistics(model, tokenizer, [("", "A"), ("a", " ")])
    with pytest.raises(ValueError, match="in training mode"):
        attention_statistics(copy.deepcopy(model).train(), tokenizer, PAIRS)
    short = build(tokenizer, position_encoding="learned", max_position_embeddings=4)
    with pytest.raises(ValueError, match="the model has 4 learned positions"):
        attention_statistics(short, tokenizer, PAIRS)


def without_columns(model, heads):
    """A copy in which the output projection ignores some heads, by its weights and without hooks."""
    changed = copy.deepcopy(model)
    for head in heads:
        attention = attentions(changed)[head.kind, head.layer]
        columns = slice((head.number - 1) * attention.d_v, head.number * attention.d_v)
        with torch.no_grad():
            attention.out_proj.weight[:, columns] = 0
    return changed


def test_a_head_that_is_off_adds_nothing_to_the_output_projection(model, tokenizer):
    given = inputs(model, tokenizer, "a b c", "A B")
    with torch.no_grad():
        before = model(**given).logits
        for head in heads_of(model):
            with heads_off(model, [head]):
                off = model(**given).logits
            torch.testing.assert_close(off, without_columns(model, [head])(**given).logits, rtol=1e-6, atol=1e-6)
            assert not torch.equal(off, before), head
            assert torch.equal(model(**given).logits, before)  # bit for bit


def test_no_head_off_changes_no_bit_and_all_heads_off_leave_the_biases(model, tokenizer):
    given, other = inputs(model, tokenizer, "a b c", "A B"), inputs(model, tokenizer, "c c a b", "A B")
    with torch.no_grad():
        before = model(**given).logits
        with heads_off(model, []):
            assert torch.equal(model(**given).logits, before)
        with heads_off(model, heads_of(model)):
            off = model(**given).logits
            assert torch.equal(off, model(**other).logits)  # the source can no longer be seen
    assert not torch.equal(off, before)
    torch.testing.assert_close(off, without_columns(model, heads_of(model))(**given).logits, rtol=1e-6, atol=1e-6)


def hooks(model):
    return sum(len(part._forward_pre_hooks) + len(part._forward_hooks) for part in model.modules())


def test_after_an_error_the_model_is_what_it_was(model):
    before, seen = hooks(model), []

    def fails():
        seen.append(hooks(model))
        raise RuntimeError

    with pytest.raises(RuntimeError), heads_off(model, heads_of(model)):
        fails()
    assert seen == [before + len(attentions(model))]
    assert hooks(model) == before


@pytest.mark.parametrize("num_beams", [1, 3])
def test_decoding_honours_it_with_and_without_a_cache(model, num_beams):
    """The reference has no hook, so the incremental decoder serves it."""
    source = torch.tensor([[70, 71, 72, 2], [80, 81, 2, 1]])
    options = {"attention_mask": (source != 1).long(), "num_beams": num_beams, "max_new_tokens": 6}
    whole, changed = model.generate(source, **options), 0
    for kind in KINDS:
        heads = [head for head in heads_of(model) if head.kind == kind and head.number == 2]
        with heads_off(model, heads):
            cached, uncached = (model.generate(source, **options, use_cache=use) for use in (True, False))
        expected = without_columns(model, heads).generate(source, **options)
        assert torch.equal(cached, expected)
        assert torch.equal(uncached, expected)
        changed += not torch.equal(expected, whole)
    assert changed  # or nothing would have been tested
    assert torch.equal(model.generate(source, **options), whole)


def test_heads_that_are_not_there_are_refused_by_name(model):
    for head in (Head("encoder", 3, 1), Head("cross", 1, 0), Head("cross", 1, 3), Head("self", 1, 1)):
        with pytest.raises(ValueError, match=f"no head {head}"), heads_off(model, [head]):
            pass
    marian = MarianMTModel(
        MarianConfig(vocab_size=9, d_model=4, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
                     decoder_attention_heads=1, pad_token_id=1, decoder_start_token_id=1, eos_token_id=2)
    )  # fmt: skip
    with pytest.raises(ValueError, match="this is a MarianMTModel"):
        heads_of(marian)
    broken = copy.deepcopy(model)
    broken.get_decoder().layers[0].cross_attention = torch.nn.Identity()
    with pytest.raises(ValueError, match="the cross-attention of layer 1 is a Identity"):
        heads_of(broken)
