"""The configuration of an encoder alone: what it shares with the whole model's, what it refuses, saving and loading."""

import copy
import json
import pickle
from dataclasses import fields

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from hf_vanilla_transformer import PRESETS, VanillaTransformerConfig, VanillaTransformerEncoderConfig

SMALL = {"vocab_size": 50, "d_model": 8, "num_heads": 2, "d_ff": 12, "num_encoder_layers": 3}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_those_of_the_whole_model_without_its_decoder(preset):
    encoder, whole = (cls.from_preset(preset) for cls in (VanillaTransformerEncoderConfig, VanillaTransformerConfig))
    assert encoder.num_decoder_layers == 0
    for field in fields(VanillaTransformerConfig):
        if field.name not in VanillaTransformerEncoderConfig.fixed_fields:
            assert getattr(encoder, field.name) == getattr(whole, field.name), field.name


def test_names_of_transformers_mean_the_encoder():
    config = VanillaTransformerEncoderConfig(**SMALL)
    assert (config.hidden_size, config.num_attention_heads, config.num_hidden_layers) == (8, 2, 3)
    assert VanillaTransformerEncoderConfig(num_hidden_layers=5, hidden_size=64).num_encoder_layers == 5
    config.num_hidden_layers = 4
    assert config.num_encoder_layers == 4
    assert not config.is_encoder_decoder
    assert VanillaTransformerConfig(num_hidden_layers=5).num_decoder_layers == 5  # as before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_decoder_layers": 3}, "`num_decoder_layers`=3 is not allowed; allowed: 0 in a VanillaTransformerEnc"),
        ({"source_vocab_size": 9}, "`source_vocab_size`=9 is not allowed; allowed: None"),
        ({"source_kind": "frames", "source_width": 3}, "`source_kind`=frames is not allowed; allowed: tokens"),
        ({"cross_attention": "linear"}, "`cross_attention`=linear is not allowed; allowed: softmax in a"),
        ({"decoder_start_token_id": 0}, "`decoder_start_token_id`=0 is not allowed; allowed: None"),
        ({"use_cache": True}, "`use_cache`=True is not allowed; allowed: False"),
        ({"is_encoder_decoder": True}, "`is_encoder_decoder`=True is not allowed; allowed: False"),
        ({"decoder_layers": 2}, "`decoder_layers`=2: a VanillaTransformerEncoderConfig has no decoder"),
        ({"type_vocab_size": -1}, "`type_vocab_size`=-1"),
        ({"classifier_dropout": 1.0}, "`classifier_dropout`=1.0"),
        ({"pooling": "last"}, "pooling.*mean.*last"),
        ({"masked_lm_head": "bert"}, "masked_lm_head.*transform.*bert"),
        ({"dropout": 2.0}, "`dropout`=2.0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_an_encoder_does_not_have_is_refused_by_name(given, said):
    with pytest.raises((StrictDataclassError, ValueError), match=said):
        VanillaTransformerEncoderConfig(**{**SMALL, **given})


def test_saving_loading_and_copying_keep_everything(tmp_path, caplog):
    given = {"type_vocab_size": 2, "pooling": "first_tanh", "num_labels": 3, "classifier_dropout": 0.5}
    config = VanillaTransformerEncoderConfig(**SMALL, **given)
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == "vanilla_transformer_encoder"
    loaded = AutoConfig.from_pretrained(tmp_path)
    for same in (loaded, copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert type(same) is VanillaTransformerEncoderConfig
        assert {**same.to_dict(), "_name_or_path": None} == {**config.to_dict(), "_name_or_path": None}
    assert loaded.num_labels == 3
    assert not caplog.records


def test_the_config_of_a_translation_model_is_not_taken_for_one(tmp_path):
    VanillaTransformerConfig(**SMALL).save_pretrained(tmp_path)
    with pytest.raises((StrictDataclassError, ValueError), match="decoder"):
        VanillaTransformerEncoderConfig.from_pretrained(tmp_path)
