"""Vocabularies of characters and of given units: nothing is lost, letters and units are apart, rare ones counted."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from hf_vanilla_transformer import VanillaTransformerTokenizer
from hf_vanilla_transformer.data import TextFormat
from hf_vanilla_transformer.data.unit_tokenizer import UNITS, pairs_of_files, train_unit_tokenizer
from hf_vanilla_transformer.tokenization_ids import text_to_ids

LETTERS = "ab çé ö가각힣ạ̈ng<>/s한"
PHONES = ["a", "t͡ɕʰ", "ç", "ç", "˧˦", "e̞", "a̠ː", "</s>", "<s>", "##b", "Ġ"]
bounded = settings(max_examples=15, deadline=None)


def rows_of(*pairs):
    return [{"source": source, "target": target} for source, target in pairs]


@pytest.fixture(scope="module")
def phonetic():
    return train_unit_tokenizer(
        rows_of((LETTERS, " ".join(PHONES))), source_units="characters", target_units="words", tags=["<2ipa>"]
    )


def decoded(tokenizer, text, as_target=False):
    (ids,) = text_to_ids(tokenizer, [text], as_target)
    assert tokenizer.unk_token_id not in ids
    return tokenizer.decode(ids, skip_special_tokens=True)


@bounded
@given(st.text(st.sampled_from(LETTERS), min_size=1), st.lists(st.sampled_from(PHONES)))
def test_known_text_comes_back_as_it_was_on_either_side(phonetic, letters, phones):
    assert decoded(phonetic, letters) == letters
    assert decoded(phonetic, " ".join(phones), as_target=True) == " ".join(phones)
    assert decoded(phonetic, " \t".join(["", *phones, ""]), as_target=True) == " ".join(phones)


@bounded
@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_text_can_be_read_and_what_is_not_known_is_counted_as_unknown(phonetic, text):
    vocabulary = phonetic.get_vocab()
    (source,), (target,) = text_to_ids(phonetic, [text]), text_to_ids(phonetic, [text], as_target=True)
    if "<2ipa>" not in text:
        assert source.count(phonetic.unk_token_id) == sum(each not in vocabulary or each == "▁" for each in text)
    assert target[-1] == phonetic.eos_token_id
    phonetic.decode(source)


@pytest.mark.parametrize("syllable", ["가", "각", "힣", "쀍"])
def test_korean_is_read_as_jamo_by_the_arithmetic_of_unicode(syllable):
    tokenizer = train_unit_tokenizer(rows_of(("가각힣쀍", "x")), source_units="nfd_characters", target_units="words")
    number = ord(syllable) - 0xAC00
    jamo = [0x1100 + number // 588, 0x1161 + number % 588 // 28] + ([0x11A7 + number % 28] if number % 28 else [])
    assert tokenizer.tokenize(syllable) == [chr(code) for code in jamo]
    assert decoded(tokenizer, syllable) == syllable


def test_a_letter_and_a_unit_of_one_spelling_are_two_tokens(phonetic):
    assert phonetic.tokenize("a") == ["a"]
    (source,), (target,) = text_to_ids(phonetic, ["a"]), text_to_ids(phonetic, ["a"], as_target=True)
    assert source != target
    # And the mark by which they differ cannot be written into a text.
    for as_target in (False, True):
        assert phonetic.unk_token_id in text_to_ids(phonetic, ["▁a"], as_target)[0]


def test_what_has_no_room_is_the_rarest_and_the_log_counts_it(package_log):
    pairs = rows_of(("aaaa bbb", "x x x x"), ("cc d", "y"))
    counts = Counter("aaaa bbbcc d") + Counter({"▁x": 4, "▁y": 1})
    tokenizer = train_unit_tokenizer(pairs, source_units="characters", target_units="words", vocab_size=8)
    kept = set(tokenizer.get_vocab()) - {"<s>", "<pad>", "</s>", "<unk>"}
    assert len(tokenizer) == 8
    assert len(kept) == 4
    assert min(counts[each] for each in kept) >= max(count for each, count in counts.items() if each not in kept)
    left_out = sum(count for each, count in counts.items() if each not in kept)
    assert (
        f"leaves {len(counts) - 4} of {len(counts)} symbols out, which are {left_out} of {counts.total()}"
        in package_log.text
    )


@pytest.mark.parametrize("units", UNITS)
def test_sides_that_are_cut_alike_read_alike(units):
    tokenizer = train_unit_tokenizer(rows_of(("né a", "b c")), source_units=units, target_units=units)
    assert text_to_ids(tokenizer, ["né a"]) == text_to_ids(tokenizer, ["né a"], as_target=True)
    assert decoded(tokenizer, "né a") == "né a"
    assert type(tokenizer) is (VanillaTransformerTokenizer if units == "nfd_characters" else PreTrainedTokenizerFast)


def test_the_same_text_gives_the_same_tokenizer_in_any_order():
    pairs = rows_of(("né a", "b c"), ("x", "y z"))
    made = [
        train_unit_tokenizer(each, source_units="characters", target_units="words").backend_tokenizer.to_str()
        for each in (pairs, iter(pairs[::-1]))
    ]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_units": "letters"}, r"`source_units`='letters' is not known; allowed: 'characters', 'nfd_"),
        ({"target_units": "bpe"}, "`target_units`='bpe' is not known"),
        ({"vocab_size": 4}, "`vocab_size`=4 has no room beside the 4 special tokens"),
        ({"pairs": rows_of(("a", " "), ("b", ""))}, "every target is blank"),
        ({"pairs": []}, "every source is blank"),
        ({"tags": ["</s>"]}, "'</s>' cannot be a tag"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(changes, message):
    given_ = {"pairs": rows_of(("a", "b")), "source_units": "characters", "target_units": "words", **changes}
    with pytest.raises(ValueError, match=message):
        train_unit_tokenizer(given_.pop("pairs"), **given_)


def test_files_of_pairs_have_sides_and_plain_text_has_none(tmp_path):
    (tmp_path / "a.tsv").write_text("ab\tx y\n")
    (tmp_path / "a.txt").write_text("cd\n")
    rows = list(pairs_of_files(tmp_path / "a.tsv", False, TextFormat()))
    assert [(row["source"], row["target"]) for row in rows] == [("ab", "x y")]
    both = [tmp_path / "a.tsv", tmp_path / "a.txt"]
    assert [row["source"] for row in pairs_of_files(both, True, TextFormat())] == ["ab", "cd"]
    with pytest.raises(ValueError, match=r"a\.txt does not say whether it is source or target"):
        list(pairs_of_files(both, False, TextFormat()))
