"""What a run begins with: overrides as they are written. Models and what of them learns: test_pretraining.py."""

import pytest

from hf_vanilla_transformer.training.model_setup import parse_overrides


def test_overrides_are_literals_or_strings_or_mappings_and_otherwise_refused():
    assert parse_overrides(["dropout=0.2", "norm_position=pre", "d_k=None", "attention_bias=True", "d_ff=64"]) == {
        "dropout": 0.2,
        "norm_position": "pre",
        "d_k": None,
        "attention_bias": True,
        "d_ff": 64,
    }
    assert parse_overrides({"dropout": 0.2}) == parse_overrides([{"dropout": 0.2}]) == {"dropout": 0.2}
    with pytest.raises(ValueError, match="'dropout' is not of the form NAME=VALUE"):
        parse_overrides(["dropout"])
