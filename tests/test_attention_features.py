"""The features of linear attention: against their formulas, and random directions by their statistics."""

import pytest
import torch
from feature_formulas import phi

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.attention_features import (
    FEATURE_MAPS,
    RandomFeatures,
    num_features,
    orthogonal_directions,
)

SMALL = {"vocab_size": 20, "d_model": 16, "num_heads": 4, "d_ff": 16, "num_encoder_layers": 1, "num_decoder_layers": 1}


def config(**fields):
    return VanillaTransformerConfig(**{**SMALL, "attention": "linear", "cross_attention": "linear", **fields})


@pytest.mark.parametrize("name", FEATURE_MAPS)
def test_products_are_those_of_the_formulas(name):
    """Up to one factor for each query, which cancels in attention."""
    fields = {"num_random_features": 9, "feature_seed": 2} if name in ("random", "cosine_sine") else {}
    torch.manual_seed(0)
    made = FEATURE_MAPS[name](config(feature_map=name, **fields)).double()
    queries, keys = torch.randn(3, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    found = made(queries, are_keys=False) @ made(keys, are_keys=True).t()
    directions = getattr(made, "directions", None)
    expected = torch.stack(
        [torch.stack([phi(name, q, False, directions) @ phi(name, k, True, directions) for k in keys]) for q in queries]
    )
    torch.testing.assert_close(found / found.sum(1, keepdim=True), expected / expected.sum(1, keepdim=True))
    assert made(queries, are_keys=False).shape[-1] == num_features(config(feature_map=name, **fields))


def test_directions_are_orthogonal_in_blocks_and_each_is_gaussian():
    """Over 2,000 seeds, every number has mean 0 and variance 1, and squares of lengths have d_k, within 6 errors."""
    drawn = torch.stack([orthogonal_directions(5, 3, seed) for seed in range(2000)])
    products = drawn @ drawn.transpose(1, 2)
    first = products[:, :3, :3] - torch.diag_embed(products[:, :3, :3].diagonal(dim1=1, dim2=2))
    assert first.abs().max() < 1e-5
    assert products[:, 0, 3].abs().mean() > 0.1  # another block
    assert (drawn.mean(0).abs() < 6 / 2000**0.5).all()
    assert ((drawn.square().mean(0) - 1).abs() < 6 * (2 / 2000) ** 0.5).all()
    lengths = drawn.square().sum(-1)
    assert (lengths.mean(0) - 3).abs().max() < 6 * (6 / 2000) ** 0.5
    assert abs(float(lengths.var()) - 6) < 1.5
    assert torch.equal(orthogonal_directions(5, 3, 7), drawn[7])


def test_directions_are_saved_and_a_model_from_meta_has_them(tmp_path):
    fields = {"feature_map": "random", "num_random_features": 6, "feature_seed": 4}
    model = VanillaTransformerForConditionalGeneration(config(**fields))
    maps = [part for part in model.modules() if isinstance(part, RandomFeatures)]
    assert len(maps) == 3  # of the encoder, of the decoder, and between them
    for each in maps:
        each.directions.add_(1)
    model.save_pretrained(tmp_path)
    loaded = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path)
    assert all(
        torch.equal(part.directions, maps[0].directions)
        for part in loaded.modules()
        if isinstance(part, RandomFeatures)
    )
    with torch.device("meta"):
        empty = VanillaTransformerForConditionalGeneration(config(**fields))
    empty.to_empty(device="cpu").init_weights()
    expected = orthogonal_directions(6, 4, 4)
    assert all(torch.equal(part.directions, expected) for part in empty.modules() if isinstance(part, RandomFeatures))


def test_a_model_made_on_a_device_has_its_directions_there():
    """Which "meta" stands for; an accelerator would not multiply by directions that are elsewhere."""
    with torch.device("meta"):
        model = VanillaTransformerForConditionalGeneration(config(feature_map="random", num_random_features=6))
    ids = torch.zeros(2, 3, dtype=torch.long, device="meta")
    assert model(input_ids=ids, decoder_input_ids=ids).logits.shape == (2, 3, 20)
