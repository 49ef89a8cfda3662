"""Vocabularies with sources in lower case: targets stay as they are, and words are the same wherever they stand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_vanilla_transformer.commands.train_tokenizer import main
from hf_vanilla_transformer.data.bpe_dropout import BpeDropout
from hf_vanilla_transformer.data.lowercase_bpe import train_lowercase_bpe
from hf_vanilla_transformer.inference import load_tokenizer
from hf_vanilla_transformer.tokenization_ids import text_to_ids

PAIRS = [{"source": "Two Dogs run, the Two dogs.", "target": "Zwei Hunde rennen, die zwei Hunde."}] * 5


@pytest.fixture(scope="module")
def tokenizer():
    return train_lowercase_bpe(PAIRS, vocab_size=330, tags=["<2de>"])


def decoded(tokenizer, text, as_target):
    return tokenizer.decode(text_to_ids(tokenizer, [text], as_target)[0], skip_special_tokens=True)


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_target_is_decoded_to_exactly_what_it_was_and_a_source_to_lower_case(tokenizer, text):
    assert decoded(tokenizer, text, as_target=True) == text
    # One character may be several in lower case, and what they are depends on neighbours only for the Greek sigma.
    assert decoded(tokenizer, text, as_target=False) == "".join(map(str.lower, text))


def test_one_word_is_one_token_wherever_it_stands_and_however_a_source_spells_it(tokenizer):
    first, inside = text_to_ids(tokenizer, ["Two dogs", "dogs TWO"])
    assert len(first) == 3
    assert first[:2] == inside[1::-1]
    beginning, end = text_to_ids(tokenizer, ["Hunde rennen", "rennen Hunde"], as_target=True)
    assert len(beginning) == 3
    assert beginning[:2] == end[1::-1]
    assert text_to_ids(tokenizer, ["Hunde"], as_target=True) != text_to_ids(tokenizer, ["hunde"], as_target=True)


def test_a_tag_is_whole_and_the_text_after_it_is_read_as_without_it(tokenizer):
    tagged, plain = text_to_ids(tokenizer, ["<2de> Two dogs", "Two dogs"])
    assert tagged == [tokenizer.convert_tokens_to_ids("<2de>"), *plain]


def test_saved_and_loaded_it_reads_both_sides_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    for as_target in (False, True):
        texts = ["Two Dogs", " zwei  Hunde ", "", "</s> Ä"]
        assert text_to_ids(loaded, texts, as_target) == text_to_ids(tokenizer, texts, as_target)


def test_bpe_dropout_cuts_each_side_in_its_own_case(tokenizer):
    import numpy as np

    cut = BpeDropout(tokenizer, 0.5)
    for as_target, expected in ((False, "two dogs"), (True, "Two Dogs")):
        seen = {tuple(cut.encode("Two Dogs", np.random.default_rng(seed), as_target)) for seed in range(8)}
        assert len(seen) > 1
        assert {tokenizer.decode(ids, skip_special_tokens=True) for ids in seen} == {expected}


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        ([{"source": " ", "target": ""}], ValueError, "nothing to learn from: 2 strings"),
        ([{"source": 3, "target": "x"}], TypeError, "item 1: expected a string, got int"),
    ],
)
def test_text_to_learn_from_must_be_text(pairs, error, message):
    with pytest.raises(error, match=message):
        train_lowercase_bpe(pairs, vocab_size=300)


def test_the_command_learns_it_from_pairs_and_refuses_text_of_which_the_side_is_not_known(tmp_path, capsys):
    pairs, plain = tmp_path / "pairs.tsv", tmp_path / "train.en"
    pairs.write_text("".join(f"{row['source']}\t{row['target']}\n" for row in PAIRS), encoding="utf-8")
    plain.write_text("Two dogs\n", encoding="utf-8")
    options = ["--vocab_size", "300", "--source_units", "lowercase_bpe", "--output_dir", str(tmp_path / "made")]
    assert main(["--files", str(plain), *options]) == 2
    assert "does not say whether it is source or target" in capsys.readouterr().err
    assert main(["--files", str(pairs), *options]) == 0
    assert decoded(load_tokenizer(tmp_path / "made"), "Two Dogs", as_target=False) == "two dogs"
    with pytest.raises(SystemExit):
        main(["--files", str(pairs), *options, "--target_units", "words"])
    assert "--target_units has no effect" in capsys.readouterr().err
