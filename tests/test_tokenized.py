"""From text to token ids: what is filtered and counted, and what is kept from run to run."""

import copy
import json
import threading
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
from datasets import Dataset, Features, Value, concatenate_datasets
from datasets import Sequence as ListOf
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_vanilla_transformer.data import tokenized as data
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.corpora import Corpus, TextFormat, read_corpora
from hf_vanilla_transformer.data.examples import example_lengths
from hf_vanilla_transformer.data.filters import FilterCounts, Filters
from hf_vanilla_transformer.data.tokenized import Cache, column_lengths, load_tokenized, tokenize_rows

FORMAT, NO_FILTERS = TextFormat(), Filters()
PAIRS = [(f"word {i} \u2028 ünï", f"Wort {i}") for i in range(5)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["some words", "einige Wörter"], vocab_size=260)


class WordTokenizer:
    """One token a word, and one for the end: lengths that a test can count."""

    def __call__(self, text=None, text_target=None, verbose=True):
        texts = text if text_target is None else text_target
        return {"input_ids": [[7] * len(each.split()) + [2] for each in texts]}


@pytest.fixture
def load(tmp_path):
    """`load_tokenized` with a cache that is the test's own."""

    def make(corpora, tokenizer, text_format=FORMAT, filters=NO_FILTERS, name="set"):
        cache = Cache(str(tmp_path / "cache"), show_progress=False)
        return load_tokenized(corpora, tokenizer, text_format, filters, name, cache)

    return make


@pytest.fixture
def corpus(tmp_path):
    return write_tsv(tmp_path / "train.tsv", PAIRS)


def write_tsv(path, pairs):
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs))
    return Corpus(path=str(path))


def rows_of(pairs):
    return [{"source": source, "target": target} for source, target in pairs]


# Filters


def test_ids_are_the_tokenizers_and_end_with_eos(tokenizer):
    for row, (source, target) in zip(
        tokenize_rows(rows_of(PAIRS), tokenizer, Filters(), FilterCounts()), PAIRS, strict=True
    ):
        assert (row["source"], row["target"]) == (source, target)
        assert tokenizer.decode(row["input_ids"], skip_special_tokens=True) == source
        assert tokenizer.decode(row["labels"], skip_special_tokens=True) == target
        assert row["input_ids"][-1] == row["labels"][-1] == tokenizer.eos_token_id


def test_tags_are_one_token_and_what_looks_like_a_control_token_is_text(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<2de>"]})
    tag = tokenizer.convert_tokens_to_ids("<2de>")
    pairs = [("<2de> a </s> b <pad>", "x <unk></s>"), ("<2de>", "</s>"), ("a", "b <s>")]
    rows = list(tokenize_rows(rows_of(pairs), tokenizer, Filters(), FilterCounts()))
    for row, (source, target) in zip(rows, pairs, strict=True):
        assert row["input_ids"].count(tag) == source.count("<2de>")
        assert row["labels"].count(tag) == 0
        for ids, text in ((row["input_ids"], source), (row["labels"], target)):
            assert ids[-1] == 2
            assert not {0, 1, 2, 3} & set(ids[:-1])
            assert tokenizer.decode(ids, skip_special_tokens=True) == text.removeprefix("<2de>")


SIDES = st.integers(0, 6).map(lambda count: " ".join(["w"] * count) or "  ") | st.sampled_from(["a", "b c", "", "\t"])


@settings(max_examples=150)
@given(
    pairs=st.lists(st.tuples(SIDES, SIDES), max_size=30),
    max_length=st.none() | st.integers(1, 7),
    ratio=st.none() | st.sampled_from([1.0, 1.5, 2.0, 3.0]),
    drop_duplicates=st.booleans(),
    chunk=st.integers(1, 8),
)
def test_every_pair_is_kept_or_counted_under_one_reason(pairs, max_length, ratio, drop_duplicates, chunk):
    kept, reasons, seen = [], dict.fromkeys(("empty", "duplicate", "too_long", "unequal"), 0), set()
    for source, target in pairs:
        a, b = len(source.split()) + 1, len(target.split()) + 1
        if a == 1 or b == 1:
            reasons["empty"] += 1
        elif drop_duplicates and (source, target) in seen:
            reasons["duplicate"] += 1
        elif max_length is not None and (a > max_length or b > max_length):
            reasons["too_long"] += 1
        elif ratio is not None and (a / b > ratio or b / a > ratio):
            reasons["unequal"] += 1
        else:
            kept.append((source, target))
        seen.add((source, target))
    counts = FilterCounts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "_CHUNK", chunk)
        filters = Filters(max_length, ratio, drop_duplicates)
        rows = list(tokenize_rows(rows_of(pairs), WordTokenizer(), filters, counts))
    assert [(row["source"], row["target"]) for row in rows] == kept
    assert vars(counts) == {"read": len(pairs), "kept": len(kept), **reasons}


def test_a_length_of_exactly_the_most_is_kept():
    rows = rows_of([("a b c", "a"), ("a b c d", "a"), ("a", "a b c d e")])
    kept = list(tokenize_rows(rows, WordTokenizer(), Filters(max_length=4, max_length_ratio=2.0), FilterCounts()))
    assert [row["source"] for row in kept] == ["a b c"]


def test_texts_without_target_are_filtered_by_their_one_side():
    rows = [{"source": text} for text in ("a b", " ", "a b", "a b c")]
    counts = FilterCounts()
    kept = list(tokenize_rows(rows, WordTokenizer(), Filters(3, 1.0, True), counts))
    assert kept == [{"source": "a b", "input_ids": [7, 7, 2]}]
    assert vars(counts) == {"read": 4, "kept": 1, "empty": 1, "duplicate": 1, "too_long": 1, "unequal": 0}


def test_pairs_that_run_together_alike_are_no_duplicates():
    rows = rows_of([("a b", "c"), ("a", "b c"), ("a b", "c"), ("a b", "d"), ("c", "a b")])
    kept = tokenize_rows(rows, WordTokenizer(), Filters(drop_duplicates=True), FilterCounts())
    assert [(row["source"], row["target"]) for row in kept] == [("a b", "c"), ("a", "b c"), ("a b", "d"), ("c", "a b")]


def test_the_log_says_what_was_left_out_and_nothing_of_filters_that_are_off(tmp_path, load, package_log):
    pairs = [*PAIRS, ("", "x"), ("x", " "), ("w " * 9, "w"), ("w", "w w w"), PAIRS[0]]
    corpus = write_tsv(tmp_path / "train.tsv", pairs)
    load([corpus], WordTokenizerWithState(), TextFormat(), Filters(9, 1.75, True), "training set")
    assert (
        "training set: 5 of 10 kept; left out: 2 with an empty side, 1 longer than max_length=9 tokens, "
        "1 beyond max_length_ratio=1.75, 1 seen before" in package_log.text
    )
    package_log.clear()
    load([corpus], WordTokenizerWithState(), TextFormat(), Filters(), "training set")
    record = package_log.records[-1]
    assert record.getMessage() == "training set: 8 of 10 kept; left out: 2 with an empty side"
    assert record.levelname == "WARNING"
    package_log.clear()
    whole = write_tsv(tmp_path / "whole.tsv", PAIRS)
    load([whole], WordTokenizerWithState(), TextFormat(), Filters(), "training set")
    assert [record.levelname for record in package_log.records] == ["INFO"]


class WordTokenizerWithState(WordTokenizer):
    """The same with a state to tell it by, which is what text is kept under."""

    def __init__(self, state="words"):
        self.backend_tokenizer = SimpleNamespace(to_str=lambda: state)

    def get_added_vocab(self):
        return {}


@pytest.mark.parametrize(
    ("pairs", "filters", "message"),
    [
        (PAIRS, Filters(2), r"nothing is left to learn from in .*a\.tsv.* 0 of 5 kept.* 5 longer than max_length=2"),
        ([("", "x")], Filters(), r"nothing is left to learn from in .*a\.tsv.* 0 of 1 kept; left out: 1 with an empty"),
        ([], Filters(), r"no sentence in .*a\.tsv$"),
    ],
)
def test_nothing_left_is_an_error_with_the_counts_and_is_not_kept(tmp_path, load, pairs, filters, message):
    corpus = write_tsv(tmp_path / "a.tsv", pairs)
    for _ in range(2):  # found in the text, and not in what was kept of it
        with pytest.raises(ValueError, match=message):
            load([corpus], WordTokenizerWithState(), TextFormat(), filters)
        assert list((tmp_path / "cache").iterdir()) == []


def test_a_bad_line_is_named_and_nothing_is_kept(tmp_path, load):
    path = tmp_path / "a.tsv"
    path.write_text("a\tb\nalone\n")
    with pytest.raises(ValueError, match=r"a\.tsv, line 2"):
        load([Corpus(path=str(path))], WordTokenizerWithState())
    assert list((tmp_path / "cache").iterdir()) == []


# What is kept


@pytest.fixture
def tokenised(monkeypatch):
    """How often text was tokenised."""
    calls = []

    def counting(*args):
        calls.append(args)
        return tokenize_rows(*args)

    monkeypatch.setattr(data, "tokenize_rows", counting)
    return calls


def test_what_is_loaded_is_what_was_read(tokenizer, load, corpus):
    rows = load([corpus], tokenizer)
    expected = list(tokenize_rows(read_corpora([corpus], TextFormat()), tokenizer, Filters(), FilterCounts()))
    assert rows.to_list() == expected


def test_monolingual_text_is_loaded_without_targets(tokenizer, load, tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    rows = load([Corpus(path=str(tmp_path / "a.txt"))], tokenizer, TextFormat(monolingual=True))
    assert rows.column_names == ["corpus", "line", "source", "input_ids"]
    assert rows["source"][:] == ["one", "two"]
    assert rows["line"][:] == [1, 3]


def test_a_second_load_does_not_tokenise_and_logs_the_same(tokenizer, load, tmp_path, tokenised, package_log):
    corpus = write_tsv(tmp_path / "train.tsv", [*PAIRS, ("", "x")])
    first = load([corpus], tokenizer)
    message = package_log.records[-1].getMessage()
    second = load([corpus], tokenizer)
    assert len(tokenised) == 1
    assert second.to_list() == first.to_list()
    assert package_log.records[-1].getMessage() == message
    assert "5 of 6 kept" in message


def test_a_copy_of_the_text_and_another_weight_are_found_too(tokenizer, load, tmp_path, corpus, tokenised):
    load([corpus], tokenizer)
    copy = Corpus(path=write_tsv(tmp_path / "copy.tsv", PAIRS).path, weight=3)
    load([copy], tokenizer)
    assert len(tokenised) == 1


def test_any_change_of_text_tokenizer_filter_or_language_tokenises_anew(tmp_path, tokenizer, load, tokenised):
    path = tmp_path / "train.jsonl"
    texts = ["".join(json.dumps({"en": a, "de": b, "fr": "x"}) + "\n" for a, b in PAIRS)]
    texts.append(texts[0].replace("word 3", "word 4"))
    texts.append(texts[0] + texts[0])
    other = train_tokenizer(texts=["ein Hund", "a dog"] * 9, vocab_size=262)
    path.write_text(texts[0])
    corpus, filters = Corpus(path=str(path)), Filters(99)
    loads = [([corpus], tokenizer, TextFormat(), filters)]
    loads.append(([corpus, corpus], tokenizer, TextFormat(), filters))
    loads.append(([corpus], other, TextFormat(), filters))
    loads.append(([corpus], tokenizer, TextFormat("en", "fr"), filters))
    loads.append(([corpus], tokenizer, TextFormat("de", "en"), filters))
    for changed in (Filters(98), Filters(None), Filters(99, 3.0), Filters(99, None, True)):
        loads.append(([corpus], tokenizer, TextFormat(), changed))
    for _ in range(2):
        for each in loads:
            load(*each)
    assert len(tokenised) == len(loads)
    for number, text in enumerate(texts[1:], start=1):
        path.write_text(text)
        rows = load(*loads[0])
        assert len(tokenised) == len(loads) + number
        assert len(rows) == text.count("\n")


def test_tokenizers_that_differ_only_in_what_a_token_is_to_them_tokenise_anew(tmp_path, tokenizer, load):
    corpus = write_tsv(tmp_path / "a.tsv", [("a <x> b", "a")])
    counts = []
    for tokens in ({"mask_token": "<x>"}, {"extra_special_tokens": ["<x>"]}):  # a control token, and one of the text
        other = copy.deepcopy(tokenizer)
        other.add_special_tokens(tokens)
        rows = load([corpus], other)
        counts.append(rows["input_ids"][0].count(other.convert_tokens_to_ids("<x>")))
    assert counts == [0, 1]


def test_lines_that_move_from_one_file_to_the_next_are_another_text(tmp_path, tokenizer, load):
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    corpora = [Corpus(path=str(first)), Corpus(path=str(second))]
    for texts in (("a\nb\n", "c\n"), ("a\n", "b\nc\n")):
        for path, text in zip((first, second), texts, strict=True):
            path.write_text(text)
        rows = load(corpora, tokenizer, TextFormat(monolingual=True), Filters())
        assert rows["corpus"][:] == [0] * texts[0].count("\n") + [1] * texts[1].count("\n")


def test_a_dataset_is_kept_by_what_is_in_it(tmp_path, tokenizer, load, tokenised, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    folder = tmp_path / "dataset"
    folder.mkdir()
    lines = [json.dumps({"en": a, "de": b}) + "\n" for a, b in PAIRS]
    (folder / "train.jsonl").write_text("".join(lines))
    (folder / "validation.jsonl").write_text(lines[0])
    corpus = Corpus(dataset=str(folder), split="train")
    for _ in range(2):
        rows = load([corpus], tokenizer)
        assert rows["source"][:] == [a for a, _ in PAIRS]
        assert rows["line"][:] == list(range(5))
    assert len(tokenised) == 1
    validation = Corpus(dataset=str(folder), split="validation")
    assert len(load([validation], tokenizer)) == 1
    (folder / "train.jsonl").write_text("".join(lines[:2]))
    assert len(load([corpus], tokenizer)) == 2


def test_what_a_run_left_half_written_is_not_taken_for_whole(tmp_path, tokenizer, load, corpus, monkeypatch):
    def dies(*args):
        yield from list(tokenize_rows(*args))[:2]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(data, "tokenize_rows", dies)
        with pytest.raises(KeyboardInterrupt):
            load([corpus], tokenizer)
    assert len(load([corpus], tokenizer)) == 5


def test_two_runs_may_write_at_once(tokenizer, load, corpus, monkeypatch, tmp_path):
    barrier, results = threading.Barrier(2, timeout=30), []

    def together(*args):
        rows = list(tokenize_rows(*args))
        barrier.wait()  # both have seen that nothing is kept yet
        return rows

    monkeypatch.setattr(data, "tokenize_rows", together)

    def run():
        results.append(load([corpus], tokenizer).to_list())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 2
    assert results[0] == results[1]
    assert len(list((tmp_path / "cache").iterdir())) == 1


# Lengths and examples


def test_lengths_of_a_column_over_several_chunks_and_slices():
    features = Features({"ids": ListOf(Value("int32"))})
    columns = [[[1] * (i % 7) for i in range(start, start + 50)] for start in (0, 50, 100)]
    parts = [Dataset.from_dict({"ids": column}, features=features) for column in columns]
    rows = concatenate_datasets(parts)
    assert len(rows.data.column("ids").chunks) == 3
    assert column_lengths(rows, "ids").tolist() == [i % 7 for i in range(150)]
    assert column_lengths(rows.select(range(20, 130)), "ids").tolist() == [i % 7 for i in range(20, 130)]


def test_lengths_of_what_was_loaded(tmp_path, tokenizer, load):
    pairs = [("a" * (1 + i % 11), "b" * (1 + i % 5)) for i in range(2500)]  # more than one chunk of the writer
    rows = load([write_tsv(tmp_path / "a.tsv", pairs)], tokenizer)
    assert column_lengths(rows, "input_ids").tolist() == [len(ids) for ids in rows["input_ids"]]
    sources, targets = example_lengths(rows.to_list())
    np.testing.assert_array_equal(sources, column_lengths(rows, "input_ids"))
    np.testing.assert_array_equal(targets, column_lengths(rows, "labels"))
