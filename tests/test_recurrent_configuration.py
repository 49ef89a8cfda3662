"""The shape of recurrent models: presets, and what is refused."""

import pytest
from huggingface_hub.errors import StrictDataclassError

from hf_vanilla_transformer.lab.recurrent_configuration import RECURRENT_PRESETS, RecurrentConfig


def test_presets_are_the_models_of_their_papers():
    shapes = {name: RecurrentConfig.from_preset(name) for name in RECURRENT_PRESETS}
    assert {name: (each.attention, each.stack) for name, each in shapes.items()} == {
        "recurrent": ("none", "plain"),
        "recurrent_additive": ("additive", "plain"),
        "recurrent_multiplicative": ("multiplicative", "plain"),
        "recurrent_multiplicative_fed": ("multiplicative", "plain"),
        "recurrent_gnmt": ("additive", "gnmt"),
    }
    assert [each.feeds_back for each in shapes.values()] == [False, True, False, True, True]
    assert RecurrentConfig.from_preset("recurrent", hidden_size=8).d_model == 8
    with pytest.raises(ValueError, match="there is no preset 'gnmt'; allowed: recurrent, recurrent_additive"):
        RecurrentConfig.from_preset("gnmt")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cell": "elman"}, "cell"),
        ({"attention": "dot"}, "attention"),
        ({"stack": "gnmt"}, "`attention`='none' is not allowed; allowed: additive or multiplicative with `stack`='gn"),
        ({"d_model": 9}, "`d_model`=9 is not allowed; allowed: an even number with `bidirectional`=True"),
        (
            {"stack": "gnmt", "attention": "additive", "attention_feeds_back": False},
            "`attention_feeds_back`=False is not allowed; allowed: True or None with `stack`='gnmt'",
        ),
        (
            {"attention_feeds_back": True},
            "`attention_feeds_back`=True is not allowed; allowed: None with `attention`='no",
        ),
        ({"cell": "gru", "forget_bias": 1.0}, "`forget_bias`=1.0 is not allowed; allowed: None with `cell`='gru'"),
        ({"forget_bias": float("nan")}, "`forget_bias`=nan is not allowed; allowed: a finite number"),
        ({"num_layers": 0}, "`num_layers`=0 is not allowed; allowed: an integer of at least 1"),
        ({"dropout": 1.0}, "`dropout`=1.0"),
        ({"vocab_size": 2}, "`eos_token_id`=2 is not allowed; allowed: 0 to 1"),
    ],
)
def test_what_no_model_can_have_is_refused(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        RecurrentConfig(**fields)
    RecurrentConfig(d_model=9, bidirectional=False)
