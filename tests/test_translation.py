"""Text in, translations out, one for one: against the model's generate() on one sentence at a time."""

import copy

import pytest
import torch
from transformers import GenerationConfig, set_seed

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.unit_tokenizer import train_unit_tokenizer
from hf_vanilla_transformer.inference import EnsembleForConditionalGeneration, translate, translate_with_details
from hf_vanilla_transformer.inference import translation as translation_module
from hf_vanilla_transformer.inference.translation import search_options
from hf_vanilla_transformer.translation_batches import TorchEngine
from hf_vanilla_transformer.translation_scoring import forced_log_probs

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
    model = VanillaTransformerForConditionalGeneration(config).eval()
    # Untrained models say the same token for ever; some noise on the projection makes outputs differ in length.
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(3)
    return model


def in_one_line(text):
    return " ".join(text.replace("\0", " ").splitlines())


def one_by_one(model, tokenizer, sentence, **options):
    if not sentence.strip():
        return ""
    inputs = tokenizer(sentence, return_tensors="pt")
    model.eval()
    limits = {"max_new_tokens": inputs["input_ids"].shape[1] + 50, "max_extra_tokens": None}
    ids = model.generate(**inputs, **limits, **options)
    return in_one_line(tokenizer.decode(ids[0], skip_special_tokens=True))


@pytest.mark.parametrize("sentence", ["<2de> a </s> b <pad>", "<2de><s><unk>c"])
def test_tags_are_one_token_and_what_looks_like_a_control_token_is_text(model, tokenizer, sentence, monkeypatch):
    tokenizer, asked = copy.deepcopy(tokenizer), []
    tokenizer.add_special_tokens({"extra_special_tokens": ["<2de>"]})
    # As if the model said its source: it has no row for the tag.
    monkeypatch.setattr(model, "generate", lambda input_ids, **_: asked.append(input_ids[0].tolist()) or input_ids)
    said = list(translate(model, tokenizer, [sentence]))
    assert said == [sentence.removeprefix("<2de>")]
    (ids,) = asked
    assert [ids[0], ids[-1]] == tokenizer.convert_tokens_to_ids(["<2de>", "</s>"])
    assert not {0, 1, 2, 3, ids[0]} & set(ids[1:-1])


@pytest.mark.parametrize("batch", [{"batch_size": 1}, {"batch_size": 4}, {"batch_tokens": 30}, {"batch_tokens": 1}])
@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3}, {"max_new_tokens": 12}])
def test_translations_keep_the_order_and_equal_those_of_single_sentences(model, tokenizer, batch, options):
    model.eval()
    expected = [
        in_one_line(
            tokenizer.decode(
                model.generate(**tokenizer(sentence, return_tensors="pt"), **options)[0], skip_special_tokens=True
            )
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
        assert translation == in_one_line(tokenizer.decode(produced[0, : limit + 1], skip_special_tokens=True))


def test_sentences_without_a_visible_character_are_not_asked_for(model, tokenizer, monkeypatch):
    monkeypatch.setattr(model, "generate", None)
    assert list(translate(model, tokenizer, ["", "  ", "\t", "\u2003"])) == [""] * 4
    assert list(translate(model, tokenizer, [])) == []


def test_a_window_of_token_batches_is_measured_in_tokens_and_read_ahead_in_sentences(model, tokenizer, monkeypatch):
    monkeypatch.setattr(translation_module, "_BATCHES_READ_AHEAD", 2)
    short, long, empty = "a", "a b c " * 100, ""

    def read(sentence, **options):
        counted = []
        stream = (counted.append(i) or sentence for i in range(10000))
        next(translate(model, tokenizer, stream, max_new_tokens=1, num_beams=1, **options))
        return len(counted)

    assert read(short, batch_tokens=50) == 100
    assert read(long, batch_tokens=50) == 1  # one is more than two batches
    assert read(long, batch_tokens=1000) == -(-2000 // (1 + 600 // 4))
    assert read(empty, batch_tokens=50) == 100  # though it costs nothing: memory is bounded
    for batch in ({}, {"batch_tokens": 50}):
        assert [read(short, read_ahead=count, **batch) for count in (1, 7)] == [1, 7]


def test_a_stream_is_read_only_some_batches_ahead(model, tokenizer, monkeypatch):
    monkeypatch.setattr(translation_module, "_BATCHES_READ_AHEAD", 2)
    read = []
    stream = translate(model, tokenizer, (read.append(i) or "a" for i in range(100)), batch_size=3, max_new_tokens=1)
    next(stream)
    assert len(read) == 6


def test_a_model_in_training_mode_is_refused_and_nothing_is_changed(model, tokenizer):
    other = copy.deepcopy(model).train()
    with pytest.raises(ValueError, match="is in training mode, where dropout changes what it says"):
        list(translate(other, tokenizer, ["a b c"]))
    assert all(part.training for part in other.modules())


def test_dropout_that_is_kept_on_purpose_is_kept():
    """A decoder in training mode inside a model in eval mode: every translation is another sample."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(texts=["a b c d e f"], vocab_size=270)
    config = VanillaTransformerConfig.from_preset("tiny", vocab_size=len(tokenizer), dropout=0.5)
    model = VanillaTransformerForConditionalGeneration(config).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(3)
    options = {"num_beams": 1, "max_new_tokens": 6, "batch_size": 1}
    assert len(set(translate(model, tokenizer, ["a b c"] * 6, **options))) == 1
    model.get_decoder().train()
    assert len(set(translate(model, tokenizer, ["a b c"] * 6, **options))) > 1


def test_a_model_without_our_fields_gets_the_limit_of_its_batch(model, tokenizer):
    plain = copy.deepcopy(model)
    plain.generation_config = GenerationConfig.from_model_config(model.config)
    never_ends = {"bad_words_ids": [[tokenizer.eos_token_id]]}
    inputs = tokenizer("a b c", return_tensors="pt")
    expected = plain.eval().generate(**inputs, **never_ends, max_new_tokens=inputs["input_ids"].shape[1] + 50)
    (translation,) = translate(plain, tokenizer, ["a b c"], **never_ends)
    assert translation == in_one_line(tokenizer.decode(expected[0], skip_special_tokens=True))


@pytest.mark.parametrize("name", ["batch_size", "batch_tokens", "read_ahead"])
def test_a_batch_of_nothing_is_refused(model, tokenizer, name):
    with pytest.raises(ValueError, match=f"`{name}`=0"):
        next(translate(model, tokenizer, ["a"], **{name: 0}))


@pytest.mark.parametrize("value", [0, -3, 2.5])
def test_a_number_of_beams_that_is_none_is_refused(model, tokenizer, value):
    with pytest.raises(ValueError, match=f"`num_beams`={value} is not allowed"):
        next(translate(model, tokenizer, ["a"], num_beams=value))
    config = copy.deepcopy(model.generation_config)
    config.num_beams = value
    for function in (translate, translate_with_details):
        with pytest.raises(ValueError, match=f"`num_beams`={value} is not allowed"):
            next(function(model, tokenizer, ["a"], generation_config=config))


def test_more_than_one_translation_is_not_silently_dropped(model, tokenizer):
    for function in (translate, translate_with_details):
        with pytest.raises(ValueError, match="`num_return_sequences`=2"):
            next(function(model, tokenizer, ["a"], num_return_sequences=2))


def test_a_generation_config_may_be_given_or_ask_for_more_by_itself(model, tokenizer):
    given = GenerationConfig(**{**model.generation_config.to_dict(), "num_beams": 2, "max_new_tokens": 6})
    expected = list(translate(model, tokenizer, ["a b c"], num_beams=2, max_new_tokens=6))
    assert list(translate(model, tokenizer, ["a b c"], generation_config=given)) == expected
    several = copy.deepcopy(model)
    several.generation_config.update(num_beams=2, max_new_tokens=6, num_return_sequences=2)
    assert list(translate(several, tokenizer, ["", "a b c"])) == ["", *expected]
    assert [len(each) for each in translate_with_details(several, tokenizer, ["", "a b c"], nbest=2)] == [2, 2]


@pytest.mark.parametrize("separator", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\0"])
def test_a_translation_is_one_line_whatever_the_model_says(model, tokenizer, monkeypatch, separator):
    said = f"x{separator}y"
    monkeypatch.setattr(type(tokenizer), "batch_decode", lambda self, ids, **options: [said] * len(ids))
    assert list(translate(model, tokenizer, ["a", f"b{separator}a"], max_new_tokens=2)) == ["x y", "x y"]
    ((best,),) = translate_with_details(model, tokenizer, ["a"], max_new_tokens=2)
    assert best.text == "x y"


@pytest.fixture(scope="module", params=["model", "ensemble"])
def either(request, model, tokenizer):
    if request.param == "model":
        return model
    torch.manual_seed(2)
    config = VanillaTransformerConfig(**{**model.config.to_dict(), "d_model": 24, "d_k": 12, "d_v": 12})
    return EnsembleForConditionalGeneration([model, VanillaTransformerForConditionalGeneration(config)]).eval()


def test_details_are_those_of_forced_decoding_and_of_plain_translation(either, tokenizer):
    """n-best in the order of the search; scores by the formula of the paper from an independent forced pass."""
    options = {"max_new_tokens": 9, "batch_size": 2}
    found = list(translate_with_details(either, tokenizer, SENTENCES, nbest=3, **options))
    assert [translations[0].text for translations in found] == list(translate(either, tokenizer, SENTENCES, **options))
    for sentence, translations in zip(SENTENCES, found, strict=True):
        assert len(translations) == 3
        if not sentence.strip():
            assert {(each.text, each.score, each.log_prob, each.alignment) for each in translations} == {("", 0, 0, ())}
            continue
        inputs = tokenizer(sentence, return_tensors="pt")
        output = either.generate(**inputs, num_return_sequences=3, max_new_tokens=9, return_dict_in_generate=True)
        labels = output.sequences[:, 1:].masked_fill(output.beam_indices < 0, -100)
        ids = {name: tensor.expand(3, -1) for name, tensor in inputs.items()}
        with torch.no_grad():
            log_probs = forced_log_probs(either, ids["input_ids"], ids["attention_mask"], labels).sum(1)
        for row, translation in enumerate(translations):
            length = int(labels[row].ne(-100).sum())
            assert translation.log_prob == pytest.approx(log_probs[row].item(), abs=1e-5)
            penalty = ((5 + length) / 6) ** 0.6
            assert translation.score == pytest.approx(log_probs[row].item() / penalty, abs=1e-5)
            assert translation.source_tokens == tuple(tokenizer.tokenize(sentence))
            assert [target for _, target in translation.alignment] == list(range(len(translation.tokens)))
            assert all(0 <= source < len(translation.source_tokens) for source, _ in translation.alignment)


def test_fields_that_the_config_of_a_call_leaves_open_are_the_models(model, tokenizer, monkeypatch):
    """Also how many translations there are: the model's config may say more than a function returns."""
    monkeypatch.setattr(model, "generation_config", copy.deepcopy(model.generation_config))
    model.generation_config.update(num_beams=4, num_return_sequences=3)
    config = GenerationConfig(max_new_tokens=5)
    options = {"generation_config": config, "scores": False, "alignments": False}
    assert search_options(model.generation_config, {"generation_config": config}, 3) == {"generation_config": config}
    for nbest in (2, 4):
        ((*found,),) = translate_with_details(model, tokenizer, ["a b c"], nbest=nbest, **options)
        inputs = tokenizer("a b c", return_tensors="pt")
        ids = model.generate(**inputs, num_beams=4, num_return_sequences=nbest, max_new_tokens=5)
        assert [each.text for each in found] == [in_one_line(text) for text in tokenizer.batch_decode(ids, True)]
    assert search_options(model.generation_config, {"generation_config": config}, 6)["num_beams"] == 6
    (best,) = translate(model, tokenizer, ["a b c"], generation_config=config)
    assert best == found[0].text
    model.generation_config.update(do_sample=True, num_beams=1)
    assert "num_beams" not in search_options(model.generation_config, {"generation_config": config}, 6)


def test_details_that_are_not_asked_for_are_not_there(model, tokenizer):
    ((best,),) = translate_with_details(model, tokenizer, ["a b"], scores=False, max_new_tokens=4)
    assert (best.score, best.log_prob) == (None, None)
    assert best.alignment
    ((best,),) = translate_with_details(model, tokenizer, ["a b"], alignments=False, max_new_tokens=4)
    assert (best.source_tokens, best.tokens, best.alignment) == (None, None, None)
    assert best.score < 0


def test_beams_are_as_many_as_translations_unless_they_are_given(model, tokenizer):
    ((*found,),) = translate_with_details(model, tokenizer, ["a b"], nbest=6, max_new_tokens=4)
    assert len({each.tokens for each in found}) == 6
    with pytest.raises(ValueError, match="`nbest`=6 is more than `num_beams`=2"):
        next(translate_with_details(model, tokenizer, ["a b"], nbest=6, num_beams=2))
    with pytest.raises(ValueError, match="`nbest`=0"):
        next(translate_with_details(model, tokenizer, ["a b"], nbest=0))
    ((*drawn,),) = translate_with_details(
        model, tokenizer, ["a b"], nbest=5, num_beams=1, do_sample=True, max_new_tokens=4
    )
    assert len(drawn) == 5
    assert all(each.score == each.log_prob for each in drawn)  # nothing is ranked


def test_what_a_search_does_not_find_is_empty_and_impossible(tokenizer):
    config = VanillaTransformerConfig(vocab_size=4, d_model=8, num_heads=1, d_ff=8, num_encoder_layers=1)
    model = VanillaTransformerForConditionalGeneration(config).eval()
    found = translation_module.translate_pieces(
        translation_module.TorchEngine(model, tokenizer), [[[3, 2]]], lambda lengths: [range(len(lengths))],
        {"num_beams": 6, "num_return_sequences": 6, "max_new_tokens": 1}, scores=True,
    )  # fmt: skip
    scores = [translation.score for translation in found[0]]
    assert scores == sorted(scores, reverse=True)
    assert [(each.text, each.score, each.log_prob) for each in found[0]][4:] == [("", -torch.inf, -torch.inf)] * 2


@pytest.fixture(scope="module")
def learned(tokenizer):
    torch.manual_seed(3)
    config = VanillaTransformerConfig(
        vocab_size=len(tokenizer), d_model=16, num_heads=2, d_ff=32, num_encoder_layers=1, num_decoder_layers=1,
        position_encoding="learned", max_position_embeddings=12,
    )  # fmt: skip
    return VanillaTransformerForConditionalGeneration(config).eval()


def test_what_is_longer_than_the_learned_positions_is_translated_in_pieces(learned, tokenizer, caplog):
    long = "a b c a. b c a b! c c c c c c"
    pieces = ["a b c a.", "b c a b!", "c c c c c c"]
    assert len(tokenizer(long)["input_ids"]) > 12
    (whole,) = translate(learned, tokenizer, [long])
    assert "1 sentences have more tokens than the 12 positions of the model: translated in 3 pieces" in caplog.text
    caplog.clear()
    parts = [text.strip() for text in translate(learned, tokenizer, pieces)]
    assert whole == " ".join(text for text in parts if text)
    assert not caplog.records


def test_with_sinusoids_nothing_is_cut_however_long(model, tokenizer):
    long = "a b c " * 400
    ids = tokenizer(long, return_tensors="pt")
    model.eval()
    expected = tokenizer.decode(model.generate(**ids, max_new_tokens=5)[0], skip_special_tokens=True)
    assert list(translate(model, tokenizer, [long], max_new_tokens=5)) == [in_one_line(expected)]


def test_what_is_no_text_is_named(model, tokenizer):
    with pytest.raises(TypeError, match="5 is a int"):
        next(translate(model, tokenizer, [5]))
    with pytest.raises(ValueError, match=r"character 1 .*U\+DC80"):
        next(translate(model, tokenizer, ["a\udc80"]))


def test_a_tag_is_put_in_front_of_each_sentence_and_of_each_piece(tokenizer, monkeypatch):
    tagged = train_tokenizer(texts=["a b c"], vocab_size=262, tags=["<2de>", "<bt>"])
    config = {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1, "num_decoder_layers": 1}
    config |= {"position_encoding": "learned", "num_learned_positions": 12}
    model = VanillaTransformerForConditionalGeneration(
        VanillaTransformerConfig(vocab_size=len(tagged), **config)
    ).eval()
    asked = []
    monkeypatch.setattr(model, "generate", lambda input_ids, **_: asked.append(input_ids) or input_ids)
    sentences = ["a b", "", "a b c. a b c. a b"]
    said = list(translate(model, tagged, sentences, batch_size=1, tag="2de bt"))
    assert said == sentences
    tags = tagged.convert_tokens_to_ids(["<2de>", "<bt>"])
    assert len(asked) == 4  # the last in three pieces
    assert all(ids[0, :2].tolist() == tags and len(ids[0]) <= 12 for ids in asked)
    with pytest.raises(ValueError, match="'<2fr>' is not a tag of this tokenizer; it knows <2de>, <bt>"):
        next(translate(model, tagged, sentences, tag="2fr"))


def test_what_the_vocabulary_does_not_have_is_counted_and_translated_all_the_same(package_log):
    rows = [{"source": "ab", "target": "x y"}]
    phonetic = train_unit_tokenizer(rows, source_units="characters", target_units="words")
    shape = {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1, "num_decoder_layers": 1}
    config = VanillaTransformerConfig(vocab_size=len(phonetic), **shape)
    model = VanillaTransformerForConditionalGeneration(config).eval()
    assert len(list(translate(model, phonetic, ["abc", "cc", "a"], batch_size=2))) == 3
    assert "3 tokens of the sentences are <unk>" in package_log.text
    package_log.clear()
    list(translate(model, phonetic, ["ab", "a"]))
    assert not package_log.text
    engines = [TorchEngine(copy.deepcopy(model), phonetic) for _ in range(2)]
    for engine in (engines[0], engines[0], engines[1]):  # of a service, which makes a call for each batch
        list(translate(engine, phonetic, ["ac"], num_beams=1, max_new_tokens=1))
    assert [record.levelname for record in package_log.records] == ["WARNING", "INFO", "WARNING"]


@pytest.mark.parametrize("batch", [{"batch_size": 3}, {"batch_tokens": 20}])
def test_samples_are_those_of_their_seed(model, tokenizer, batch):
    def sampled(seed):
        set_seed(seed)
        return list(translate(model, tokenizer, SENTENCES, do_sample=True, num_beams=1, top_k=0, **batch))

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)
