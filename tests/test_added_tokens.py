"""Tokens that were added: whole in text, and decoded to what they were."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.added_tokens import add_tokens_to
from hf_vanilla_transformer.data.tokenization import save_tokenizer
from hf_vanilla_transformer.tokenization_ids import text_to_ids

TOKENS = ["Straße", "läuft", "<2de>", "漢字", "ä.*", "Ã¼b", "no\\d$", "two words"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["a dog läuft über die Straße", "ein Hund"] * 3, vocab_size=300)


@pytest.fixture(scope="module")
def extended(tokenizer):
    extended = copy.deepcopy(tokenizer)
    assert add_tokens_to(extended, TOKENS) == len(TOKENS)
    return extended


@pytest.fixture(scope="module")
def reloaded(extended, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(extended, folder)
    return AutoTokenizer.from_pretrained(folder)


PIECES = st.sampled_from([*TOKENS, "Stra", "ße", "lä", "u", " ", "Ã", "¼", "Ġ", "\n", "^", "dog"])
TEXTS = st.lists(PIECES | st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=8).map("".join)


@settings(max_examples=300)
@given(text=TEXTS)
def test_text_comes_back_as_it_was(extended, reloaded, text):
    ids = text_to_ids(extended, [text])[0]
    for tokenizer in (extended, reloaded):
        assert text_to_ids(tokenizer, [text])[0] == ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert tokenizer.batch_decode([ids], skip_special_tokens=True) == [text]


@pytest.mark.parametrize("token", TOKENS)
def test_an_added_token_is_one_token(extended, token):
    assert len(text_to_ids(extended, [token])[0]) == 2


def test_tokens_that_were_added_otherwise_are_mended_and_nothing_is_done_twice(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["läuft"])
    assert "\ufffd" in tokenizer.decode(text_to_ids(tokenizer, ["läuft"])[0])
    assert add_tokens_to(tokenizer, ["Straße"]) == 1
    assert tokenizer.decode(text_to_ids(tokenizer, ["läuft Straße"])[0][:-1]) == "läuft Straße"
    state = tokenizer.backend_tokenizer.to_str()
    assert add_tokens_to(tokenizer, ["Straße", "läuft"]) == 0
    assert tokenizer.backend_tokenizer.to_str() == state


@pytest.mark.parametrize(
    ("token", "message"), [("", "no visible"), (" \t", "no visible"), ("Ġ", "spells ' '"), ("ß", "spells part")]
)
def test_what_cannot_be_a_token_is_refused(tokenizer, token, message):
    with pytest.raises(ValueError, match=message):
        add_tokens_to(copy.deepcopy(tokenizer), [token])


def test_other_decoders_stay_as_they_are():
    wordpiece = train_tokenizer(texts=["ein Hund läuft"] * 3, vocab_size=60, model="wordpiece")
    before = wordpiece.backend_tokenizer.decoder.__getstate__()
    add_tokens_to(wordpiece, ["Straße", "<2de>"])
    assert wordpiece.backend_tokenizer.decoder.__getstate__() == before
    assert wordpiece.decode(text_to_ids(wordpiece, ["Straße"])[0], skip_special_tokens=True) == "Straße"
