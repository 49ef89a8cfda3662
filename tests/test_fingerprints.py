"""What text and tokenizers are found again by: all that changes ids changes it, and using them does not."""

import copy
import gzip
import json

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, ByT5Tokenizer

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.corpora import Corpus
from hf_vanilla_transformer.data.fingerprints import corpus_fingerprint, tokenizer_fingerprint
from hf_vanilla_transformer.data.unit_tokenizer import train_unit_tokenizer
from hf_vanilla_transformer.tokenization_ids import text_to_ids

TEXTS = ["some words <x> <2de> x", "einige Wörter", " A</s>b"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["some words", "einige Wörter"] * 3, vocab_size=270, num_sentinels=2)


def ends_with(tokens):
    def change(tokenizer):
        pieces = [(token, tokenizer.convert_tokens_to_ids(token)) for token in tokens]
        template = " ".join(["$A", *tokens])
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=pieces
        )

    return change


def sets(part, value):
    return lambda tokenizer: setattr(tokenizer.backend_tokenizer, part, value)


class TargetsBeginWithStart(type(train_tokenizer(texts=["a"], vocab_size=260))):
    """Like multilingual tokenizers, puts something else around targets."""

    def _switch_to_target_mode(self):
        ends_with(["<s>", "</s>"])(self)

    def _switch_to_input_mode(self):
        ends_with(["</s>"])(self)


def becomes_one_with_other_targets(tokenizer):
    tokenizer.__class__ = TargetsBeginWithStart


CHANGES = {
    "added": lambda tokenizer: tokenizer.add_tokens(["<x>"]),
    "special": lambda tokenizer: tokenizer.add_special_tokens({"extra_special_tokens": ["<2de>"]}),
    "control": lambda tokenizer: tokenizer.add_special_tokens({"mask_token": "<x>"}),
    "single_word": lambda tokenizer: tokenizer.add_tokens([AddedToken("x", single_word=True)]),
    "lowercase": sets("normalizer", normalizers.Lowercase()),
    "prefix_space": sets("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "whole": sets("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
    "no_end": ends_with([]),
    "two_ends": ends_with(["</s>", "</s>"]),
    "targets": becomes_one_with_other_targets,
    "other_end": lambda tokenizer: setattr(tokenizer, "eos_token", "<unk>"),
}


def ids(tokenizer):
    return [text_to_ids(tokenizer, [*TEXTS, "Some x"], as_target) for as_target in (False, True)]


@settings(max_examples=80)
@given(
    names=st.lists(st.sampled_from([*CHANGES]), max_size=3), others=st.lists(st.sampled_from([*CHANGES]), max_size=3)
)
def test_whatever_changes_ids_changes_the_fingerprint(tokenizer, names, others):
    changed = []
    for each in (names, others):
        changed.append(copy.deepcopy(tokenizer))
        for name in each:
            CHANGES[name](changed[-1])
    if ids(changed[0]) != ids(changed[1]):
        assert tokenizer_fingerprint(changed[0]) != tokenizer_fingerprint(changed[1])
    if names == others:
        assert tokenizer_fingerprint(changed[0]) == tokenizer_fingerprint(changed[1])


@pytest.mark.parametrize("name", [None, *CHANGES])
def test_each_of_these_changes_is_noticed(tokenizer, name):
    changed = copy.deepcopy(tokenizer)
    if name is not None:
        CHANGES[name](changed)
    assert (tokenizer_fingerprint(changed) == tokenizer_fingerprint(tokenizer)) == (name is None)


@pytest.mark.parametrize("kind", ["fast", "targets", "python"])
def test_using_a_tokenizer_does_not_change_its_fingerprint(tokenizer, kind, tmp_path):
    used = ByT5Tokenizer() if kind == "python" else copy.deepcopy(tokenizer)
    if kind == "targets":
        becomes_one_with_other_targets(used)
    before = tokenizer_fingerprint(used)
    used(TEXTS, padding=True, truncation=True, max_length=5, return_tensors="np")
    assert tokenizer_fingerprint(used) == before
    used(text_target=TEXTS)
    text_to_ids(used, TEXTS)
    assert tokenizer_fingerprint(used) == before
    used(TEXTS, split_special_tokens=True, padding="max_length", max_length=30)
    used.decode([5, 6])
    assert tokenizer_fingerprint(used) == before


def test_a_tokenizer_that_was_saved_and_loaded_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "first")
    first = AutoTokenizer.from_pretrained(tmp_path / "first")
    first.save_pretrained(tmp_path / "second")
    second = AutoTokenizer.from_pretrained(tmp_path / "second")
    assert tokenizer_fingerprint(first) == tokenizer_fingerprint(second) == tokenizer_fingerprint(tokenizer)


def test_tokenizers_in_python_differ_by_what_they_save():
    assert tokenizer_fingerprint(ByT5Tokenizer(extra_ids=3)) != tokenizer_fingerprint(ByT5Tokenizer(extra_ids=4))


# Text


def test_a_file_is_known_by_its_content_and_how_it_is_taken_apart(tmp_path):
    def fingerprint(name, content):
        (tmp_path / name).write_bytes(content)
        return corpus_fingerprint(Corpus(path=str(tmp_path / name), weight=len(name)))

    first = fingerprint("a.tsv", b"a\tb\n")
    assert fingerprint("other.tsv", b"a\tb\n") == first
    others = [("a.jsonl", b"a\tb\n"), ("a.tsv", b"a\tc\n"), ("a.tsv.gz", gzip.compress(b"a\tb\n")), ("a.tsv", b"")]
    assert len({first, *(fingerprint(*other) for other in others)}) == 5


def test_lines_that_move_between_files_are_another_text(tmp_path):
    def fingerprint(*texts):
        for name, text in zip("ab", texts, strict=True):
            (tmp_path / name).write_text(text)
        return corpus_fingerprint(Corpus(source=str(tmp_path / "a"), target=str(tmp_path / "b")))

    assert len({fingerprint("x\ny\n", "z\n"), fingerprint("x\n", "y\nz\n"), fingerprint("z\n", "x\ny\n")}) == 3


def test_a_dataset_is_known_by_its_files_and_split_without_being_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "dataset"
    folder.mkdir()
    found = []
    for rows in (3, 4):
        for split in ("train", "validation"):
            (folder / f"{split}.jsonl").write_text(
                "".join(json.dumps({"en": "a", "de": "b"}) + "\n" for _ in range(rows))
            )
        for split in ("train", "validation"):
            corpus = Corpus(dataset=str(folder), split=split)
            found.append(corpus_fingerprint(corpus))
            assert corpus_fingerprint(corpus) == found[-1]
    assert len(set(found)) == 4
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_what_is_put_in_front_of_a_text_and_its_direction_are_part_of_it(tmp_path):
    (tmp_path / "a.tsv").write_text("a\tb\n")
    options = [{}, {"tag": "2de"}, {"tag": "2fr"}, {"reversed": True}, {"reversed": True, "tag": "2de"}]
    prints = [corpus_fingerprint(Corpus(path=str(tmp_path / "a.tsv"), **each)) for each in options]
    assert len(set(prints)) == len(prints)
    spelled = corpus_fingerprint(Corpus(path=str(tmp_path / "a.tsv"), tag="<2de>"))
    assert spelled == prints[1]  # another spelling of the same tag


def test_the_tags_that_a_tokenizer_puts_and_how_it_cuts_targets_are_noticed():
    tagged = train_tokenizer(texts=["some words"] * 3, vocab_size=270, tags=["<2de>", "<2fr>"])
    prints = []
    for language in (None, "de", "fr", None):
        tagged.tgt_lang = language
        prints.append(tokenizer_fingerprint(tagged))
    assert prints[0] == prints[3]
    assert len(set(prints)) == 3
    rows = [{"source": "a b", "target": "a b"}]
    pairs = [("characters", "words"), ("nfd_characters", "words"), ("characters", "nfd_characters"), ("words", "words")]
    made = {
        tokenizer_fingerprint(train_unit_tokenizer(rows, source_units=source, target_units=target))
        for source, target in pairs
    }
    assert len(made) == len(pairs)
