"""What a mistyped name was probably meant to be."""

from hf_vanilla_transformer.data.suggestions import did_you_mean


def test_the_nearest_name_is_suggested_and_nothing_for_what_resembles_none():
    assert did_you_mean("dropuot", ["attention_dropout", "dropout", "d_ff"]) == "; did you mean dropout?"
    assert did_you_mean("xyzzy", ["dropout"]) == ""
    assert did_you_mean(5, {"dropout"}) == "", "a key of YAML may be a number"
