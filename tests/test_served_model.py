"""Models of a service: found by name or language, and refused where their names are not their own."""

import asyncio

import pytest

pytest.importorskip("fastapi")
from serving import SlowTranslator, tagged_tokenizer

from hf_vanilla_transformer.serving.errors import Refusal
from hf_vanilla_transformer.serving.languages import Languages
from hf_vanilla_transformer.serving.limits import Limits
from hf_vanilla_transformer.serving.metrics import Metrics
from hf_vanilla_transformer.serving.served_model import ModelTable, ScoreOptions, ServedModel, TranslateOptions


def served(name, languages=None, **limits):
    translator = SlowTranslator()
    return ServedModel(name, translator, Languages.of(translator.tokenizer, languages), Limits(**limits), Metrics())


def test_models_are_found_by_name_else_by_language_else_the_first_is_taken():
    german, italian = served("german", "en:de"), served("italian", "en,fr:it")
    table = ModelTable([german, italian])
    assert table.choose("italian") is italian
    assert table.choose("german", "fr", "it") is german  # which then refuses them
    assert table.choose(None) is german
    assert table.choose(None, "en", "it") is italian
    assert table.choose(None, "fr") is italian
    assert table.choose(None, "xx", "it") is german
    assert [model.name for model in table] == ["german", "italian"]
    with pytest.raises(Refusal, match="there is no model 'x'; there is german, italian"):
        table.choose("x")


@pytest.mark.parametrize(
    ("options", "beams"),
    [({}, 4), ({"nbest": 6}, 6), ({"num_beams": 1}, 1), ({"nbest": 2, "num_beams": 9}, 9)],  # the model's own are 4
)
def test_a_request_has_a_limit_of_tokens_times_the_beams_of_its_search(options, beams):
    asked = TranslateOptions(tag="2de bt", **options)
    texts = ["a b c", "a", "b"]
    tokenizer = tagged_tokenizer()
    tokens = sum(len(tokenizer(f"<2de> <bt> {text}")["input_ids"]) for text in texts)

    def translate(most):
        model = served("m", max_beam_tokens=most)
        model.translator.may_answer.set()

        async def main():
            model.start()
            try:
                return await model.translate(texts, asked)
            finally:
                await model.close()

        return asyncio.run(asyncio.wait_for(main(), 60))

    assert [row[0].text for row in translate(tokens * beams)] == ["A B C", "A", "B"]
    with pytest.raises(Refusal, match=f"{tokens} tokens with {beams} beams? are more than the ") as caught:
        translate(tokens * beams - 1)
    assert (caught.value.status, caught.value.code) == (413, "too_much_work")


def test_scores_have_the_limit_of_one_beam():
    model = served("m", max_beam_tokens=3)
    with pytest.raises(Refusal, match="tokens with 1 beam are more than the 3"):
        asyncio.run(model.score([("a b c", "A")], ScoreOptions()))


@pytest.mark.parametrize("names", [[], ["a", "b", "a"]])
def test_models_need_names_of_their_own(names):
    with pytest.raises(ValueError, match="models have names of their own"):
        ModelTable([served(name) for name in names])


def test_the_threads_of_a_model_do_not_share_a_tokenizer():
    model = served("m")
    tokenizers = [model.translator.tokenizer, model.streaming_tokenizer, model._counting_tokenizer]
    assert len({id(each._tokenizer) for each in tokenizers}) == 3
    assert len({tuple(each("a b c")["input_ids"]) for each in tokenizers}) == 1
