"""Text that is read while training: an endless stream, the same on every run, shared out without loss."""

import copy
import itertools
import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.data.batching import TokenBatchSampler
from hf_vanilla_transformer.data.corpora import Corpus, TextFormat
from hf_vanilla_transformer.data.filters import Filters
from hf_vanilla_transformer.data.streaming import StreamOptions, TokenBatchStream, corpus_shares
from hf_vanilla_transformer.data.unit_tokenizer import train_unit_tokenizer

NO_FILTERS = Filters()
LINES = [f"{'w' * (1 + i % 9)} {i}" for i in range(60)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["some words"], vocab_size=260)


def corpus(path, lines, **options):
    path.write_text("".join(f"{line}\t{line.upper()}\n" for line in lines))
    return Corpus(path=str(path), **options)


def stream(corpora, tokenizer, make=None, filters=NO_FILTERS, **options):
    """A stream of lists of examples."""
    options = StreamOptions(**{"max_tokens": 40, "shuffle_buffer": 20, **options})
    shares = corpus_shares(corpora, [each.count_sentences() for each in corpora])
    return TokenBatchStream(corpora, shares, tokenizer, TextFormat(), filters, options, make, list)


def take(batches, sentences):
    """The batches of a stream until so many sentences came."""
    taken, count = [], 0
    iterator = iter(batches)
    while count < sentences:
        taken.append(next(iterator))
        count += len(taken[-1])
    return taken


def texts(batches, tokenizer):
    return [tokenizer.decode(example["input_ids"], skip_special_tokens=True) for batch in batches for example in batch]


def test_a_corpus_comes_whole_and_again(tmp_path, tokenizer):
    batches = take(stream([corpus(tmp_path / "a.tsv", LINES)], tokenizer), 180)
    assert Counter(texts(batches, tokenizer)) == Counter(LINES * 3)
    for example in itertools.chain(*batches):
        target = tokenizer.decode(example["labels"], skip_special_tokens=True)
        assert target == tokenizer.decode(example["input_ids"], skip_special_tokens=True).upper()
        assert set(example) == {"input_ids", "labels", "index"}
    for example in itertools.chain(*batches):  # of one corpus, it is the line
        assert tokenizer.decode(example["input_ids"], skip_special_tokens=True) == LINES[example["index"] - 1]


def test_it_is_known_of_each_sentence_where_it_was_read(tmp_path, tokenizer):
    corpora = [corpus(tmp_path / f"{name}.tsv", [f"{name} {i}" for i in range(1, 31)]) for name in "abc"]
    filters, readers = Filters(max_length=5), 2
    for reader in range(readers):
        found = stream(corpora, tokenizer, filters=filters, num_processes=readers, process_index=reader)
        for example in itertools.chain(*take(found, 60)):
            name, line = tokenizer.decode(example["input_ids"], skip_special_tokens=True).split()
            assert found.where(example["index"]) == f"{tmp_path / name}.tsv, line {line}"


def test_tags_are_one_token_and_what_looks_like_a_control_token_is_text(tmp_path, tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<2de>"]})
    tag = tokenizer.convert_tokens_to_ids("<2de>")
    lines = [f"<2de>{line} </s> <pad>" for line in LINES]
    path = tmp_path / "a.tsv"
    path.write_text("".join(f"{line}\t{line}\n" for line in lines))
    examples = list(itertools.chain(*take(stream([Corpus(path=str(path))], tokenizer), 60)))
    assert Counter(tokenizer.decode(example["input_ids"][1:-1]) for example in examples) == Counter(
        line.removeprefix("<2de>") for line in lines
    )
    for example in examples:
        assert example["input_ids"] == example["labels"]
        assert (example["input_ids"][0], example["input_ids"][-1]) == (tag, 2)
        assert not {0, 1, 2, 3, tag} & set(example["input_ids"][1:-1])


def test_batches_keep_the_bound_and_hold_like_lengths_within_a_buffer(tmp_path, tokenizer):
    long = "x" * 60
    batches = take(stream([corpus(tmp_path / "a.tsv", [*LINES, long])], tokenizer), 122)
    alone = [batch for batch in batches if len(batch[0]["input_ids"]) > 40]
    assert alone
    assert all(len(batch) == 1 for batch in alone)
    for batch in batches:
        longest = max(len(example[side]) for example in batch for side in ("input_ids", "labels"))
        assert len(batch) * longest <= 40 or len(batch) == 1
    buffer = take(stream([corpus(tmp_path / "b.tsv", LINES)], tokenizer, shuffle_buffer=60), 60)
    padding = sum(len(batch) * max(len(x["input_ids"]) for x in batch) for batch in buffer)
    assert sum(len(x["input_ids"]) for batch in buffer for x in batch) / padding > 0.9


def test_random_batches_of_a_stream_keep_the_bound_and_mix_lengths(tmp_path, tokenizer):
    lines = ["a", "a b c d e f g h"] * 60
    batches = take(stream([corpus(tmp_path / "a.tsv", lines)], tokenizer, max_tokens=80, batching="random"), 120)
    assert sorted(texts(batches, tokenizer)) == sorted(lines)
    sizes = [{len(example["input_ids"]) for example in batch} for batch in batches]
    assert sum(len(each) > 1 for each in sizes) > len(sizes) / 2
    assert all(len(batch) * max(each) <= 80 for batch, each in zip(batches, sizes, strict=True))


def test_sentences_move_no_further_than_the_buffer(tmp_path, tokenizer):
    batches = take(stream([corpus(tmp_path / "a.tsv", LINES)], tokenizer, shuffle_buffer=10), 60)
    order = texts(batches, tokenizer)
    for start in range(0, 60, 10):
        assert sorted(order[start : start + 10]) == sorted(LINES[start : start + 10])
    assert order != LINES


def test_the_same_seed_gives_the_same_stream(tmp_path, tokenizer):
    corpora = [corpus(tmp_path / "a.tsv", LINES), corpus(tmp_path / "b.tsv", [f"b {i}" for i in range(20)])]
    first, again = (take(stream(corpora, tokenizer), 150) for _ in range(2))
    assert first == again
    assert take(stream(corpora, tokenizer, seed=1), 150) != first


def test_a_weight_is_how_often_a_sentence_counts_as_in_text_in_memory(tmp_path, tokenizer):
    sizes, weights = {"a": 400, "b": 50, "c": 50}, {"a": 1, "b": 4, "c": 0.5}
    corpora = [
        corpus(tmp_path / f"{name}.tsv", [f"{name} {i}" for i in range(sizes[name])], weight=weights[name])
        for name in sizes
    ]
    seen = Counter(text[0] for text in texts(take(stream(corpora, tokenizer), 2500), tokenizer))
    # What a sampler takes of the same corpora in memory.
    each = np.repeat([weights[name] for name in sizes], list(sizes.values()))
    sampler = TokenBatchSampler(np.full(len(each), 5), np.full(len(each), 5), 40, weights=each)
    indices = [index for batch in sampler for _, index in batch]
    epoch = Counter("a" if index < 400 else "b" if index < 450 else "c" for index in indices)
    for name in sizes:
        assert seen[name] / seen.total() == pytest.approx(epoch[name] / epoch.total(), abs=0.05)  # five deviations


def test_a_corpus_of_which_little_is_kept_counts_as_in_text_in_memory(tmp_path, tokenizer):
    """Of a, one line in ten is kept; its share is of all its lines, so that no sentence counts more than one of b."""
    lines = {
        "a": [f"a {i}" if i % 10 == 0 else "a " + "long " * 20 for i in range(300)],
        "b": [f"b {i}" for i in range(300)],
    }
    corpora = [corpus(tmp_path / f"{name}.tsv", lines[name]) for name in lines]
    batches = take(stream(corpora, tokenizer, filters=Filters(max_length=20)), 1000)
    seen = Counter(text[0] for text in texts(batches, tokenizer))
    assert seen["a"] / seen.total() == pytest.approx(1 / 11, abs=0.05)  # five deviations


def test_no_two_readers_draw_the_same_noise(tmp_path, tokenizer):
    text, numbers = [corpus(tmp_path / "a.tsv", LINES)], []

    def make(row, epoch, index):
        numbers.append(index)
        return row

    for rank in range(3):
        take(stream(text, tokenizer, make=make, num_processes=3, process_index=rank), 40)
    assert len(set(numbers)) == len(numbers) >= 120


def test_corpora_of_unknown_size_are_not_mixed(tmp_path):
    known, unknown = Corpus(path="a.tsv"), Corpus(dataset="some/name", split="train")
    assert corpus_shares([unknown], [None]) == [1.0]
    with pytest.raises(ValueError, match=r"some/name/train does not say how many sentences it has.*add size=N to it"):
        corpus_shares([known, unknown], [3, None])
    assert corpus_shares([replace(known, weight=2), unknown], [30, 40]) == [0.6, 0.4]


def test_processes_share_the_sentences(tmp_path, tokenizer):
    text = [corpus(tmp_path / "a.tsv", LINES)]
    whole = texts(take(stream(text, tokenizer, shuffle_buffer=1), 120), tokenizer)
    for world_size in (2, 3):
        for rank in range(world_size):
            share = stream(text, tokenizer, shuffle_buffer=1, num_processes=world_size, process_index=rank)
            mine = texts(take(share, 40), tokenizer)
            assert mine == whole[rank::world_size][:40]


def jsonl_shards(folder, count):
    """A folder that `datasets` loads, its lines dealt out to so many files."""
    folder.mkdir()
    for number in range(count):
        rows = [{"en": line, "de": line.upper()} for line in LINES[number::count]]
        (folder / f"train-{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Corpus(dataset=str(folder), split="train")


def parquet_shards(folder, count):
    folder.mkdir()
    for number in range(count):
        rows = [{"translation": {"en": line, "de": line.upper()}} for line in LINES[number::count]]
        Dataset.from_list(rows).to_parquet(str(folder / f"train-{number:05}-of-{count:05}.parquet"))
    return Corpus(dataset=str(folder), split="train")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("kind", "count"), [("file", 1), (jsonl_shards, 4), (jsonl_shards, 3), (parquet_shards, 1), (parquet_shards, 8)]
)
def test_no_sentence_is_lost_or_doubled_in_an_epoch_of_two_processes(tmp_path, tokenizer, kind, count, workers):
    text = corpus(tmp_path / "a.tsv", LINES) if kind == "file" else kind(tmp_path / "shards", count)
    seen, parts = Counter(), 2 * max(workers, 1)
    for rank in range(2):
        share = stream([text], tokenizer, shuffle_buffer=60 // parts, num_processes=2, process_index=rank)
        loader = torch.utils.data.DataLoader(share, batch_size=None, num_workers=workers)
        mine = texts(take(loader, 30), tokenizer)
        assert len(mine) == 30
        seen.update(mine)
    assert seen == Counter(LINES)


def test_workers_of_a_loader_share_the_sentences(tmp_path, tokenizer):
    lines = stream([corpus(tmp_path / "a.tsv", LINES)], tokenizer, shuffle_buffer=1)
    loader = torch.utils.data.DataLoader(lines, batch_size=None, num_workers=2)
    assert Counter(texts(take(loader, 60), tokenizer)) == Counter(LINES)


def test_workers_do_not_wait_for_threads_that_their_parent_had(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    tokenizer(["some words"] * 2000)  # starts the threads
    lines = stream([corpus(tmp_path / "a.tsv", LINES)], tokenizer)
    loader = torch.utils.data.DataLoader(lines, batch_size=None, num_workers=2, timeout=20)
    assert Counter(texts(take(loader, 60), tokenizer)).total() >= 60


def test_examples_are_made_of_the_row_and_its_place_in_the_stream(tmp_path, tokenizer):
    def make(row, epoch, index):
        return {"input_ids": [epoch, index], "labels": row["labels"][:1]}

    batches = take(stream([corpus(tmp_path / "a.tsv", LINES)], tokenizer, make), 70)
    examples = list(itertools.chain(*batches))
    for example in examples:
        epoch, place = example["input_ids"]
        assert (epoch, place % len(LINES) + 1, len(example["labels"])) == (0, example["index"], 1)


def test_batches_are_planned_by_what_was_made_and_not_by_what_was_read(tmp_path, tokenizer):
    def make(row, epoch, index):
        return {"input_ids": row["input_ids"] * 3, "labels": row["labels"]}

    for batch in take(stream([corpus(tmp_path / "a.tsv", LINES)], tokenizer, make), 60):
        assert len(batch) == 1 or len(batch) * max(len(example["input_ids"]) for example in batch) <= 40


def test_filters_are_those_of_the_run_and_counted(tmp_path, tokenizer, package_log):
    lines = ["", *LINES, "x" * 60]
    options = {"filters": Filters(30), "shuffle_buffer": 60}
    batches = take(stream([corpus(tmp_path / "a.tsv", lines)], tokenizer, **options), 120)
    assert Counter(texts(batches, tokenizer)) == Counter(LINES * 2)
    messages = [record for record in package_log.records if record.name.endswith("streaming")]
    assert len(messages) == 2  # one a buffer
    assert {record.levelname for record in messages} == {"WARNING"}  # seen without asking for more than warnings
    pattern = r"stream: (\d+) of (\d+) kept; left out: (\d+) with an empty side, (\d+) longer than max_length=30.*"
    kept, read, empty, long = map(int, re.fullmatch(pattern, messages[-1].getMessage()).groups())
    assert kept >= 120
    assert kept + empty + long == read
    assert empty >= 2
    assert long >= 1
    package_log.clear()
    take(stream([corpus(tmp_path / "b.tsv", LINES)], tokenizer, **options), 60)
    assert [record.levelname for record in package_log.records] == ["INFO"]


def test_nothing_to_learn_from_is_an_error_and_no_endless_search(tmp_path, tokenizer):
    empty = corpus(tmp_path / "empty.tsv", [])
    with pytest.raises(ValueError, match=r"no sentence in .*empty\.tsv"):
        next(iter(stream([empty], tokenizer)))
    long = corpus(tmp_path / "long.tsv", LINES)
    with pytest.raises(ValueError, match=r"nothing is left to learn from\. .*long\.tsv: 0 of \d+ kept.*max_length=2 "):
        next(iter(stream([long], tokenizer, filters=Filters(2))))


def test_a_bad_line_is_named_when_it_comes(tmp_path, tokenizer):
    path = tmp_path / "a.tsv"
    path.write_text("a\tb\n" * 3 + "alone\n")
    with pytest.raises(ValueError, match=r"a\.tsv, line 4"):
        next(iter(stream([Corpus(path=str(path))], tokenizer)))


def test_every_reader_mixes_its_parts_of_several_corpora(tmp_path, tokenizer):
    lines = {name: [f"{name} {'w' * (step * i % 7)} {i}" for i in range(300)] for name, step in (("a", 2), ("b", 3))}
    corpora = [corpus(tmp_path / f"{name}.tsv", lines[name]) for name in lines]
    seen = []
    for rank in range(2):
        share = {"num_processes": 2, "process_index": rank}
        mine = texts(take(stream(corpora, tokenizer, max_tokens=30, shuffle_buffer=100, **share), 300), tokenizer)
        seen.append(set(mine))
        assert Counter(text[0] for text in mine)["a"] == pytest.approx(150, abs=45)  # five deviations
    assert not seen[0] & seen[1]
    assert seen[0] <= {*lines["a"][::2], *lines["b"][::2]}


def test_a_corpus_with_fewer_sentences_than_readers_is_refused(tmp_path, tokenizer):
    tiny = corpus(tmp_path / "tiny.tsv", LINES[:1])
    with pytest.raises(ValueError, match=r"no sentence in .*tiny\.tsv for reader 2 of 2"):
        next(iter(stream([tiny], tokenizer, num_processes=2, process_index=1)))


def test_tags_and_directions_are_those_of_each_corpus(tmp_path):
    rows = [{"source": "ab", "target": "x y"}]
    tokenizer = train_unit_tokenizer(rows, source_units="characters", target_units="words", tags=["<2ipa>", "<2abc>"])
    (tmp_path / "a.tsv").write_text("ab\tx y\n" * 9)
    corpora = [Corpus(path=str(tmp_path / "a.tsv"), tag="2ipa")]
    corpora.append(replace(corpora[0], tag="2abc", reversed=True))
    ways = {
        tuple(tuple(tokenizer.convert_ids_to_tokens(example[name])) for name in ("input_ids", "labels"))
        for batch in take(stream(corpora, tokenizer), 30)
        for example in batch
    }
    there = ("<2ipa>", "a", "b", "</s>"), ("▁x", "▁y", "</s>")
    back = ("<2abc>", "▁x", "▁y", "</s>"), ("a", "b", "</s>")
    assert ways == {there, back}
