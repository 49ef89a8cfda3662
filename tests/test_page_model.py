"""A model of the page: its answers are those of the searches behind it, and what it is not asked for is refused."""

import copy
import json

import pytest
import torch
from commanding import save_translator
from test_pair_scores import build

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.demo import attention_of, positions_of, record_search
from hf_vanilla_transformer.demo.limits import Limits
from hf_vanilla_transformer.demo.page_model import PageModel


@pytest.fixture(scope="module")
def tagged():
    tokenizer = train_tokenizer(texts=["a b c", "A B C"], vocab_size=266, tags=["<fre>", "<2de>"])
    model = build(tokenizer).eval()
    model.generation_config.max_extra_tokens = 4
    return model, tokenizer


@pytest.fixture(scope="module")
def page(tagged):
    limits = Limits(max_characters=20, max_tokens=12, max_beams=3)
    return PageModel("m", *tagged, limits, examples=["<fre> a b", "b c"])


def without_time(answer):
    return {key: value for key, value in answer.items() if key != "seconds"}


def test_a_search_is_that_of_the_tagged_text_with_these_settings(page, tagged):
    options = {"num_beams": 2, "length_penalty": 0.5}
    found = page.search("a b", "<fre>", **options, prefix_ids=[5])
    rest = len(tagged[1]("<fre> a b")["input_ids"]) + 4 - 1
    expected = record_search(*tagged, "<fre> a b", **options, prefix_ids=[5], max_new_tokens=rest).as_dict()
    assert without_time(found) == json.loads(json.dumps(expected))
    assert found["seconds"] >= 0
    assert found != page.search("a b", "", **options, prefix_ids=[5])


def test_without_settings_the_best_hypothesis_is_what_generate_returns(page, tagged):
    model, tokenizer = tagged
    assert model.generation_config.num_beams == 4
    for each, beams in ((page, 3), (PageModel("m", *tagged, Limits()), 4)):  # no more than the page allows
        found = each.search("b a")
        expected = model.generate(**tokenizer("b a", return_tensors="pt"), num_beams=beams)
        assert found["hypotheses"][0]["token_ids"] == expected[0, 1:].tolist()
        assert found["settings"]["num_beams"] == each.describe()["num_beams"] == beams


@pytest.mark.parametrize("own", [{}, {"max_new_tokens": 7}, {"max_length": 9}, {"max_extra_tokens": None}])
def test_with_a_prefix_a_translation_may_be_as_long_as_without_one(tagged, own):
    model = copy.deepcopy(tagged[0])
    model.generation_config.update(**own)
    page = PageModel("m", model, tagged[1], Limits())
    freely = page.search("a b")["settings"]["max_new_tokens"]
    for length in (1, freely - 1):
        assert page.search("a b", prefix_ids=[5] * length)["settings"]["max_new_tokens"] == freely - length
    assert f"at most {freely - 1} tokens" in page.search("a b", prefix_ids=[5] * freely)["error"]


def test_attention_takes_as_many_tokens_as_a_search_returns(page, tagged):
    most = len(tagged[1]("a b")["input_ids"]) + 4
    found = page.search("a b", prefix_ids=[5] * (most - 1))
    ids = found["hypotheses"][0]["token_ids"]
    assert len(ids) == most
    assert len(page.attention("a b", "", ids)["target_tokens"]) == most
    assert page.attention("a b", "", [*ids, 5]) == {
        "error": f"at most {most} tokens can be given with this text, and {most + 1} were"
    }


@pytest.mark.parametrize("own", [{"gnmt_length_penalty": None}, {"length_penalty": 0.5}])
def test_a_model_of_the_other_penalty_has_no_alpha(tagged, own):
    model = copy.deepcopy(tagged[0])
    model.generation_config.update(**own)
    page = PageModel("m", model, tagged[1], Limits())
    assert page.describe()["length_penalty"] is None
    assert page.search("a b")["settings"]["penalty"] == "power"
    assert page.search("a b", length_penalty=0.0)["settings"]["penalty"] == "gnmt"


def test_attention_and_positions_are_those_of_the_model(page, tagged):
    ids = page.search("a b")["hypotheses"][0]["token_ids"]
    assert page.attention("a b", "<fre>", ids) == attention_of(*tagged, "<fre> a b", ids).as_dict()
    assert page.positions(3) == {"positions": positions_of(tagged[0], 3)}


def test_what_the_page_is_told_of_it(page, tagged):
    model, _ = tagged
    told = json.loads(json.dumps(page.describe()))
    assert (told["name"], told["title"], told["parameters"]) == ("m", "m", model.num_parameters())
    assert told["tags"] == ["<fre>", "<2de>"]
    assert told["ends"] == [model.generation_config.eos_token_id]
    assert told["examples"] == [{"tag": "<fre>", "text": "a b"}, {"tag": "", "text": "b c"}]
    assert (told["max_characters"], told["max_beams"]) == (20, 3)
    assert told["num_beams"] == min(3, model.generation_config.num_beams)
    assert told["length_penalty"] == model.generation_config.gnmt_length_penalty


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "a" * 21}, "the text has 21 characters, and the page takes at most 20"),
        ({"text": "é" * 12}, "tokens, and the page takes at most 12"),
        ({"text": " \n"}, "there is no text yet"),
        ({"text": "\ud800"}, "half a surrogate pair"),
        ({"text": 7}, "text and tag are strings"),
        ({"text": "a", "tag": "<xx>"}, "this model has no tag '<xx>'; it has <fre>, <2de>"),
        ({"text": "a", "num_beams": 4}, "there are 1 to 3 beams, and 4 were asked for"),
        ({"text": "a", "num_beams": 0}, "there are 1 to 3 beams"),
        ({"text": "a", "num_beams": True}, "there are 1 to 3 beams"),
        ({"text": "a", "num_beams": "2"}, "there are 1 to 3 beams"),
        ({"text": "a", "length_penalty": 3.5}, "alpha is a number from 0 to 3"),
        ({"text": "a", "length_penalty": float("nan")}, "alpha is a number"),
        ({"text": "a", "length_penalty": 10**400}, "alpha is a number"),
        ({"text": "a", "length_penalty": "x"}, "alpha is a number"),
        ({"text": "a", "prefix_ids": "ab"}, "tokens are given as a list"),
        ({"text": "a", "prefix_ids": [5] * 49}, "tokens can be given with this text, and 49 were"),
        ({"text": "a", "prefix_ids": [10**6]}, "1000000"),
        ({"text": "a", "prefix_ids": ["x" * 99]}, f"`prefix_ids` has '{'x' * 39} at 0"),
        ({"text": "a", "prefix_ids": [2]}, "nothing follows an end"),
    ],
)
def test_what_cannot_be_searched_is_a_sentence(page, arguments, message):
    answer = page.search(**arguments)
    assert list(answer) == ["error"]
    assert message in answer["error"]


def test_attention_and_positions_refuse_likewise(page):
    assert "no token" in page.attention("a", "", [])["error"]
    assert "at most 20" in page.attention("a" * 21, "", [5])["error"]
    for length in (0, 13, "3", None):
        assert page.positions(length) == {"error": "the page shows 1 to 12 positions"}


def test_a_model_that_adds_no_positions_says_so(tagged):
    _, tokenizer = tagged
    model = build(tokenizer, position_encoding="rotary").eval()
    assert "adds no encoding of positions" in PageModel("m", model, tokenizer, Limits()).positions(3)["error"]


def test_a_folder_is_loaded_with_the_examples_of_its_card(tmp_path):
    model, _ = save_translator(tmp_path / "x")
    (tmp_path / "x" / "README.md").write_text("---\nwidget:\n- text: a b\n---\n", encoding="utf-8")
    page = PageModel.load(str(tmp_path / "x"), "x", Limits(), "cpu")
    assert page.examples == [{"tag": "", "text": "a b"}]
    found = dict(page.model.named_parameters())
    assert all(torch.equal(each, found[name]) for name, each in model.named_parameters())


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="`max_tokens`=0 is not allowed; allowed: at least 1"):
        Limits(max_tokens=0)
