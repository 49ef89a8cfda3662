"""Models of a service: found by name or language, and refused where their names are not their own."""

import pytest

pytest.importorskip("fastapi")
from serving import SlowTranslator

from hf_vanilla_transformer.serving.errors import Refusal
from hf_vanilla_transformer.serving.languages import Languages
from hf_vanilla_transformer.serving.limits import Limits
from hf_vanilla_transformer.serving.metrics import Metrics
from hf_vanilla_transformer.serving.served_model import ModelTable, ServedModel


def served(name, languages=None):
    translator = SlowTranslator()
    return ServedModel(name, translator, Languages.of(translator.tokenizer, languages), Limits(), Metrics())


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


@pytest.mark.parametrize("names", [[], ["a", "b", "a"]])
def test_models_need_names_of_their_own(names):
    with pytest.raises(ValueError, match="models have names of their own"):
        ModelTable([served(name) for name in names])


def test_the_threads_of_a_model_do_not_share_a_tokenizer():
    model = served("m")
    tokenizers = [model.translator.tokenizer, model.streaming_tokenizer, model._counting_tokenizer]
    assert len({id(each._tokenizer) for each in tokenizers}) == 3
    assert len({tuple(each("a b c")["input_ids"]) for each in tokenizers}) == 1
