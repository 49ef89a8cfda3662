"""From text to token ids: what is filtered and counted, and what is kept from run to run."""

import copy
import json
import os
import threading
import time

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_vanilla_transformer.data import tokenized as data
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.corpora import Corpus, TextFormat, read_corpora
from hf_vanilla_transformer.data.filters import Filters
from hf_vanilla_transformer.data.tokenized import (
    Cache,
    encode_columns,
    load_tokenized,
    processes_for,
    row_lengths,
    usable_cores,
)
from hf_vanilla_transformer.data.unit_tokenizer import train_unit_tokenizer

FORMAT, NO_FILTERS = TextFormat(), Filters()
PAIRS = [(f"word {i} \u2028 ünï", f"Wort {i}") for i in range(5)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["some words", "einige Wörter"], vocab_size=260)


class WordTokenizer:
    """One token a word, and one for the end: lengths that a test can count."""

    special_tokens_map = {}

    def get_added_vocab(self):
        return {}

    def save_pretrained(self, folder):
        pass

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


# Ids


def ids_of(row):
    return row["input_ids"], row["labels"]


def test_ids_are_the_tokenizers_and_end_with_eos(tokenizer, load, corpus):
    rows = load([corpus], tokenizer).to_list()
    for row, (source, target) in zip(rows, PAIRS, strict=True):
        assert (row["source"], row["target"]) == (source, target)
        assert tokenizer.decode(row["input_ids"], skip_special_tokens=True) == source
        assert tokenizer.decode(row["labels"], skip_special_tokens=True) == target
        assert row["input_ids"][-1] == row["labels"][-1] == tokenizer.eos_token_id
        assert (row["source_length"], row["target_length"]) == tuple(map(len, ids_of(row)))


def test_tags_are_one_token_and_what_looks_like_a_control_token_is_text(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<2de>"]})
    tag = tokenizer.convert_tokens_to_ids("<2de>")
    sources, targets = ("<2de> a </s> b <pad>", "<2de>", "a"), ("x <unk></s>", "</s>", "b <s>")
    made = encode_columns({"source": sources, "target": targets}, tokenizer)
    for source, target, *both in zip(sources, targets, made["input_ids"], made["labels"], strict=True):
        assert [ids.count(tag) for ids in both] == [source.count("<2de>"), 0]
        for ids, text in zip(both, (source, target), strict=True):
            assert ids[-1] == 2
            assert not {0, 1, 2, 3} & set(ids[:-1])
            assert tokenizer.decode(ids, skip_special_tokens=True) == text.removeprefix("<2de>")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from(["a b", "a", "b", "\0", ""])


@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), max_size=12))
def test_pairs_are_blank_and_equal_as_their_text_is(pairs):
    made = encode_columns({"source": [a for a, _ in pairs], "target": [b for _, b in pairs]}, WordTokenizer())
    assert made["blank"] == [not a.strip() or not b.strip() for a, b in pairs]
    keys = dict(zip(pairs, made["text_hash"], strict=True))
    if not any("\0" in side for pair in pairs for side in pair):
        assert len(set(keys.values())) == len(keys)
    assert made["text_hash"] == [keys[pair] for pair in pairs]


# What is left out


def test_the_log_says_what_was_left_out_and_nothing_of_filters_that_are_off(tmp_path, load, package_log):
    pairs = [*PAIRS, ("", "x"), ("x", " "), ("w " * 9, "w"), ("w", "w w w"), PAIRS[0]]
    corpus = write_tsv(tmp_path / "train.tsv", pairs)
    load([corpus], WordTokenizer(), TextFormat(), Filters(9, 1.75, True), "training set")
    assert (
        "training set: 5 of 10 kept; left out: 2 with an empty side, 1 seen before, 1 longer than max_length=9 tokens, "
        "1 beyond max_length_ratio=1.75" in package_log.text
    )
    package_log.clear()
    load([corpus], WordTokenizer(), TextFormat(), Filters(), "training set")
    record = package_log.records[-1]
    assert record.getMessage() == "training set: 8 of 10 kept; left out: 2 with an empty side"
    assert record.levelname == "WARNING"
    package_log.clear()
    whole = write_tsv(tmp_path / "whole.tsv", PAIRS)
    load([whole], WordTokenizer(), TextFormat(), Filters(), "training set")
    assert [record.levelname for record in package_log.records] == ["INFO"]


@pytest.mark.parametrize(
    ("pairs", "filters", "message"),
    [
        (
            PAIRS,
            Filters(2),
            r"nothing is left to learn from in .*a\.tsv.* 0 of (5|10) kept.* (5|10) longer than max_length=2",
        ),
        ([("", "x")], NO_FILTERS, r"nothing to learn from in .*a\.tsv: all of its 1 pairs have an empty side$"),
        ([], NO_FILTERS, r"no sentence in .*a\.tsv$"),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_nothing_left_is_an_error_with_the_counts(tmp_path, load, pairs, filters, message, beside):
    corpora = [write_tsv(tmp_path / "a.tsv", pairs)]
    if beside:  # an empty one is named among others too
        corpora.append(write_tsv(tmp_path / "b.tsv", PAIRS))
    for _ in range(2):  # found in the text, and in what was kept of it
        with pytest.raises(ValueError, match=message):
            load(corpora, WordTokenizer(), FORMAT, filters)


def test_a_bad_line_is_named_and_nothing_is_kept(tmp_path, load):
    path = tmp_path / "a.tsv"
    path.write_text("a\tb\nalone\n")
    with pytest.raises(ValueError, match=r"a\.tsv, line 2"):
        load([Corpus(path=str(path))], WordTokenizer())
    assert list((tmp_path / "cache").iterdir()) == []


# What is kept


def test_what_a_kill_left_is_removed_when_nobody_has_written_to_it_for_a_day(tmp_path, tokenizer, load, corpus):
    old, now = time.time() - 25 * 3600, time.time()
    cache = tmp_path / "cache"
    for name, newest in (("unfinished-dead", old), ("unfinished-live", now), ("other", old)):
        (cache / name / "rows").mkdir(parents=True)
        (cache / name / "rows" / "rows.arrow").touch()
        for path in (cache / name, *(cache / name).rglob("*")):
            os.utime(path, (newest, newest) if path.suffix else (old, old))
    load([corpus], tokenizer)
    assert {"unfinished-live", "other"} < {path.name for path in cache.iterdir()}
    assert not (cache / "unfinished-dead").exists()


@pytest.fixture
def tokenised(monkeypatch):
    """How often a chunk of text was tokenised."""
    calls = []

    def counting(*args):
        calls.append(args)
        return encode_columns(*args)

    monkeypatch.setattr(data, "encode_columns", counting)
    return calls


def test_what_is_loaded_is_what_was_read(tokenizer, load, corpus):
    rows = load([corpus], tokenizer)
    read = list(read_corpora([corpus], FORMAT))
    assert [{name: row[name] for name in read[0]} for row in rows.to_list()] == read


def test_several_processes_make_what_one_makes_in_the_same_order(tmp_path, tokenizer):
    corpus = write_tsv(tmp_path / "a.tsv", [(f"source {i}", f"target {i}") for i in range(3001)])
    rows = [
        load_tokenized(
            [corpus], tokenizer, FORMAT, Filters(12), "set", Cache(str(tmp_path / str(number)), False, number)
        )
        for number in (1, 2)
    ]
    assert rows[0].to_list() == rows[1].to_list()
    assert len(list((tmp_path / "2").rglob("*.arrow"))) == 2


@pytest.mark.parametrize(
    ("sentences", "wanted", "cores", "expected"),
    [(10, None, 8, None), (99_999, None, 8, None), (400_000, None, 64, 4), (10**7, None, 64, 8), (10**7, None, 2, 2)]
    + [(10**7, None, 1, None), (10, 4, 1, 4), (3, 4, 1, 3), (0, 4, 1, None), (10**7, 1, 64, None)],
)
def test_how_many_processes_a_text_is_worth(monkeypatch, sentences, wanted, cores, expected):
    monkeypatch.setattr(data, "usable_cores", lambda: cores)
    assert processes_for(sentences, wanted) == expected


def test_cores_are_shared_by_the_processes_of_a_launcher(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    whole = usable_cores()
    for processes in (1, 2, 1000):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert usable_cores() == max(whole // processes, 1)


def test_a_corpus_is_kept_by_itself(tmp_path, tokenizer, load, tokenised):
    corpora = [write_tsv(tmp_path / f"{name}.tsv", [(name, name), *PAIRS]) for name in "abc"]
    bad = tmp_path / "bad.tsv"
    bad.write_text("alone\n")
    with pytest.raises(ValueError, match=r"bad\.tsv, line 1"):
        load([corpora[0], corpora[1], Corpus(path=str(bad)), corpora[2]], tokenizer)
    assert len(tokenised) == 2
    rows = load([corpora[2], corpora[1], corpora[0]], tokenizer)  # what was done before the interruption is found
    assert len(tokenised) == 3
    assert rows["source"][::6] == ["c", "b", "a"]
    assert rows["corpus"][:] == [0] * 6 + [1] * 6 + [2] * 6


@pytest.mark.parametrize(
    "filters", [Filters(21), Filters(None, 3.5), Filters(None, None, True), Filters(max_positions=21)]
)
def test_other_filters_tokenise_nothing_anew_and_keep_what_they_should(tmp_path, load, tokenizer, tokenised, filters):
    pairs = [*PAIRS, ("x" * 30, "y"), PAIRS[2], ("", "z")]
    corpora = [write_tsv(tmp_path / "a.tsv", pairs), write_tsv(tmp_path / "b.tsv", pairs)]
    load(corpora, tokenizer)
    seen = len(tokenised)
    rows = load(corpora, tokenizer, FORMAT, filters)
    assert len(tokenised) == seen
    everything = load(corpora, tokenizer).to_list()
    lengths = [np.array(column) for column in zip(*([len(x) for x in ids_of(row)] for row in everything), strict=True)]
    texts = np.array([hash((row["source"], row["target"])) for row in everything])
    kept, _ = filters.apply(lengths, np.zeros(len(everything), dtype=bool), texts)
    assert 0 < len(kept) < len(everything)
    assert rows.to_list() == [everything[index] for index in kept]
    assert [column.tolist() for column in row_lengths(rows)] == [[lengths[i][index] for index in kept] for i in (0, 1)]


def test_monolingual_text_is_loaded_without_targets(tokenizer, load, tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    rows = load([Corpus(path=str(tmp_path / "a.txt"))], tokenizer, TextFormat(monolingual=True))
    assert set(rows.column_names) == {"corpus", "line", "source", "input_ids", "source_length"}
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


def test_any_change_of_text_tokenizer_or_language_tokenises_anew(tmp_path, tokenizer, load, tokenised):
    path = tmp_path / "train.jsonl"
    texts = ["".join(json.dumps({"en": a, "de": b, "fr": "x"}) + "\n" for a, b in PAIRS)]
    texts.append(texts[0].replace("word 3", "word 4"))
    texts.append(texts[0] + texts[0])
    other = train_tokenizer(texts=["ein Hund", "a dog"] * 9, vocab_size=262)
    path.write_text(texts[0])
    corpus = Corpus(path=str(path))
    loads = [([corpus], tokenizer, FORMAT)]
    loads.append(([corpus], other, FORMAT))
    loads.append(([corpus], tokenizer, TextFormat("en", "fr")))
    loads.append(([corpus], tokenizer, TextFormat("de", "en")))
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
    calls = []

    def dies(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode_columns(*args)

    corpora = [corpus, write_tsv(tmp_path / "other.tsv", PAIRS[:2])]
    with monkeypatch.context() as patch:
        patch.setattr(data, "encode_columns", dies)
        with pytest.raises(KeyboardInterrupt):
            load(corpora, tokenizer)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert len(load(corpora, tokenizer)) == 7


def test_two_runs_may_write_at_once(tokenizer, load, corpus, tmp_path, monkeypatch):
    barrier, results = threading.Barrier(2, timeout=30), []

    def together(*args):
        barrier.wait()  # both have seen that nothing is kept yet
        return encode_columns(*args)

    monkeypatch.setattr(data, "encode_columns", together)

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


# Tags, and sides that are cut differently


@pytest.fixture(scope="module")
def phonetic():
    rows = [{"source": "ab", "target": "x y"}]
    return train_unit_tokenizer(rows, source_units="characters", target_units="words", tags=["<2ipa>", "<2abc>"])


def test_a_corpus_with_another_tag_is_another_text_and_none_serves_another(tmp_path, phonetic, load):
    path = write_tsv(tmp_path / "a.tsv", [("ab", "x y")]).path
    for tag in ("2ipa", None, "2abc", "2ipa 2abc"):
        (row,) = load([Corpus(path=path, tag=tag)], phonetic).to_list()
        tags = [] if tag is None else [f"<{name}>" for name in tag.split()]
        assert phonetic.convert_ids_to_tokens(row["input_ids"]) == [*tags, "a", "b", "</s>"]
        assert phonetic.convert_ids_to_tokens(row["labels"]) == ["▁x", "▁y", "</s>"]
        assert row["source"] == " ".join([*tags, "ab"])


def test_a_reversed_corpus_is_cut_as_its_text_is(tmp_path, phonetic, load):
    path = write_tsv(tmp_path / "a.tsv", [("ab", "x y"), ("", "x")]).path
    (row,) = load([Corpus(path=path, tag="2abc", reversed=True)], phonetic).to_list()
    assert phonetic.convert_ids_to_tokens(row["input_ids"]) == ["<2abc>", "▁x", "▁y", "</s>"]
    assert phonetic.convert_ids_to_tokens(row["labels"]) == ["a", "b", "</s>"]


def test_what_the_tokenizer_does_not_know_is_counted(tmp_path, phonetic, load, package_log):
    load([write_tsv(tmp_path / "a.tsv", [("abc", "x z"), ("cc", "x")])], phonetic)
    assert "set: 4 tokens are <unk>" in package_log.text
    package_log.clear()
    load([write_tsv(tmp_path / "b.tsv", [("ab", "x")])], phonetic)
    assert "<unk>" not in package_log.text
