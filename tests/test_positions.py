"""Position encodings that are added to embeddings, each by itself; test_paper_conformance.py has them in the model."""

import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerModel
from hf_vanilla_transformer.positions import (
    LearnedPositions,
    NoPositions,
    SinusoidalPositions,
    added_positions,
    position_ids_from_mask,
    refuse_unlearned_positions,
    sinusoids,
)

LAYOUTS = ("interleaved", "concatenated", "concatenated_tensor2tensor")
SMALL = {"vocab_size": 50, "d_model": 8, "num_heads": 2, "d_ff": 16, "num_encoder_layers": 1, "num_decoder_layers": 1}


def formula(position, d_model, layout):
    """One encoding in float64, number by number, from the description of the three layouts."""
    pairs = d_model // 2
    last_exponent_index = pairs - 1 if layout == "concatenated_tensor2tensor" else pairs
    row = [0.0] * d_model
    for i in range(pairs):
        angle = position * 10000.0 ** (-i / last_exponent_index)
        sine_at, cosine_at = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, pairs + i)
        row[sine_at], row[cosine_at] = math.sin(angle), math.cos(angle)
    return row


def float32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


# --- Sinusoids ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("d_model", [4, 6, 64, 512])
def test_each_layout_is_its_formula(layout, d_model):
    positions = [0, 1, 2, 3, 17, 512, 5001, 100_000]
    expected = torch.tensor([formula(position, d_model, layout) for position in positions], dtype=torch.float64)
    # The result is float32, of numbers up to 1: half a step of it; and the rounding of angles up to 1e5 in float64.
    torch.testing.assert_close(
        sinusoids(torch.tensor(positions), d_model, layout).double(), expected, rtol=0, atol=2**-25 + 1e-9
    )


def test_the_layouts_differ_and_the_first_two_are_one_another_reordered():
    positions = torch.arange(1, 20)
    interleaved, concatenated, tensor2tensor = (sinusoids(positions, 12, layout) for layout in LAYOUTS)
    assert torch.equal(torch.cat([interleaved[:, 0::2], interleaved[:, 1::2]], dim=1), concatenated)
    assert not torch.allclose(interleaved, concatenated)
    assert not torch.allclose(concatenated, tensor2tensor)
    # The frequencies run from 1 to exactly 1/10000 in the last one, and stay above that in the others.
    frequency = torch.atan2(tensor2tensor[0, 5], tensor2tensor[0, 11]).item()
    assert frequency == pytest.approx(1e-4, rel=1e-6)
    frequency = torch.atan2(concatenated[0, 5], concatenated[0, 11]).item()
    assert frequency == pytest.approx(10000 ** (-10 / 12), rel=1e-6)


@pytest.mark.parametrize("d_model", [4, 32, 512])
def test_the_concatenated_layout_is_that_of_marian_in_transformers(d_model):
    theirs = MarianSinusoidalPositionalEmbedding(600, d_model).create_weight()
    # Theirs computes 10000^x where ours computes exp: float64 both, then rounded to float32, rarely to a neighbour.
    torch.testing.assert_close(sinusoids(torch.arange(600), d_model, "concatenated"), theirs, rtol=0, atol=2**-24)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8), st.integers(2, 20), st.sampled_from(LAYOUTS))
@settings(max_examples=50)
def test_every_pair_of_a_sine_and_a_cosine_lies_on_the_unit_circle(positions, pairs, layout):
    encodings = sinusoids(torch.tensor(positions), 2 * pairs, layout).double()
    if layout == "interleaved":
        sines, cosines = encodings[:, 0::2], encodings[:, 1::2]
    else:
        sines, cosines = encodings[:, :pairs], encodings[:, pairs:]
    torch.testing.assert_close(sines**2 + cosines**2, torch.ones_like(sines), rtol=0, atol=2**-22)


def test_positions_of_any_shape_give_encodings_of_that_shape_one_by_one():
    positions = torch.tensor([[[5, 0], [2, 900]]])
    encodings = sinusoids(positions, 6)
    assert encodings.shape == (1, 2, 2, 6)
    assert encodings.dtype == torch.float32
    assert torch.equal(encodings[0, 1, 1], sinusoids(torch.tensor([900]), 6)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_half_precision_model_has_the_sinusoids_of_full_precision_rounded_once(layout, dtype):
    """bfloat16 cannot even count to 257: computed in it, these positions would coincide."""
    config = VanillaTransformerConfig(**SMALL, sinusoid_layout=layout)
    model = VanillaTransformerModel(config).to(dtype)
    positions = [0, 1, 255, 256, 257, 1001, 4095, 70_000]
    zeros = torch.zeros(1, len(positions), 8, dtype=dtype)
    for stack in (model.encoder, model.decoder):
        encoded = stack.embed_positions(zeros, torch.tensor([positions]))
        assert encoded.dtype == dtype
        expected = [[float32(x) for x in formula(position, 8, layout)] for position in positions]
        assert torch.equal(encoded[0], torch.tensor(expected).to(dtype))


def test_sinusoids_leave_nothing_to_save_to_train_or_to_move():
    module = SinusoidalPositions(VanillaTransformerConfig(**SMALL))
    assert list(module.parameters()) == list(module.buffers()) == []
    assert module.state_dict() == {}


def test_sinusoids_are_added_to_each_sentence_at_its_own_positions():
    module = SinusoidalPositions(VanillaTransformerConfig(**SMALL))
    embeddings = torch.randn(2, 3, 8)
    positions = torch.tensor([[0, 1, 2], [0, 0, 1]])
    torch.testing.assert_close(
        module(embeddings, positions) - embeddings,
        torch.tensor([[formula(p, 8, "interleaved") for p in row] for row in positions.tolist()]),
        rtol=0,
        atol=1e-6,  # the sum and the difference round once each, in float32, near 4
    )
    shared = module(embeddings, positions[:1])
    assert torch.equal(shared[0], module(embeddings, positions)[0])
    assert torch.equal(shared[1], module(embeddings.flip(0), positions)[0])


# --- Learned positions, and none ------------------------------------------------------------------------------------


def learned(max_position_embeddings=6):
    config = {"position_encoding": "learned", "max_position_embeddings": max_position_embeddings}
    return VanillaTransformerConfig(**SMALL, **config)


def test_learned_positions_are_added_and_learned():
    module = LearnedPositions(learned())
    embeddings, positions = torch.randn(2, 3, 8), torch.tensor([[0, 1, 5], [2, 2, 0]])
    summed = module(embeddings, positions)
    for b in range(2):
        for t in range(3):
            assert torch.equal(summed[b, t], embeddings[b, t] + module.weight[positions[b, t]])
    summed.sum().backward()
    uses = torch.bincount(positions.flatten(), minlength=6).float()
    assert torch.equal(module.weight.grad, uses.unsqueeze(1).expand(6, 8))


def test_learned_positions_refuse_a_longer_input_naming_the_numbers():
    positions = torch.arange(7).unsqueeze(0)
    refuse_unlearned_positions(learned(), positions[:, :6])
    refuse_unlearned_positions(learned(), positions[:, :6], end=9)  # the shape allows more than there is
    with pytest.raises(ValueError, match=r"position 6\b.*`num_learned_positions`=6\b.*0 to 5\b"):
        refuse_unlearned_positions(learned(), positions)
    with pytest.raises(ValueError, match=r"position 6\b"):
        refuse_unlearned_positions(learned(), positions, end=7)


class Unread(torch.Tensor):
    """A tensor whose values cannot be looked at, as those of an accelerator cannot be without waiting for it."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.max, torch.Tensor.__bool__, torch.Tensor.__int__, torch.Tensor.item):
            raise AssertionError(f"{function} looks at the values")
        return super().__torch_function__(function, types, args, kwargs or {})


def test_positions_are_not_looked_at_where_a_shape_tells():
    positions = torch.arange(6).unsqueeze(0).as_subclass(Unread)
    refuse_unlearned_positions(learned(), positions, end=6)
    with pytest.raises(AssertionError, match="looks at the values"):
        refuse_unlearned_positions(learned(), positions)


def test_a_model_with_learned_positions_refuses_a_longer_source_and_a_longer_target():
    model = VanillaTransformerModel(learned(max_position_embeddings=4)).eval()
    short, long = torch.full((1, 4), 5), torch.full((1, 5), 5)
    model(input_ids=short, decoder_input_ids=short)
    for source, target in ((long, short), (short, long)):
        with pytest.raises(ValueError, match=r"position 4\b.*`num_learned_positions`=4\b"):
            model(input_ids=source, decoder_input_ids=target)
    # In steps, with a cache, too: it is the position that counts, not the length of the step.
    cached = model(input_ids=short, decoder_input_ids=short, use_cache=True).past_key_values
    with pytest.raises(ValueError, match=r"position 4\b"):
        model(input_ids=short, decoder_input_ids=short[:, :1], past_key_values=cached)


def test_padding_does_not_use_up_learned_positions():
    model = VanillaTransformerModel(learned(max_position_embeddings=4)).eval()
    tokens, target = torch.tensor([[5, 6, 7, 2]]), torch.tensor([[0]])
    pads = torch.ones(1, 3, dtype=torch.long)
    alone = model(input_ids=tokens, decoder_input_ids=target).last_hidden_state
    for ids in (torch.cat([pads, tokens], 1), torch.cat([tokens, pads], 1)):
        padded = model(input_ids=ids, attention_mask=ids.ne(1), decoder_input_ids=target).last_hidden_state
        torch.testing.assert_close(padded, alone, rtol=0, atol=1e-6)


def test_both_stacks_learn_positions_of_their_own():
    model = VanillaTransformerModel(learned())
    assert model.encoder.embed_positions.weight is not model.decoder.embed_positions.weight
    assert not torch.equal(model.encoder.embed_positions.weight, model.decoder.embed_positions.weight)


def test_no_positions_add_nothing_and_make_a_source_a_bag_of_words():
    config = VanillaTransformerConfig(**SMALL, position_encoding="none")
    embeddings = torch.randn(1, 4, 8)
    assert torch.equal(NoPositions(config)(embeddings, torch.arange(4).unsqueeze(0)), embeddings)
    encoder = VanillaTransformerModel(config).eval().encoder
    source, order = torch.tensor([[5, 6, 7, 2]]), torch.tensor([2, 0, 3, 1])
    there, back = encoder(source).last_hidden_state, encoder(source[:, order]).last_hidden_state
    torch.testing.assert_close(there[:, order], back, rtol=0, atol=1e-6)
    with_positions = VanillaTransformerModel(VanillaTransformerConfig(**SMALL)).eval().encoder
    there, back = with_positions(source).last_hidden_state, with_positions(source[:, order]).last_hidden_state
    assert not torch.allclose(there[:, order], back, atol=1e-2)


@pytest.mark.parametrize("name", ["sinusoidal", "learned", "none", "rotary", "alibi", "t5_relative", "shaw_relative"])
def test_the_config_chooses_the_position_encoding_of_both_stacks(name):
    config = learned() if name == "learned" else VanillaTransformerConfig(**SMALL, position_encoding=name)
    model = VanillaTransformerModel(config)
    expected = {"sinusoidal": SinusoidalPositions, "learned": LearnedPositions}.get(name, NoPositions)
    assert type(added_positions(config)) is expected
    assert type(model.encoder.embed_positions) is type(model.decoder.embed_positions) is expected
    assert isinstance(model.encoder.embed_positions, nn.Embedding) == (name == "learned")


# --- Positions of padded sentences ------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 4), st.sampled_from(["left", "right"]))
@settings(max_examples=60)
def test_the_tokens_of_a_sentence_are_numbered_from_0_on_whichever_side_its_padding_stands(lengths, extra, side):
    width = max(lengths) + extra
    rows = [([0] * (width - n) + [1] * n) if side == "left" else ([1] * n + [0] * (width - n)) for n in lengths]
    mask = torch.tensor(rows)
    positions = position_ids_from_mask(mask)
    assert positions.shape == mask.shape
    assert positions.dtype == torch.long
    for row, kept, n in zip(positions, mask.bool(), lengths, strict=True):
        assert row[kept].tolist() == list(range(n))
        # Padding has a position that exists wherever the sentence fits.
        assert row.min() >= 0
        assert row.max() == n - 1


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=4))
@settings(max_examples=60)
def test_any_mask_of_any_type_counts_the_tokens_before(rows):
    for dtype in (torch.bool, torch.long, torch.float32):
        positions = position_ids_from_mask(torch.tensor(rows).to(dtype) * torch.tensor(2).to(dtype))  # not only 1
        for row, kept in zip(positions.tolist(), rows, strict=True):
            for i in range(7):
                if kept[i]:
                    assert row[i] == sum(kept[:i])
                assert row[i] >= 0


# --- What the paper has not ------------------------------------------------------------------------------------------


def test_an_unscaled_embedding_is_its_row():
    config = VanillaTransformerConfig(**SMALL, scale_embeddings=False, position_encoding="none")
    model = VanillaTransformerModel(config)
    ids = torch.tensor([[3, 7, 3]])
    for stack in (model.encoder, model.decoder):
        assert torch.equal(stack.embed_tokens(ids), stack.embed_tokens.weight[ids])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_offset_moves_every_position(layout):
    config = VanillaTransformerConfig(**SMALL, sinusoid_layout=layout, position_offset=2)
    positions = torch.tensor([[0, 1, 5]])
    encodings = SinusoidalPositions(config)(torch.zeros(1, 3, 8), positions)
    expected = torch.tensor([formula(position, 8, layout) for position in (2, 3, 7)])
    torch.testing.assert_close(encodings[0], expected, rtol=0, atol=1e-7)
