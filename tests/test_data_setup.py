"""What the arguments of a run become: corpora, filters, examples and batches, prepared once and soon found again."""

import json
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from training_runs import arguments, flags, options, write_text

from hf_vanilla_transformer.commands.training import run_command
from hf_vanilla_transformer.data import tokenized
from hf_vanilla_transformer.data.batching import collate
from hf_vanilla_transformer.data.streaming import TokenBatchStream
from hf_vanilla_transformer.tokenization_ids import text_to_ids
from hf_vanilla_transformer.training import data_setup, prepare, prepare_only, tokenizer_setup
from hf_vanilla_transformer.training.data_setup import corpora_of, prepare_text


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path)


def prepared(args, **changes):
    return prepare_text(args, *corpora_of(args), None, **changes)


def write_lines(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


# Preparing, and doing it again


@pytest.fixture
def long_work(monkeypatch):
    """What was done that takes long for much text: tokenizers trained, chunks tokenised."""
    done = []

    def counting(name, function, *args, **options):
        done.append(name)
        return function(*args, **options)

    for module, name in ((tokenizer_setup, "train_tokenizer"), (tokenized, "encode_columns")):
        monkeypatch.setattr(module, name, partial(counting, name, getattr(module, name)))
    return done


def test_prepare_only_does_what_takes_long_says_so_and_stops(text, tmp_path, long_work, capsys):
    values = options(text, tmp_path / "run", vocab_size=270)
    assert run_command(flags({**values, "prepare_only": "true"})) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1].startswith("Ready: a tokenizer of 270 tokens, 80 training examples in ")
    assert out[-1].endswith(" batches an epoch, 6 for validation")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"tokenizer"}
    assert long_work == ["train_tokenizer", "encode_columns", "encode_columns"]
    assert run_command(flags({**values, "prepare_only": "true"})) == 0
    prepare(arguments(text, tmp_path / "run", vocab_size=270))
    assert len(long_work) == 3


@pytest.mark.parametrize("after", [0, 1])
def test_preparing_can_be_interrupted_and_repeated(text, tmp_path, long_work, monkeypatch, after):
    args = arguments(text, tmp_path / "run", vocab_size=270)
    calls = []

    def dies(*columns):
        calls.append(columns)
        if len(calls) > after:
            raise KeyboardInterrupt
        return encode(*columns)

    encode = tokenized.encode_columns
    with monkeypatch.context() as patch:
        patch.setattr(tokenized, "encode_columns", dies)
        with pytest.raises(KeyboardInterrupt):
            prepare_only(args)
    prepare_only(args)
    assert long_work == ["train_tokenizer", "encode_columns", "encode_columns"]  # nothing twice


def test_prepare_only_is_not_ignored_in_python(text, tmp_path):
    with pytest.raises(ValueError, match=r"training\.prepare_only\(args\)"):
        prepare(arguments(text, tmp_path, prepare_only=True))


def test_many_processes_are_told_of_prepare_only_where_they_would_wait(text, tmp_path, monkeypatch, package_log):
    monkeypatch.setattr(data_setup, "_LARGE", 100)
    prepared(arguments(text, tmp_path / "run"))
    assert "prepare_only" not in package_log.text
    args = arguments(text, tmp_path / "run", data_cache_dir=str(tmp_path / "other"))
    with monkeypatch.context() as patch:
        patch.setattr(type(args), "world_size", 2)
        patch.setattr(type(args), "main_process_first", lambda *_, **__: nullcontext())
        prepared(args)
        assert "2 processes wait while one tokenises" in package_log.text
        assert "--prepare_only true" in package_log.text
        package_log.clear()
        prepared(args)  # found where it is kept
        assert "prepare_only" not in package_log.text


# What there is to learn from


def test_filters_are_those_of_the_run(text, tmp_path):
    long = " ".join(map(str, range(150)))
    lines = ["a b\tc d", "a b\tc d", "a\tb c d e f g h i j k l", f"{long}\t{long}", "\tz"]
    args = arguments(text, tmp_path / "run", train_data=[write_lines(tmp_path / "a.tsv", lines)])
    for changes, kept in (
        ({}, [0, 1, 2]),
        ({"max_length": 1000}, [0, 1, 2, 3]),
        ({"drop_duplicates": True}, [0, 2]),
        ({"max_length_ratio": 3}, [0, 1]),
    ):
        for name, value in {"max_length": 256, "drop_duplicates": False, "max_length_ratio": None, **changes}.items():
            setattr(args, name, value)
        assert prepared(args).train_set.rows["line"][:] == [index + 1 for index in kept]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("noise", [{}, {"bpe_dropout": 0.7}])
def test_nothing_is_longer_than_the_positions_that_a_model_has_learned(text, tmp_path, package_log, streaming, noise):
    stream = {"streaming": True, "max_steps": 2, "shuffle_buffer": 100} if streaming else {}
    args = arguments(text, tmp_path / "run", **stream, **noise)
    limit = 12
    parts = prepared(args, max_positions=limit)
    if streaming:
        batches = [batch for batch, _ in zip(parts.train_set, range(30))]
    else:
        batches = [collate(parts.train_set.__getitems__(keys), 1) for keys in parts.train_sampler]
    longest = [max(batch["input_ids"].shape[1], batch["labels"].shape[1]) for batch in batches]
    assert max(longest) <= limit
    assert all(len(ids) <= limit for column in ("input_ids", "labels") for ids in parts.validation_set[column])
    said = [line for line in package_log.messages if f"longer than the model's {limit} learned positions" in line]
    assert any("validation set" in line for line in said)
    assert any(("stream" if streaming else "training set") in line for line in said)


def test_holes_that_need_more_positions_than_the_model_has_are_refused(tmp_path):
    lines = write_lines(tmp_path / "a.txt", ["a b c d e f g h i j"])
    task = {"objective": "span_corruption", "num_sentinels": 9, "noise_density": 0.9, "mean_span_length": 1.0}
    args = arguments(tmp_path, tmp_path / "run", train_data=[lines], validation_data=[], **task)
    sampler = prepared(args).train_sampler
    longest = int(max(sampler.source_lengths.max(), sampler.target_lengths.max()))
    assert len(prepared(args, max_positions=longest).train_set) == 1
    tokens = int(prepared(args).train_set.rows["source_length"][0])
    assert tokens < longest
    with pytest.raises(
        ValueError, match=rf"noise_density=0\.9 .*makes {longest} tokens of a text, more than the model's"
    ):
        prepared(args, max_positions=longest - 1)


def test_a_header_is_named_and_still_learned(text, tmp_path, package_log):
    path = write_lines(tmp_path / "a.tsv", ["en\tde", "a b\tc d"])
    args = arguments(text, tmp_path / "run", train_data=[path])
    assert len(prepared(args).train_set) == 2
    assert f"{path}, line 1: 'en' and 'de' look like names of columns" in package_log.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_data": ["{path},weight=7"]}, r"a\.tsv: weight=7\.0 is for training text"),
        (
            {"train_data": ["{path},weight=2"], "streaming": True, "max_steps": 3},
            r"a\.tsv: weight=2\.0 is for training",
        ),
        ({"corpus_temperature": 5}, r"corpus_temperature=5.* is for the shares of several corpora, and there is one"),
        ({"train_data": ["{path},split=train"]}, r"split=train chooses a part of a dataset, and a file has no parts"),
        ({"validation_data": ["{path},config=x"]}, r"config=x chooses a part of a dataset"),
    ],
)
def test_what_a_corpus_has_without_effect_is_refused(text, tmp_path, changes, message):
    path = write_lines(tmp_path / "a.tsv", ["a b\tc d"])
    given = {
        name: [each.format(path=path) for each in value] if isinstance(value, list) else value
        for name, value in {"train_data": [str(path)], **changes}.items()
    }
    with pytest.raises(ValueError, match=message):
        prepared(arguments(text, tmp_path / "run", **given))


def test_the_size_of_a_corpus_is_for_streams(text, tmp_path):
    given = {"train_data": ["dataset=some/name,size=9"]}
    with pytest.raises(ValueError, match="size is for training text that is streamed"):
        corpora_of(arguments(text, tmp_path, **given))
    training, _ = corpora_of(arguments(text, tmp_path, **given, streaming=True, max_steps=3))
    assert (training[0].size, training[0].split) == (9, "train")


def test_corpora_are_streamed_by_weight_and_size(text, tmp_path):
    first = write_lines(tmp_path / "first.tsv", ["a\tb"] * 200)
    second = write_lines(tmp_path / "second.tsv", ["c\td"] * 4)
    args = arguments(
        text, tmp_path / "run", train_data=[first, f"path={second},weight=25"], streaming=True, max_steps=3
    )
    stream = prepared(args).train_set
    assert isinstance(stream, TokenBatchStream)
    assert stream.shares == [2 / 3, 1 / 3]


def test_streams_with_other_shares_are_other_text(tmp_path):
    """By shares sentences are drawn: a run that is resumed with others would repeat some and leave out others."""
    for name, word in (("one", "a b"), ("two", "c d")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text(json.dumps({"translation": {"en": word, "de": word}}) + "\n")
    prints = []
    for sizes in ((9, 1), (1, 1), (9, 1)):
        data = [f"dataset={tmp_path / name},size={size}" for name, size in zip(("one", "two"), sizes)]
        stream = {"streaming": True, "max_steps": 3, "validation_data": []}
        prints.append(prepared(arguments(tmp_path, tmp_path / "run", train_data=data, **stream)).fingerprint)
    assert prints[0] != prints[1]
    assert prints[0] == prints[2]


def test_the_order_of_batches_follows_the_data_seed_in_a_stream_too(text, tmp_path):
    read = []
    for seeds in ({"seed": 1}, {"seed": 1, "data_seed": 2}, {"seed": 2}):
        args = arguments(text, tmp_path / "run", streaming=True, max_steps=3, shuffle_buffer=30, **seeds)
        read.append([batch["input_ids"].tolist() for batch, _ in zip(prepared(args).train_set, range(4))])
    assert read[0] != read[1]
    assert read[1] == read[2]


# Planning


def test_bpe_dropout_is_planned_by_epoch_and_comes_again(text, tmp_path):
    args = arguments(text, tmp_path / "run", bpe_dropout=0.3, max_tokens=128)
    runs = []
    for _ in range(2):
        parts, epochs = prepared(args), []
        for epoch in range(3):
            parts.train_sampler.set_epoch(epoch)
            batches = list(parts.train_sampler)
            assert len(batches) == len(parts.train_sampler)
            epochs.append([collate(parts.train_set.__getitems__(keys), 1) for keys in batches])
        runs.append(epochs)
    for first, second in zip(*runs, strict=True):
        for one, other in zip(first, second, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in one)
    assert json.dumps([batch["input_ids"].tolist() for batch in runs[0][0]]) != json.dumps(
        [batch["input_ids"].tolist() for batch in runs[0][1]]
    )


# Corpora of different sizes


@pytest.mark.parametrize("streaming", [False, True])
def test_a_temperature_gives_small_corpora_more_weight_by_its_formula(text, tmp_path, package_log, streaming):
    large = write_lines(tmp_path / "large.tsv", [f"a {number}\tb" for number in range(200)])
    small = write_lines(tmp_path / "small.tsv", ["c\td"] * 4 + ["\tempty"])
    changes = {"streaming": True, "max_steps": 3} if streaming else {}
    data = [large, f"path={small},weight=2"]
    args = arguments(text, tmp_path / "run", train_data=data, corpus_temperature=4.0, **changes)
    counts = [200, 2 * (5 if streaming else 4)]  # what is left out is not known of a stream
    powers = [count ** (1 / 4) for count in counts]
    parts = prepared(args)
    if streaming:
        assert parts.train_set.shares == pytest.approx([power / sum(powers) for power in powers])
        return
    taken = [parts.train_set.rows["corpus"][index] for batch in parts.train_sampler for _, index in batch]
    for number, power in enumerate(powers):
        assert taken.count(number) == pytest.approx(sum(counts) * power / sum(powers), abs=1)
    assert "corpus_temperature=4.0: times in an epoch, by corpus: " in package_log.text


def test_validation_text_has_the_tags_by_which_it_is_translated(text, tmp_path):
    tags = [f"path={text / 'train.jsonl'},tag=2de", f"path={text / 'train.jsonl'},tag=2en,reversed=true"]
    parts = prepared(arguments(text, tmp_path / "run", train_data=tags, validation_data=tags))
    sources = parts.validation_set["source"]
    assert {source.split()[0] for source in sources} == {"<2de>", "<2en>"}
    for source, ids in zip(sources, parts.validation_set["input_ids"], strict=True):
        assert text_to_ids(parts.tokenizer, [source]) == [ids]
        assert parts.tokenizer.convert_ids_to_tokens(ids[0]) == source.split()[0]
