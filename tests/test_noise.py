"""Objectives for plain text, built for a tokenizer: which tokens they need, and which they leave alone."""

import pytest
import torch
from transformers import AutoTokenizer, DataCollatorForLanguageModeling

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.noise import plain_text_objective
from hf_vanilla_transformer.data.tokenization import save_tokenizer
from hf_vanilla_transformer.tokenization_ids import text_to_ids

TEXTS = ["a red dog runs. it barks!", "two <mask> dogs </s>"] * 5


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=TEXTS, vocab_size=300, num_sentinels=2, mask_token=True, tags=["<2de>"])


def built(name, tokenizer, steps=("text_infilling",)):
    return plain_text_objective(name, tokenizer, 0.3, 2.0, steps)


@pytest.mark.parametrize("tags", [[], ["<2de>"]])
def test_the_mask_is_a_token_of_its_own_that_text_cannot_spell(tmp_path, tags):
    made = train_tokenizer(texts=TEXTS, vocab_size=300, num_sentinels=2, mask_token=True, tags=tags)
    save_tokenizer(made, tmp_path)
    for tokenizer in (made, AutoTokenizer.from_pretrained(tmp_path)):
        assert (tokenizer.mask_token, tokenizer.mask_token_id) == ("<mask>", 4)
        assert tokenizer.convert_tokens_to_ids("<sentinel_0>") == 5
        # As a mask in a text that is trained on: in the place of a word and the space before it.
        assert tokenizer("a <mask> dog").input_ids == [*tokenizer("a").input_ids[:-1], 4, *tokenizer(" dog").input_ids]
        assert tokenizer.mask_token_id not in text_to_ids(tokenizer, ["a <mask> dog"])[0]
        batch = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5, seed=0)([tokenizer("a red dog runs")])
        masked = batch["input_ids"][batch["labels"] != -100]
        assert tokenizer.mask_token_id in masked.tolist()
        assert not torch.isin(batch["labels"], torch.tensor(tokenizer.all_special_ids)).any()


def test_a_random_word_is_one_of_text_and_sentences_end_with_full_stops(tokenizer):
    words = built("masked_lm", tokenizer).words
    assert len(words) == len(tokenizer) - 4 - 1 - 2 - 1  # control tokens, mask, sentinels, tag
    assert not {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()} & set(words)
    stops = built("denoising", tokenizer).options.full_stops
    ids = text_to_ids(tokenizer, ["a red dog runs. it barks!"])[0]
    assert [tokenizer.decode([number])[-1] for number in ids if number in stops] == [".", "!"]


@pytest.mark.parametrize("name", ["masked_lm", "denoising"])
def test_without_a_mask_objectives_that_need_one_are_refused(name):
    plain = train_tokenizer(texts=TEXTS, vocab_size=270)
    with pytest.raises(ValueError, match=f"{name} needs a tokenizer with a mask_token"):
        built(name, plain)
    built("denoising", plain, ["token_deletion"])
    with pytest.raises(ValueError, match="span_corruption needs a tokenizer with sentinel tokens"):
        built("span_corruption", plain)
    with pytest.raises(ValueError, match="'electra' is no objective for plain text"):
        built("electra", plain)
    plain.bos_token = None
    with pytest.raises(ValueError, match="prefix_lm needs a tokenizer with a bos_token"):
        built("prefix_lm", plain)
