"""Which model a preset means, and that a run builds it."""

import pytest
from huggingface_hub.errors import StrictDataclassError
from training_runs import arguments

from hf_vanilla_transformer import PRESETS, VanillaTransformerConfig
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.lab.recurrent import RecurrentForConditionalGeneration
from hf_vanilla_transformer.lab.recurrent_configuration import RECURRENT_PRESETS, RecurrentConfig
from hf_vanilla_transformer.training.model_setup import build_model, learned_positions
from hf_vanilla_transformer.training.presets import TRAINABLE, config_class_of, new_model


def test_every_preset_is_of_one_kind():
    assert not set(PRESETS) & set(RECURRENT_PRESETS)
    assert {config_class_of(name) for name in PRESETS} == {VanillaTransformerConfig}
    assert {config_class_of(name) for name in RECURRENT_PRESETS} == {RecurrentConfig}
    with pytest.raises(ValueError, match="no preset 'recurent_gnmt'; did you mean recurrent_gnmt; allowed: base, big"):
        config_class_of("recurent_gnmt")


@pytest.mark.parametrize("preset", ["tiny", "recurrent_additive"])
def test_a_new_model_is_of_the_kind_of_its_configuration(preset):
    config = config_class_of(preset).from_preset(preset, vocab_size=9, d_model=8)
    model = new_model(config)
    assert isinstance(model, TRAINABLE)
    assert type(model).config_class is type(config)


def test_a_run_builds_a_recurrent_model_with_its_tokenizer_and_overrides(tmp_path):
    tokenizer = train_tokenizer(texts=["red dog"], vocab_size=262)
    options = {"preset": "recurrent_gnmt", "config_overrides": ["d_model=8", "cell=gru"], "generation_num_beams": 3}
    args = arguments(tmp_path, tmp_path / "run", **options)
    assert learned_positions(args) is None
    model, first_update = build_model(args, tokenizer)
    assert (type(model), first_update) == (RecurrentForConditionalGeneration, 0)
    shape = (model.config.cell, model.config.stack, model.config.d_model, model.config.vocab_size)
    assert shape == ("gru", "gnmt", 8, len(tokenizer))
    assert model.config.decoder_start_token_id == tokenizer.bos_token_id
    assert model.generation_config.num_beams == 3
    for overrides, message in (
        (["norm_position=pre"], "the configuration has no field 'norm_position'"),
        (["attention=none"], "additive or multiplicative with `stack`='gnmt'"),
    ):
        wrong = arguments(tmp_path, tmp_path / "run", **{**options, "config_overrides": overrides})
        with pytest.raises((ValueError, StrictDataclassError), match=message):
            build_model(wrong, tokenizer)
