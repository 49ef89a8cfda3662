"""Text in, translations out, one for one: against the model's generate() on one sentence at a time."""

import copy

import pytest
import torch
from transformers import GenerationConfig

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.inference import translate
from hf_vanilla_transformer.inference import translation as translation_module
from hf_vanilla_transformer.training import train_tokenizer

SENTENCES = ["a b c", "", "a", " \t", "c b a a b c a b c", "b", "b b b b", "\u2028", "a b c"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["a b c", "A B C"], vocab_size=262)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(1)
    config = VanillaTransformerConfig(
        vocab_size=len(tokenizer), d_model=16, num_heads=2, d_ff=32, num_encoder_layers=1, num_decoder_layers=1
    )
    model = VanillaTransformerForConditionalGeneration(config)
    # Untrained models say the same token for ever; some noise on the projection makes outputs differ in length.
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(3)
    return model


def one_by_one(model, tokenizer, sentence, **options):
    if not sentence.strip():
        return ""
    inputs = tokenizer(sentence, return_tensors="pt")
    model.eval()
    limits = {"max_new_tokens": inputs["input_ids"].shape[1] + 50, "max_extra_tokens": None}
    ids = model.generate(**inputs, **limits, **options)
    return tokenizer.decode(ids[0], skip_special_tokens=True)


@pytest.mark.parametrize("batch", [{"batch_size": 1}, {"batch_size": 4}, {"batch_tokens": 30}, {"batch_tokens": 1}])
@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3}, {"max_new_tokens": 12}])
def test_translations_keep_the_order_and_equal_those_of_single_sentences(model, tokenizer, batch, options):
    model.eval()
    expected = [
        tokenizer.decode(
            model.generate(**tokenizer(sentence, return_tensors="pt"), **options)[0], skip_special_tokens=True
        )
        if sentence.strip()
        else ""
        for sentence in SENTENCES
    ]
    assert list(translate(model, tokenizer, SENTENCES, **batch, **options)) == expected
    assert len(set(expected)) > 2  # the model does tell sentences apart


def test_section_6_1_a_translation_may_be_50_tokens_longer_than_its_source(model, tokenizer):
    sentences = ["a", "a b c a b c"]
    together = translate(model, tokenizer, sentences, bad_words_ids=[[tokenizer.eos_token_id]], num_beams=1)
    for sentence, translation in zip(sentences, together, strict=True):
        expected = one_by_one(model, tokenizer, sentence, bad_words_ids=[[tokenizer.eos_token_id]], num_beams=1)
        assert translation == expected
        produced = model.generate(
            **tokenizer(sentence, return_tensors="pt"),
            max_new_tokens=200,
            max_extra_tokens=None,
            num_beams=1,
            bad_words_ids=[[tokenizer.eos_token_id]],
        )
        limit = len(tokenizer(sentence)["input_ids"]) + 50
        assert translation == tokenizer.decode(produced[0, : limit + 1], skip_special_tokens=True)


def test_sentences_without_a_visible_character_are_not_asked_for(model, tokenizer, monkeypatch):
    monkeypatch.setattr(model, "generate", None)
    assert list(translate(model, tokenizer, ["", "  ", "\t", "\u2003"])) == [""] * 4
    assert list(translate(model, tokenizer, [])) == []


def test_a_stream_is_read_only_some_batches_ahead(model, tokenizer, monkeypatch):
    monkeypatch.setattr(translation_module, "_BATCHES_READ_AHEAD", 2)
    read = []
    stream = translate(model, tokenizer, (read.append(i) or "a" for i in range(100)), batch_size=3, max_new_tokens=1)
    next(stream)
    assert len(read) == 6


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_used_in_eval_mode_and_left_as_it_was(model, tokenizer, training):
    model.train(training)
    first, second = (list(translate(model, tokenizer, ["a b c"] * 3, max_new_tokens=9)) for _ in range(2))
    assert first == second
    assert len(set(first)) == 1
    assert model.training is training


def test_a_model_without_our_fields_gets_the_limit_of_its_batch(model, tokenizer):
    plain = copy.deepcopy(model)
    plain.generation_config = GenerationConfig.from_model_config(model.config)
    never_ends = {"bad_words_ids": [[tokenizer.eos_token_id]]}
    inputs = tokenizer("a b c", return_tensors="pt")
    expected = plain.eval().generate(**inputs, **never_ends, max_new_tokens=inputs["input_ids"].shape[1] + 50)
    (translation,) = translate(plain, tokenizer, ["a b c"], **never_ends)
    assert translation == tokenizer.decode(expected[0], skip_special_tokens=True)


@pytest.mark.parametrize("name", ["batch_size", "batch_tokens"])
def test_a_batch_of_nothing_is_refused(model, tokenizer, name):
    with pytest.raises(ValueError, match=f"`{name}`=0"):
        next(translate(model, tokenizer, ["a"], **{name: 0}))
