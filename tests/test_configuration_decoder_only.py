"""The configuration of a decoder alone: what it shares with the whole model's, what it refuses, saving and loading."""

from dataclasses import fields

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from hf_vanilla_transformer import PRESETS, VanillaTransformerConfig, VanillaTransformerDecoderConfig

SMALL = {"vocab_size": 50, "d_model": 8, "num_heads": 2, "d_ff": 12, "num_decoder_layers": 3}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_those_of_the_whole_model_without_its_encoder(preset):
    decoder, whole = (cls.from_preset(preset) for cls in (VanillaTransformerDecoderConfig, VanillaTransformerConfig))
    assert decoder.num_encoder_layers == 0
    for field in fields(VanillaTransformerConfig):
        if field.name not in VanillaTransformerDecoderConfig.fixed_fields:
            assert getattr(decoder, field.name) == getattr(whole, field.name), field.name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_encoder_layers": 3}, "`num_encoder_layers`=3 is not allowed; allowed: 0 in a VanillaTransformerDec"),
        ({"source_vocab_size": 9}, "`source_vocab_size`=9 is not allowed; allowed: None"),
        ({"source_kind": "frames", "source_width": 3}, "`source_kind`=frames is not allowed; allowed: tokens"),
        ({"cross_attention": "linear"}, "`cross_attention`=linear is not allowed; allowed: softmax in a"),
        ({"decoder_start_token_id": 0}, "`decoder_start_token_id`=0 is not allowed; allowed: None"),
        ({"is_encoder_decoder": True}, "`is_encoder_decoder`=True is not allowed; allowed: False"),
        ({"encoder_layers": 2}, "`encoder_layers`=2: a VanillaTransformerDecoderConfig has no encoder"),
        ({"prefix_visibility": "full"}, "prefix_visibility.*causal.*full"),
        ({"dropout": 2.0}, "`dropout`=2.0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_decoder_alone_does_not_have_is_refused_by_name(given, said):
    with pytest.raises((StrictDataclassError, ValueError), match=said):
        VanillaTransformerDecoderConfig(**{**SMALL, **given})


def test_saving_loading_and_names_of_transformers(tmp_path):
    config = VanillaTransformerDecoderConfig(**SMALL, prefix_visibility="bidirectional")
    assert (config.hidden_size, config.num_hidden_layers, config.decoder_layers) == (8, 3, 3)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is VanillaTransformerDecoderConfig
    assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()
    assert loaded.prefix_visibility == "bidirectional"
