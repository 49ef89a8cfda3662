"""Positions inside attention: biases and rotations against their papers' formulas and transformers' own."""

import math

import accelerate
import pytest
import torch
from transformers.cache_utils import EncoderDecoderCache, StaticCache
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerModel
from hf_vanilla_transformer.positions_relative import (
    RELATIONS,
    AlibiPositions,
    T5Positions,
    add_bias,
    alibi_slopes,
    relative_positions,
    t5_buckets,
    wave_angles,
)

SMALL = {"vocab_size": 20, "d_model": 8, "num_heads": 2, "d_ff": 8, "num_encoder_layers": 1, "num_decoder_layers": 1}


def config(**fields):
    return VanillaTransformerConfig(**{**SMALL, **fields})


@pytest.mark.parametrize("num_heads", [1, 2, 8, 12, 16, 20])
def test_alibi_slopes_are_those_of_bloom_in_transformers(num_heads):
    theirs = build_alibi_tensor(torch.ones(1, 2), num_heads, torch.float64)[:, 0, 1]
    torch.testing.assert_close(alibi_slopes(num_heads).double(), theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("is_causal", [True, False])
def test_alibi_lowers_scores_by_slope_times_distance(is_causal):
    module = AlibiPositions(config(position_encoding="alibi", num_heads=4), is_causal)
    queries, keys = torch.tensor([[2, 9]]), torch.tensor([[0, 1, 2, 5, 9]])
    bias, nothing = module(None, queries, keys, torch.float32)
    assert nothing is None
    assert bias.shape == (1, 4, 2, 5)
    for head in range(4):
        for q, at in enumerate([2, 9]):
            expected = [-(2 ** (-2.0 * (head + 1))) * abs(at - key) for key in (0, 1, 2, 5, 9)]
            assert bias[0, head, q].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (8, 20), (16, 1000)])
def test_t5_buckets_are_those_of_t5_in_transformers(is_causal, buckets, distance):
    distances = torch.arange(-300, 301)
    theirs = T5Attention._relative_position_bucket(distances, not is_causal, buckets, distance)
    assert torch.equal(t5_buckets(distances, buckets, distance, is_causal), theirs)


def test_t5_positions_look_up_one_bias_a_head_for_all_layers():
    module = T5Positions(config(position_encoding="t5_relative"), is_causal=True)
    mask = torch.zeros(1, 1, 1, 4)
    mask[..., 3] = torch.finfo(torch.float32).min
    bias, _ = module(mask, torch.tensor([[2]]), torch.tensor([[0, 1, 2, 3]]), torch.float32)
    table = module.biases.weight
    assert torch.equal(bias[0, :, 0, :3], table[[2, 1, 0]].T)
    assert bool((bias[0, :, 0, 3] == torch.finfo(torch.float32).min).all())
    model = VanillaTransformerModel(config(position_encoding="t5_relative", num_decoder_layers=3))
    assert sum("biases" in name for name, _ in model.named_parameters()) == 2  # one of each stack


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_bias_leaves_what_is_masked_masked_and_finite(dtype):
    lowest = torch.finfo(dtype).min
    mask = torch.tensor([[[[0.0, lowest]]]], dtype=dtype)
    bias = torch.tensor([[[[-500.0, -500.0]]]], dtype=dtype)
    assert add_bias(mask, bias).flatten().tolist() == [-500.0, lowest]
    assert add_bias(mask == 0, bias).flatten().tolist() == [-500.0, lowest]
    assert torch.equal(add_bias(None, bias), bias)


def test_wave_angles_are_those_of_section_3_5():
    angles = wave_angles(torch.tensor([0, 1, 70_001]), 6, 500.0)
    expected = [[position * 500.0 ** (-2 * i / 6) for i in range(3)] for position in (0, 1, 70_001)]
    torch.testing.assert_close(angles, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0)


def test_distances_are_of_keys_from_queries():
    distances = relative_positions(torch.tensor([[3], [0]]), torch.tensor([[1, 3, 4]]))
    assert distances.tolist() == [[[-2, 0, 1]], [[1, 3, 4]]]


@pytest.mark.parametrize("name", RELATIONS)
def test_the_config_chooses_how_both_stacks_relate_positions(name):
    fields = {"num_learned_positions": 9} if name == "learned" else {}
    model = VanillaTransformerModel(config(position_encoding=name, **fields))
    for stack, is_causal in ((model.encoder, False), (model.decoder, True)):
        assert type(stack.relate_positions) is RELATIONS[name]
        assert getattr(stack.relate_positions, "is_causal", is_causal) == is_causal


RELATIVE = ["rotary", "alibi", "t5_relative", "shaw_relative"]


@pytest.mark.parametrize("name", RELATIVE)
def test_only_distances_count_so_a_shift_of_all_positions_changes_nothing(name):
    model = VanillaTransformerModel(config(position_encoding=name)).double().eval()
    source, target = torch.randint(4, 20, (2, 5)), torch.randint(4, 20, (2, 6))
    places = torch.arange(6)[None]
    there, shifted = (
        model(input_ids=source, decoder_input_ids=target, decoder_position_ids=each).last_hidden_state
        for each in (places, places + 1000)
    )
    torch.testing.assert_close(there, shifted, rtol=0, atol=1e-6 if name == "rotary" else 1e-12)
    spread = model(input_ids=source, decoder_input_ids=target, decoder_position_ids=3 * places).last_hidden_state
    assert not torch.allclose(there, spread, atol=1e-4)


@pytest.mark.parametrize("name", RELATIVE)
def test_the_order_of_a_source_matters_with_each_of_them(name):
    encoder = VanillaTransformerModel(config(position_encoding=name)).eval().encoder
    source, order = torch.tensor([[5, 6, 7, 2]]), torch.tensor([2, 0, 3, 1])
    there, back = encoder(source).last_hidden_state, encoder(source[:, order]).last_hidden_state
    assert not torch.allclose(there[:, order], back, atol=1e-3)


@pytest.mark.parametrize("name", ["alibi", "t5_relative", "shaw_relative"])
def test_given_positions_with_a_cache_are_refused_where_positions_of_all_keys_are_needed(name):
    model = VanillaTransformerModel(config(position_encoding=name)).eval()
    source, target = torch.tensor([[5, 6, 2]]), torch.tensor([[0, 5]])
    cache = model(input_ids=source, decoder_input_ids=target, use_cache=True).past_key_values
    with pytest.raises(ValueError, match=rf"`position_encoding`='{name}'.*leave `position_ids` away"):
        model(input_ids=source, decoder_input_ids=target[:, :1], cache=cache, decoder_position_ids=torch.tensor([[7]]))


@pytest.mark.parametrize(
    ("name", "implementation", "said"),
    [
        ("alibi", "flash_attention_2", "ash"),
        ("t5_relative", "flex_attention", "flex"),
        ("shaw_relative", "sdpa", "eager"),
        ("shaw_relative", "flex_attention", "flex"),
    ],
)
def test_an_attention_that_cannot_add_the_bias_is_refused_with_both_named(name, implementation, said):
    with pytest.raises(ValueError, match=rf"`position_encoding`='{name}'") as caught:
        VanillaTransformerModel._from_config(config(position_encoding=name), attn_implementation=implementation)
    assert said in str(caught.value)
    model = VanillaTransformerModel(config(position_encoding=name))
    with pytest.raises(ValueError, match=rf"`position_encoding`='{name}'"):
        model.set_attn_implementation(implementation)


def test_the_default_attention_is_one_that_can():
    chosen = {
        name: VanillaTransformerModel(config(position_encoding=name)).config._attn_implementation for name in RELATIVE
    }
    assert chosen == {"rotary": "sdpa", "alibi": "sdpa", "t5_relative": "sdpa", "shaw_relative": "eager"}


def test_padding_on_the_left_changes_nothing():
    for name in RELATIVE:
        model = VanillaTransformerModel(config(position_encoding=name)).eval()
        tokens, target = torch.tensor([[5, 6, 7, 2]]), torch.tensor([[0, 9, 8]])
        alone = model(input_ids=tokens, decoder_input_ids=target).last_hidden_state
        pads = torch.ones(1, 3, dtype=torch.long)
        padded = torch.cat([pads, tokens], 1)
        masks = {"attention_mask": padded.ne(1), "decoder_attention_mask": torch.tensor([[0, 0, 1, 1, 1]])}
        ids = torch.cat([pads[:, :2], target], 1)
        actual = model(input_ids=padded, decoder_input_ids=ids, **masks).last_hidden_state[:, 2:]
        torch.testing.assert_close(actual, alone, rtol=0, atol=1e-5)
        assert math.isfinite(actual.sum().item())


@pytest.mark.parametrize("name", RELATIVE)
def test_weights_that_wait_elsewhere_are_fetched(name):
    """Offloading by accelerate: a matrix that is read past its module would be one without values."""
    fields = {"max_relative_distance": 3} if name == "shaw_relative" else {}
    model = VanillaTransformerModel(config(position_encoding=name, **fields)).eval()
    ids = torch.randint(4, 20, (2, 5))
    expected = model(input_ids=ids, decoder_input_ids=ids).last_hidden_state
    offloaded = accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert torch.equal(offloaded(input_ids=ids, decoder_input_ids=ids).last_hidden_state, expected)


@pytest.mark.parametrize("name", ["alibi", "t5_relative", "shaw_relative"])
def test_a_static_cache_with_given_positions_is_one_graph(name):
    model = VanillaTransformerModel(config(position_encoding=name)).eval()
    source, mask = torch.randint(4, 20, (2, 5)), torch.ones(2, 5)
    cache = EncoderDecoderCache(*(StaticCache(config=model.config, max_cache_len=length) for length in (8, 5)))
    inputs = {"encoder_outputs": model.encoder(source), "attention_mask": mask, "cache": cache, "use_cache": True}
    step = torch.compile(model.forward, backend="eager", fullgraph=True)
    target = torch.randint(4, 20, (2, 3))
    with torch.no_grad():
        for at in range(3):
            places = torch.full((2, 1), at)
            out = step(**inputs, decoder_input_ids=target[:, at : at + 1], decoder_position_ids=places)
        whole = model(input_ids=source, attention_mask=mask, decoder_input_ids=target).last_hidden_state
    torch.testing.assert_close(out.last_hidden_state[:, 0], whole[:, -1], rtol=0, atol=1e-5)
