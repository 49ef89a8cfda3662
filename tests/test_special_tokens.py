"""The special tokens of a vocabulary, and of which class a tokenizer with them is."""

import pytest
from transformers import PreTrainedTokenizerFast

from hf_vanilla_transformer import VanillaTransformerTokenizer
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.special_tokens import special_tokens_of

TEXTS = ["a dog", "ein Hund", "<2de> a >> b << 2de"]


def test_control_tokens_come_first_then_sentinels_then_tags_each_once():
    tokens = special_tokens_of(2, ["<2de>", "<2fr>", "<2de>"])
    assert [str(token) for token in tokens] == [
        *("<s>", "<pad>", "</s>", "<unk>", "<sentinel_0>", "<sentinel_1>", "<2de>", "<2fr>")
    ]


@pytest.mark.parametrize("tag", ["</s>", "<unk>", "<sentinel_1>", "<sentinel_7>", "2de", "<<>>", "<2 de>", ""])
def test_what_is_a_control_token_or_could_be_spelled_by_text_cannot_be_a_tag(tag):
    with pytest.raises(ValueError, match="cannot be a tag"):
        special_tokens_of(2, [tag])


@pytest.mark.parametrize("model", ["bpe", "wordpiece"])
def test_only_a_vocabulary_with_tags_is_of_our_class_and_text_cannot_spell_them(model):
    plain = train_tokenizer(texts=TEXTS, vocab_size=280, model=model)
    made = train_tokenizer(texts=TEXTS, vocab_size=280, model=model, tags=["<2de>"])
    assert type(plain) is PreTrainedTokenizerFast
    assert type(made) is VanillaTransformerTokenizer
    assert len(made) <= 280
    assert made.convert_tokens_to_ids("<2de>") == 4
    assert made.decode(made("<2de> a dog").input_ids, skip_special_tokens=True) == "a dog"
