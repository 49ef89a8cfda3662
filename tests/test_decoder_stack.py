"""Positions of queries and keys in a decoder: by one rule, whichever form the mask has, against texts alone."""

import pytest
import torch
from parity import randomise
from transformers.cache_utils import DynamicCache, EncoderDecoderCache, StaticCache

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerDecoderConfig,
    VanillaTransformerDecoderModel,
    VanillaTransformerModel,
)

SHAPE = {"vocab_size": 20, "d_model": 16, "num_heads": 2, "d_ff": 16, "num_encoder_layers": 1, "num_decoder_layers": 1}
# Of these only distances count, so that a shift of all positions changes nothing.
RELATIVE = {
    "rotary": {"position_encoding": "rotary"},
    "alibi": {"position_encoding": "alibi"},
    "t5_relative": {"position_encoding": "t5_relative", "num_relative_buckets": 8, "max_relative_distance": 12},
    "shaw_relative": {"position_encoding": "shaw_relative", "max_relative_distance": 3},
    "local": {"position_encoding": "none", "attention_pattern": "local", "attention_window": 1},
    "strided": {
        "position_encoding": "none",
        "attention_pattern": "strided",
        "attention_window": 0,
        "attention_stride": 2,
    },
}
ABSOLUTE = {
    "paper": {},
    "learned": {"position_encoding": "learned", "num_learned_positions": 12},
    "local_global": {"attention_pattern": "local_global", "attention_window": 0, "attention_stride": 3},
    "random": {"attention_pattern": "random", "attention_window": 0, "num_random_keys": 1, "attention_seed": 7},
}
READ_KEYS = [name for name in (*RELATIVE, *ABSOLUTE) if name not in ("rotary", "paper", "learned")]
every_kind = pytest.mark.parametrize("fields", [*RELATIVE.values(), *ABSOLUTE.values()], ids=[*RELATIVE, *ABSOLUTE])
every_relative = pytest.mark.parametrize("fields", RELATIVE.values(), ids=RELATIVE)
PADS, LENGTH = 2, 6
IDS = torch.tensor([[5, 9, 4, 17, 8, 11]])
PADDED = torch.cat([torch.ones(1, PADS, dtype=torch.long), IDS], dim=1)
IS_TOKEN = PADDED.ne(1)
SOURCE = torch.tensor([[7, 3, 12, 2]])


def stacks(fields):
    """A decoder with an encoder and one without, as functions from tokens to states."""
    whole = VanillaTransformerModel(VanillaTransformerConfig(**SHAPE, **fields)).eval()
    shape = {name: value for name, value in SHAPE.items() if name != "num_encoder_layers"}
    alone = VanillaTransformerDecoderModel(VanillaTransformerDecoderConfig(**shape, **fields)).eval()
    randomise(whole, seed=0)
    randomise(alone, seed=0)
    states = whole.encoder(SOURCE).last_hidden_state
    return [
        (lambda ids, **options: whole.decoder(ids, encoder_hidden_states=states, **options).last_hidden_state),
        (lambda ids, **options: alone(ids, **options).last_hidden_state),
    ]


def causal(is_token):
    """The expanded mask (B, 1, T, T) of tokens (B, T): they see earlier ones, and padding sees nothing."""
    length = is_token.shape[1]
    return (torch.ones(length, length, dtype=torch.bool).tril() & is_token[:, None])[:, None]


def as_numbers(mask):
    return torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)


def assert_equal(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@every_kind
@torch.no_grad()
def test_padding_on_the_left_is_as_if_it_were_not_there(fields):
    positions = torch.tensor([[0, 0, *range(LENGTH)]])
    for decoder in stacks(fields):
        expected = decoder(IDS)
        masks = (
            {"attention_mask": IS_TOKEN},
            {"attention_mask": IS_TOKEN, "position_ids": positions},
            {"attention_mask": causal(IS_TOKEN), "position_ids": positions},
            {"attention_mask": as_numbers(causal(IS_TOKEN)), "position_ids": positions},
        )
        for options in masks:
            assert_equal(decoder(PADDED, **options)[:, PADS:], expected)


@every_kind
@torch.no_grad()
def test_an_expanded_mask_without_positions_leaves_each_token_its_place(fields):
    for decoder in stacks(fields):
        found = decoder(PADDED, attention_mask=causal(IS_TOKEN))[:, PADS:]
        assert_equal(found, decoder(IDS, position_ids=torch.arange(PADS, PADS + LENGTH)[None]))
        if fields in RELATIVE.values():
            assert_equal(found, decoder(IDS))


@every_kind
@torch.no_grad()
def test_packed_texts_are_as_each_alone(fields):
    first = 2
    mask = causal(torch.ones(1, LENGTH, dtype=torch.bool))
    mask[..., first:, :first] = False
    positions = torch.tensor([[0, 1, 0, 1, 2, 3]])
    for decoder in stacks(fields):
        found = decoder(IDS, attention_mask=mask, position_ids=positions)
        assert_equal(found, torch.cat([decoder(IDS[:, :first]), decoder(IDS[:, first:])], dim=1))
        by_place = decoder(IDS, attention_mask=mask)
        assert_equal(by_place[:, :first], found[:, :first])
        assert_equal(by_place[:, first:], decoder(IDS[:, first:], position_ids=torch.arange(first, LENGTH)[None]))


@every_kind
@torch.no_grad()
def test_what_the_last_query_does_not_see_keeps_its_position_for_the_others(fields):
    mask = causal(torch.ones(1, LENGTH, dtype=torch.bool))
    mask[..., -1, 1:4] = False
    for decoder in stacks(fields):  # of one layer, so a row of the mask moves its own query only
        assert_equal(decoder(IDS, attention_mask=mask)[:, :-1], decoder(IDS)[:, :-1])


@every_kind
@torch.no_grad()
def test_any_split_into_a_cache_is_as_the_whole_with_every_form_of_mask(fields):
    positions = torch.tensor([[0, 0, *range(LENGTH)]])
    forms = (
        lambda start, end: {"attention_mask": IS_TOKEN[:, :end]},
        lambda start, end: {"attention_mask": IS_TOKEN[:, :end], "position_ids": positions[:, start:end]},
        lambda start, end: {"attention_mask": expanded[..., start:end, :end]},
        lambda start, end: {"attention_mask": expanded[..., start:end, :end], "position_ids": positions[:, start:end]},
    )
    expanded = causal(IS_TOKEN)
    for decoder, wrap in zip(stacks(fields), (lambda own: EncoderDecoderCache(own, DynamicCache()), lambda own: own)):
        for form in forms:
            expected = decoder(PADDED, **form(0, PADS + LENGTH))[:, PADS:]
            cache, parts = wrap(DynamicCache()), []
            for start, end in ((0, 4), (4, 5), (5, PADS + LENGTH)):
                parts.append(decoder(PADDED[:, start:end], cache=cache, use_cache=True, **form(start, end)))
            assert_equal(torch.cat(parts, dim=1)[:, PADS:], expected)


@every_kind
@torch.no_grad()
def test_the_room_of_a_static_cache_changes_no_position(fields):
    decoder, room, positions = stacks(fields)[1], 12, torch.tensor([[0, 0, *range(LENGTH)]])
    mask = torch.zeros(1, 1, PADS + LENGTH, room, dtype=torch.bool)
    mask[..., : PADS + LENGTH] = causal(IS_TOKEN)
    for given in ({}, {"position_ids": positions}):
        expected = decoder(PADDED, attention_mask=causal(IS_TOKEN), **given)[:, PADS:]
        config = VanillaTransformerDecoderConfig(vocab_size=20, d_model=16, num_heads=2, num_decoder_layers=1)
        cache, parts = StaticCache(config=config, max_cache_len=room), []
        for start, end in ((0, 4), (4, PADS + LENGTH)):
            options = {name: each[:, start:end] for name, each in given.items()}
            rows = mask[:, :, start:end].clone()
            parts.append(decoder(PADDED[:, start:end], attention_mask=rows, cache=cache, use_cache=True, **options))
        assert_equal(torch.cat(parts, dim=1)[:, PADS:], expected)


@pytest.mark.parametrize("name", READ_KEYS)
@torch.no_grad()
def test_packed_texts_in_a_cache_are_refused_where_positions_of_all_keys_are_needed(name):
    """The last query sees its own text only, and nothing says where the keys of the other are."""
    decoder, cache = stacks({**RELATIVE, **ABSOLUTE}[name])[1], DynamicCache()
    mask = causal(torch.ones(1, LENGTH, dtype=torch.bool))
    mask[..., 4:, :4] = False
    decoder(IDS[:, :3], attention_mask=mask[..., :3, :3], cache=cache, use_cache=True)
    with pytest.raises(ValueError, match="has to know the positions of all keys.*leave `position_ids` away"):
        decoder(IDS[:, 3:], attention_mask=mask[..., 3:, :], cache=cache, position_ids=torch.tensor([[3, 0, 1]]))
