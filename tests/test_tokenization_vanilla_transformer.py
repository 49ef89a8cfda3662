"""The tokenizer with two sides: tags in front of sources only, targets cut in their own way, all of it saved."""

import copy
import pickle
import unicodedata

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_vanilla_transformer import VanillaTransformerTokenizer
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.tokenization import save_tokenizer
from hf_vanilla_transformer.data.unit_tokenizer import train_unit_tokenizer
from hf_vanilla_transformer.tokenization_ids import text_to_ids

TAGS = ["<2de>", "<2fr>", "<en>", "<bt>"]
PAIRS = [("né", "n e ː"), ("가감", "k a"), ("ça", "ç a")]


@pytest.fixture
def tokenizer():
    return train_tokenizer(texts=["a dog", "ein Hund"] * 3, vocab_size=270, tags=TAGS)


@pytest.fixture(scope="module")
def units():
    rows = [{"source": source, "target": target} for source, target in PAIRS]
    return train_unit_tokenizer(rows, source_units="nfd_characters", target_units="words", tags=["<kor>"])


def tokens(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)


@pytest.mark.parametrize(
    ("settings", "prefix"),
    [
        ({}, []),
        ({"tgt_lang": "de"}, ["<2de>"]),
        ({"tag": "bt", "tgt_lang": "fr", "src_lang": "en"}, ["<en>", "<2fr>", "<bt>"]),
        ({"tag": "<bt> 2de"}, ["<bt>", "<2de>"]),
    ],
)
def test_tags_stand_in_front_of_sources_and_of_no_target(tokenizer, settings, prefix):
    without = tokens(tokenizer, "a dog"), tokenizer(text_target="a dog").input_ids
    for name, value in settings.items():
        setattr(tokenizer, name, value)
    assert tokenizer.prefix == prefix
    assert tokens(tokenizer, "a dog") == [*prefix, *without[0]]
    both = tokenizer(["a dog", "a"], text_target=["a dog", "a"], padding=True)
    assert both["labels"][0] == without[1]
    assert both["input_ids"][0] == tokenizer.convert_tokens_to_ids(prefix) + without[1]
    assert [sum(mask) for mask in both["attention_mask"]] == [len(tokenizer(text).input_ids) for text in ("a dog", "a")]
    assert len(tokenizer("a dog a dog", truncation=True, max_length=len(prefix) + 2).input_ids) == len(prefix) + 2
    for name in settings:
        setattr(tokenizer, name, None)
    assert tokens(tokenizer, "a dog") == without[0]


@pytest.mark.parametrize("text", ["<2de> a </s> dog", "<2de>a </s> dog"])
def test_a_text_may_bring_its_tag_as_if_it_had_been_put_there(tokenizer, text):
    brought = text_to_ids(tokenizer, [text])
    tokenizer.tgt_lang = "de"
    assert text_to_ids(tokenizer, ["a </s> dog"]) == brought
    assert text_to_ids(tokenizer, ["a </s> dog"], as_target=True) == [brought[0][1:]]


@pytest.mark.parametrize(("name", "token"), [("tgt_lang", "<2xx>"), ("src_lang", "<xx>"), ("tag", "<xx>")])
def test_an_unknown_language_is_refused_with_those_there_are_and_changes_nothing(tokenizer, name, token):
    tokenizer.tgt_lang = "de"
    before = tokens(tokenizer, "a")
    with pytest.raises(ValueError, match=rf"'{token}' is not a tag of this tokenizer; it knows {', '.join(TAGS)}"):
        setattr(tokenizer, name, "xx")
    assert tokens(tokenizer, "a") == before
    with pytest.raises(ValueError, match=f"'{token}' is not a tag"):
        VanillaTransformerTokenizer(tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>", **{name: "xx"})


@pytest.mark.parametrize("save", [save_tokenizer, PreTrainedTokenizerFast.save_pretrained])
def test_everything_is_saved_and_loaded(tokenizer, units, tmp_path, save):
    tokenizer.src_lang, tokenizer.tag = "en", "bt"
    for name, each, text in (("tagged", tokenizer, "a dog"), ("units", units, "né"), ("other", units, "<kor> 가감")):
        save(each, tmp_path / name)
        loaded = AutoTokenizer.from_pretrained(tmp_path / name)
        assert type(loaded) is VanillaTransformerTokenizer
        for as_target in (False, True):
            assert text_to_ids(loaded, [text], as_target) == text_to_ids(each, [text], as_target)
        ids = each(text).input_ids
        assert loaded.decode(ids, skip_special_tokens=True) == each.decode(ids, skip_special_tokens=True)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "tagged", tgt_lang="de", tag=None)
    assert loaded.prefix == ["<en>", "<2de>"]
    # Without this package, sources are read all the same.
    plain = PreTrainedTokenizerFast.from_pretrained(tmp_path / "tagged")
    assert plain("a dog").input_ids == tokenizer("a dog").input_ids


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_copies_do_the_same_and_leave_the_original_alone(tokenizer, duplicate):
    tokenizer.tgt_lang = "de"
    expected = tokenizer("a dog", text_target="a dog")
    made = duplicate(tokenizer)
    assert made("a dog", text_target="a dog") == expected
    assert tokenizer("a dog", text_target="a dog") == expected


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_copies_cut_both_sides_as_the_original_does(units, duplicate):
    # Processes that tokenise, and those of a loader, are handed one.
    expected = units("né", text_target="n e ː")
    units._switch_to_target_mode()
    made = duplicate(units)
    assert made("né", text_target="n e ː") == expected
    assert made.tokenize("né") == units.tokenize("né") == [*unicodedata.normalize("NFD", "né")]


def test_after_a_target_that_is_no_text_it_reads_sources(units):
    with pytest.raises((TypeError, ValueError)):
        units("né", text_target=[3])
    assert units.tokenize("né") == [*unicodedata.normalize("NFD", "né")]


def test_source_and_target_are_cut_each_in_its_own_way_at_any_time(units):
    for source, target in PAIRS:
        made = units(source, text_target=target)
        assert units.convert_ids_to_tokens(made["input_ids"]) == [*unicodedata.normalize("NFD", source), "</s>"]
        assert units.convert_ids_to_tokens(made["labels"]) == [*(f"▁{phone}" for phone in target.split()), "</s>"]
        assert units(source)["input_ids"] == made["input_ids"]
        for as_target, ids in ((False, made["input_ids"]), (True, made["labels"])):
            assert text_to_ids(units, [(source, target)[as_target]], as_target) == [ids]


def test_decoding_composes_letters_and_leaves_given_units_as_they_are():
    rows = [{"source": "né 가", "target": "e\u0301 é ẽ e\u0303 한"}]  # composed ones, and ones that could be
    tokenizer = train_unit_tokenizer(rows, source_units="nfd_characters", target_units="words")
    for text, as_target in ((rows[0]["source"], False), (rows[0]["target"], True)):
        (ids,) = text_to_ids(tokenizer, [text], as_target)
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert tokenizer.batch_decode([ids, ids], skip_special_tokens=True) == [text, text]
    assert len(text_to_ids(tokenizer, ["né 가"])[0]) == len(unicodedata.normalize("NFD", "né 가")) + 1
