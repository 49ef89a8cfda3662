"""Fields of a configuration as they are written: values of the right kind, and no name that is none."""

import pytest

from hf_vanilla_transformer import VanillaTransformerConfig
from hf_vanilla_transformer.training.config_overrides import parse_overrides


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("True", True), ("FALSE", False), ("null", None), ("None", None), ("3", 3), ("0.5", 0.5),
     ("1e-6", 1e-6), ("pre", "pre"), ("'pre'", "pre"), ("", "")],
)  # fmt: skip
def test_values_are_literals_or_words_of_yaml_or_text(text, value):
    found = parse_overrides([f"dropout={text}"])["dropout"]
    assert (found, type(found)) == (value, type(value))


def test_a_boolean_of_yaml_makes_a_config():
    assert VanillaTransformerConfig(**parse_overrides(["attention_bias=true"])).attention_bias is True


def test_mappings_are_taken_as_they_are_and_later_ones_override():
    assert parse_overrides({"dropout": 0.2}) == parse_overrides([{"dropout": 0.2}]) == {"dropout": 0.2}
    assert parse_overrides(["dropout=0.1", {"dropout": 0.2}, "d_ff=8"]) == {"dropout": 0.2, "d_ff": 8}
    assert parse_overrides([]) == {}


@pytest.mark.parametrize("write", [lambda name: [f"{name}=1"], lambda name: {name: 1}, lambda name: [{name: 1}]])
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dropuot", "; did you mean dropout?"),
        ("num_beams", ""),
        ("nonsense", ""),
        ("d_modle", "; did you mean d_model"),
    ],
)
def test_names_that_are_no_fields_are_refused(write, name, hint):
    with pytest.raises(ValueError, match=f"the configuration has no field '{name}'{hint}"):
        parse_overrides(write(name))


def test_every_field_and_every_alias_is_a_name():
    for name in ("dropout", "vocab_size", *VanillaTransformerConfig.attribute_map):
        assert parse_overrides([f"{name}=4"]) == {name: 4}


def test_what_has_no_value_is_refused():
    with pytest.raises(ValueError, match="'dropout' is not of the form NAME=VALUE"):
        parse_overrides(["dropout"])
