"""What is kept between steps: growing keys and values against transformers' own, sums against whole histories."""

import itertools

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from hf_vanilla_transformer.decoding_cache import DECODING_STATES, GrowingLayer, RunningSums


def test_a_growing_layer_holds_what_a_dynamic_layer_holds():
    ours, theirs = GrowingLayer(), DynamicLayer()
    pieces = [torch.randn(2, 3, count, 4) for count in (1, 40, 1, 1, 100)]
    for index, piece in enumerate(pieces):
        for layer in (ours, theirs):
            layer.update(piece, 2 * piece)
            if index == 2:
                layer.crop(-2)
                layer.reorder_cache(torch.tensor([1, 0]))
            if index == 3:
                layer.batch_repeat_interleave(2)
                layer.batch_select_indices(torch.tensor([0, 3]))
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)
        assert ours.get_seq_length() == theirs.get_seq_length()


def test_a_cache_of_inference_mode_can_go_on_outside_it_and_gradients_see_what_was_there():
    ours, theirs = GrowingLayer(), DynamicLayer()
    with torch.inference_mode():
        first = torch.randn(2, 3, 4, 5)
        for layer in (ours, theirs):
            layer.update(first, first)
    second = torch.randn(2, 3, 1, 5)
    for layer in (ours, theirs):
        layer.update(second, second)
    assert torch.equal(ours.keys, theirs.keys)
    pieces = [torch.randn(1, 2, 3, 4, requires_grad=True) for _ in range(3)]
    gradients = []
    for kind in (GrowingLayer, DynamicLayer):
        layer = kind()
        products = [(keys.exp() * values).sum() for keys, values in (layer.update(piece, piece) for piece in pieces)]
        gradients.append(torch.autograd.grad(sum(products), pieces))
    for actual, expected in zip(*gradients):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("kind", ["keys", "sums"])
def test_what_is_kept_appends_follows_parents_and_drops_rows(kind):
    """Shared keys stay where they are, whoever the parents are; sums are those of each beam's own history."""
    generator = torch.Generator().manual_seed(0)
    rows, heads, beams = 3, 2, 4
    layer = DECODING_STATES["softmax" if kind == "keys" else "linear"]()
    prefix = [torch.rand(rows, heads, 5, width, generator=generator) for width in (6, 7)]
    layer.update(*prefix)
    histories = [[[(prefix[0][row], prefix[1][row])] for _ in range(beams)] for row in range(rows)]
    appended = [prefix]
    for step in range(3):
        parents = torch.randint(0, beams if step else 1, (len(histories), beams), generator=generator)
        layer.select(parents)
        new = [torch.rand(len(histories), heads, beams, width, generator=generator) for width in (6, 7)]
        layer.update(*new)
        appended.append(new)
        histories = [
            [[*old[parents[row, beam]], (new[0][row, :, [beam]], new[1][row, :, [beam]])] for beam in range(beams)]
            for row, old in enumerate(histories)
        ]
        if step == 1:
            kept = torch.tensor([2, 0])
            layer.keep(kept)
            histories = [histories[row] for row in kept]
            appended = [[states[kept] for states in each] for each in appended]
    if kind == "keys":
        for states, expected in zip((layer.keys, layer.values), zip(*appended)):
            assert torch.equal(states, torch.cat(expected, dim=2))
        return
    for row, beam in itertools.product(range(2), range(beams)):
        keys, values = (torch.cat(each, dim=1) for each in zip(*histories[row][beam]))  # (G, L, ...)
        torch.testing.assert_close(layer.keys[row, beam], keys.sum(1))
        torch.testing.assert_close(layer.values[row, beam], torch.einsum("glf,gld->gfd", keys, values))
    assert layer.get_seq_length() == 5 + 3


def test_recorded_positions_can_be_taken_out_of_the_sums_and_others_cannot():
    layer, other = RunningSums(), RunningSums()
    pieces = [(torch.rand(2, 3, count, 4).double(), torch.rand(2, 3, count, 5).double()) for count in (6, 3, 2)]
    layer.update(*pieces[0])
    with pytest.raises(ValueError, match=r"1 positions cannot be taken out.*0 were recorded"):
        layer.crop(-1)
    layer.activate_past_recording()
    layer.update(*pieces[1])
    layer.update(*pieces[2])
    layer.crop(-3)
    keys, values = (torch.cat(each, dim=2)[:, :, :8] for each in zip(*pieces))
    other.update(keys, values)
    torch.testing.assert_close(layer.keys, other.keys)
    torch.testing.assert_close(layer.values, other.values)
    assert layer.get_seq_length() == 8
    layer.crop(0)
    with pytest.raises(ValueError, match=r"crop\(1\): give the number of positions to take back as a negative one"):
        layer.crop(1)  # to older versions of transformers, the length that is left
    with pytest.raises(ValueError, match="2 positions"):
        layer.crop(-2)
    layer.update(*pieces[1])
    layer.reorder_cache(torch.tensor([1, 0]))
    with pytest.raises(ValueError, match="in this order"):
        layer.crop(-1)
    layer.reset()
    assert torch.equal(layer.update(*pieces[0])[0], RunningSums().update(*pieces[0])[0])
