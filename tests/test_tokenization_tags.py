"""Tags in front of sources: how options name them, which ones a tokenizer has, and where a text has some."""

import pytest

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.tokenization_ids import text_to_ids
from hf_vanilla_transformer.tokenization_tags import known_tag_tokens, leading_tags, tag_tokens, tagged, tags_to_add


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["a dog"], vocab_size=270, tags=["<2de>", "<bt>"], num_sentinels=2)


@pytest.mark.parametrize(
    ("tag", "tokens"),
    [
        ("2de", ["<2de>"]),
        ("<2de>", ["<2de>"]),
        (" 2de  <bt>\t", ["<2de>", "<bt>"]),
        ("zh-CN", ["<zh-CN>"]),
        (">>deu<<", [">>deu<<"]),
    ],
)
def test_a_mere_name_gets_brackets(tag, tokens):
    assert tag_tokens(tag) == tokens


@pytest.mark.parametrize("tag", ["", "  "])
def test_a_tag_without_a_name_is_refused(tag):
    with pytest.raises(ValueError, match="has no name in it"):
        tag_tokens(tag)


def test_a_tag_that_the_tokenizer_does_not_have_is_refused_and_those_it_has_are_named(tokenizer):
    assert known_tag_tokens(tokenizer, None) == []
    assert known_tag_tokens(tokenizer, "bt 2de") == ["<bt>", "<2de>"]
    for wrong in ("2fr", "bt 2fr"):
        with pytest.raises(
            ValueError, match=r"^'<2fr>' is not a tag of this tokenizer; it knows <2de>, <bt>; new_tokens of finetune"
        ):
            known_tag_tokens(tokenizer, wrong)
    for control in ("</s>", "sentinel_0"):  # which no text has
        with pytest.raises(ValueError, match="is not a tag"):
            known_tag_tokens(tokenizer, control)
    with pytest.raises(ValueError, match="it has no tags; new_tokens"):
        known_tag_tokens(train_tokenizer(texts=["a"], vocab_size=262), "2de")


@pytest.mark.parametrize("text", ["a dog", " a dog", "", " \t"])
def test_a_tagged_text_is_the_text_behind_its_tags_and_no_text_stays_none(tokenizer, text):
    made = tagged(text, ["<2de>", "<bt>"])
    if not text.strip():
        assert made == text
        return
    (ids,), (plain,) = text_to_ids(tokenizer, [made]), text_to_ids(tokenizer, [text.strip()])
    assert ids == [*tokenizer.convert_tokens_to_ids(["<2de>", "<bt>"]), *plain]
    assert tagged(text, []) == text


@pytest.mark.parametrize(
    ("text", "tags", "rest"),
    [
        ("<2de> <bt> a dog <2de>", ["<2de>", "<bt>"], "a dog <2de>"),
        (" <bt><bt>a", ["<bt>", "<bt>"], "a"),
        ("a <2de>", [], "a <2de>"),
        ("<sentinel_0> a", [], "<sentinel_0> a"),
        ("<2de>", ["<2de>"], ""),
    ],
)
def test_the_tags_that_a_text_begins_with_come_off(tokenizer, text, tags, rest):
    assert leading_tags(tokenizer, text) == (tags, rest)


def test_of_two_tags_the_longer_one_comes_off_and_added_words_stay():
    tokenizer = train_tokenizer(texts=["a dog"], vocab_size=280, tags=["@zh", "@zh-hant", "de_DE"])
    tokenizer.add_tokens(["COVID-19", "<2fr>"])
    for tag in ("@zh", "@zh-hant", "de_DE", "<2fr>"):
        assert leading_tags(tokenizer, f"{tag} a dog") == ([tag], "a dog")
        assert tokenizer.convert_ids_to_tokens(text_to_ids(tokenizer, [f"{tag} a"])[0])[0] == tag
    assert leading_tags(tokenizer, "@zh COVID-19 is here") == (["@zh"], "COVID-19 is here")


def test_a_tag_that_the_tokenizer_puts_there_itself_is_not_put_there_twice():
    tokenizer = train_tokenizer(texts=["a dog"], vocab_size=280, tags=["<2de>", "<bt>"])
    assert tags_to_add(tokenizer, "2de bt") == ["<2de>", "<bt>"]
    tokenizer.tgt_lang = "de"
    assert tags_to_add(tokenizer, "bt") == ["<bt>"]
    assert tags_to_add(tokenizer, None) == []
    with pytest.raises(ValueError, match="tag=bt 2de: the tokenizer puts <2de> before every source by itself"):
        tags_to_add(tokenizer, "bt 2de")
