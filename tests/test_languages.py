"""Languages of a served model: read off its tags, or declared; and the tags that a request becomes."""

import pytest

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.serving.languages import Languages, declared_languages

TAGS = ["<en>", "<pt-BR>", "<2de>", "<2fr>", "<bpe>", ">>nds<<", "<sentence>"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["a b"], vocab_size=270, tags=TAGS)


@pytest.mark.parametrize(
    ("declared", "sources", "targets"),
    [
        (None, ("en", "pt-BR", "bpe"), ("de", "fr")),
        (":", ("en", "pt-BR", "bpe"), ("de", "fr")),
        ("en:", ("en",), ("de", "fr")),
        (":ipa", ("en", "pt-BR", "bpe"), ("ipa",)),
        ("en,zh-Hant:de,nds", ("en", "zh-Hant"), ("de", "nds")),
    ],
)
def test_what_is_not_declared_is_read_off_the_tags(tokenizer, declared, sources, targets):
    languages = Languages.of(tokenizer, declared)
    assert (languages.sources, languages.targets) == (sources, targets)
    assert set(languages.tags) == set(TAGS)


@pytest.mark.parametrize("declared", ["", "en", "en-de", "en:de:fr", "en,:de", "en de:fr", "en:../x", ",:"])
def test_other_forms_are_refused(declared):
    with pytest.raises(ValueError, match="is not of the form SOURCE:TARGET"):
        declared_languages(declared)


def test_a_request_becomes_tags_where_the_model_has_them(tokenizer):
    languages = Languages.of(tokenizer, "en,it:de,nds")
    assert languages.tag_for(None, None, None) is None
    assert languages.tag_for("en", "de", None) == "<en> <2de>"
    assert languages.tag_for("it", "nds", None) is None
    assert languages.tag_for("en", None, ">>nds<< bpe") == "<en> >>nds<< <bpe>"


def test_tags_that_the_tokenizer_puts_there_are_not_put_twice():
    tokenizer = train_tokenizer(texts=["a b"], vocab_size=270, tags=TAGS)
    tokenizer.tgt_lang = "de"
    assert Languages.of(tokenizer).tag_for("en", "de", None) == "<en>"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("xx", None, None), "does not translate from 'xx'; it does from en"),
        ((None, "fr", None), "does not translate into 'fr'; it does into de"),
        ((None, None, "2xx"), "'<2xx>' is not a tag"),
        (("../en", None, None), "does not translate from '../en'"),
    ],
)
def test_what_the_model_does_not_have_is_refused(tokenizer, asked, message):
    with pytest.raises(ValueError, match=message.replace("<", "\\<")):
        Languages.of(tokenizer, "en:de").tag_for(*asked)


def test_a_model_that_nobody_describes_says_what_to_do():
    plain = Languages.of(train_tokenizer(texts=["a b"], vocab_size=262))
    assert (plain.sources, plain.targets) == ((), ())
    with pytest.raises(ValueError, match="--languages"):
        plain.tag_for("en", None, None)


def test_a_model_has_a_pair_or_has_not(tokenizer):
    languages = Languages.of(tokenizer, "en:de")
    assert languages.have("en", "de")
    assert languages.have(None, "de")
    assert languages.have("en", None)
    assert not languages.have("de", "en")
