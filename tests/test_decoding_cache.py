"""The growing cache of keys and values: against transformers' own, which copies."""

import torch
from transformers.cache_utils import DynamicLayer

from hf_vanilla_transformer.decoding_cache import GrowingLayer


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
