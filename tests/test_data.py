"""Parallel text from files and datasets, and what is said about bad lines."""

import gzip
import json
import logging

import pytest
from datasets import Dataset, DatasetDict

from hf_vanilla_transformer.training import PretrainingArguments, train_tokenizer
from hf_vanilla_transformer.training.data import load_pairs, read_jsonl_pairs, read_text_pairs, tokenize_pairs

PAIRS = [{"source": f"word {i} \u2028 ünï", "target": f"Wort {i}"} for i in range(5)]


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "train.jsonl"
    rows = [json.dumps({"translation": {"en": pair["source"], "de": pair["target"]}}) for pair in PAIRS]
    path.write_text("\n".join([*rows[:2], "", *rows[2:]]) + "\n")
    return path


@pytest.fixture
def plain(tmp_path):
    for name, column in (("train.en", "source"), ("train.de", "target")):
        (tmp_path / name).write_text("".join(pair[column] + "\n" for pair in PAIRS))
    return tmp_path / "train.en", tmp_path / "train.de"


def arguments(tmp_path, **options):
    return PretrainingArguments(output_dir=str(tmp_path / "out"), **{k: str(v) for k, v in options.items()})


def test_jsonl_plain_text_and_dataset_give_the_same_pairs(tmp_path, jsonl, plain):
    compressed = tmp_path / "train.jsonl.gz"
    compressed.write_bytes(gzip.compress(jsonl.read_bytes()))
    saved = tmp_path / "dataset"
    saved.mkdir()
    (saved / "train.jsonl").write_text(jsonl.read_text().replace("\n\n", "\n"))
    (saved / "validation.jsonl").write_text(jsonl.read_text().replace("\n\n", "\n"))
    for options in (
        {"train_file": jsonl},
        {"train_file": compressed},
        {"source_file": plain[0], "target_file": plain[1]},
        {"dataset_name": saved},
    ):
        train, _ = load_pairs(arguments(tmp_path, **options))
        assert train.to_list() == PAIRS, options


def test_validation_text_comes_from_files_or_from_the_dataset(tmp_path, jsonl, plain):
    files = {"train_file": jsonl, "validation_source_file": plain[0], "validation_target_file": plain[1]}
    _, validation = load_pairs(arguments(tmp_path, **files))
    assert validation.to_list() == PAIRS
    assert load_pairs(arguments(tmp_path, train_file=jsonl))[1] is None


def test_columns_named_by_language_will_do(tmp_path, monkeypatch):
    columns = {"en": [pair["source"] for pair in PAIRS], "de": [pair["target"] for pair in PAIRS]}
    splits = DatasetDict({"train": Dataset.from_dict(columns), "validation": Dataset.from_dict(columns)})
    monkeypatch.setattr("hf_vanilla_transformer.training.data.load_dataset", lambda name, config: splits)
    train, validation = load_pairs(arguments(tmp_path, dataset_name="some/name"))
    assert train.to_list() == validation.to_list() == PAIRS


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: no JSON object"),
        ("3", "line 2: expected .*translation"),
        ('{"translation": "x"}', "line 2: expected .*translation"),
        ('{"translation": {"en": "x"}}', "line 2: expected text for language 'de', got None; there are: en"),
        ('{"translation": {"en": "x", "de": null}}', "line 2: expected text for language 'de', got None"),
        ('{"translation": {"en": ["x"], "de": "y"}}', r"line 2: expected text for language 'en', got \['x'\]"),
    ],
)
def test_a_bad_line_of_jsonl_is_named(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"translation": {"en": "a", "de": "b"}}\n' + line + "\n")
    with pytest.raises(ValueError, match=f"bad.jsonl, {message}"):
        list(read_jsonl_pairs(path, "en", "de"))


@pytest.mark.parametrize("shorter", [0, 1])
def test_unequal_files_are_refused_with_both_line_counts(tmp_path, plain, shorter):
    plain[shorter].write_text("only\ntwo\n")
    short, long = plain[shorter].name, plain[1 - shorter].name
    with pytest.raises(ValueError, match=f"{short} ends after 2 lines, but .*{long} has 5"):
        list(read_text_pairs(*plain))


def test_text_that_is_not_utf8_is_named_with_its_line(tmp_path, plain):
    plain[1].write_bytes(b"gut\n\xff\n" + b"x\n" * 3)
    with pytest.raises(ValueError, match="train.de, line 2"):
        list(read_text_pairs(*plain))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of .*given: none"),
        ({"train_file": "a", "dataset_name": "b"}, "given: train_file, dataset_name"),
        ({"source_file": "a"}, "source_file=a and target_file=None belong together"),
        ({"train_file": "a", "validation_target_file": "b"}, "validation_source_file=None and .*=b belong together"),
        (
            {"train_file": "a", "validation_file": "b", "validation_source_file": "c", "validation_target_file": "d"},
            "either validation_file, or",
        ),
    ],
)
def test_data_must_be_named_once(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        load_pairs(arguments(tmp_path, **options))


def test_no_pairs_at_all_are_refused(tmp_path):
    for content in ("", "\n\n"):
        (tmp_path / "empty.jsonl").write_text(content)
        with pytest.raises(ValueError, match=r"no sentence pair in .*empty\.jsonl"):
            load_pairs(arguments(tmp_path, train_file=tmp_path / "empty.jsonl"))


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["some words", "einige Wörter"], vocab_size=262)


def test_ids_are_the_tokenizers_and_end_with_eos(tokenizer):
    tokens = tokenize_pairs(Dataset.from_list(PAIRS), tokenizer, None, "set")
    for row, pair in zip(tokens, PAIRS, strict=True):
        assert tokenizer.decode(row["input_ids"], skip_special_tokens=True) == pair["source"]
        assert tokenizer.decode(row["labels"], skip_special_tokens=True) == pair["target"]
        assert row["input_ids"][-1] == row["labels"][-1] == tokenizer.eos_token_id
        assert row["length"] == len(row["input_ids"]) + len(row["labels"])
        assert {"source": row["source"], "target": row["target"]} == pair


def test_what_is_left_out_is_counted_by_reason(tokenizer, caplog):
    pairs = [*PAIRS, {"source": " ", "target": "x"}, {"source": "x", "target": ""}, {"source": "x" * 99, "target": "x"}]
    logger = logging.getLogger("transformers")
    logger.propagate, before = True, logger.propagate
    try:
        kept = tokenize_pairs(Dataset.from_list(pairs), tokenizer, 40, "training set")
    finally:
        logger.propagate = before
    assert [row["source"] for row in kept] == [pair["source"] for pair in PAIRS]
    message = "training set: 5 of 8 pairs kept; left out: 2 with an empty side, 1 longer than max_length=40 tokens"
    assert message in caplog.text


def test_nothing_left_is_an_error_with_the_counts(tokenizer):
    with pytest.raises(ValueError, match="nothing is left to learn from.*0 of 5 pairs.*5 longer than max_length=2"):
        tokenize_pairs(Dataset.from_list(PAIRS), tokenizer, 2, "training set")
