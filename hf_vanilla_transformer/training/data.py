"""Parallel text: read from files or the Hub, checked line by line, and turned into token ids."""

import json
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from .arguments import PretrainingArguments
from .text_files import read_lines

logger = logging.get_logger(__name__)

Pair = dict[str, str]


def load_pairs(args: PretrainingArguments) -> tuple[Dataset, Dataset | None]:
    """Loads what `args` name as training and validation text.

    Args:
        args: the run.

    Returns:
        Training and validation sets with the columns `source` and `target`; None where there is no validation text.

    Raises:
        ValueError: no, or more than one, kind of training text is named; or a line or row is not what it should be,
            and the message names file and line, and what was expected.
    """
    _check_what_is_named(args)
    languages = (args.source_lang, args.target_lang)
    train = _load_files(args.train_file, args.source_file, args.target_file, languages)
    validation = _load_files(args.validation_file, args.validation_source_file, args.validation_target_file, languages)
    if args.dataset_name is not None:
        splits = load_dataset(args.dataset_name, args.dataset_config_name)
        if "train" not in splits:
            raise ValueError(f"{args.dataset_name} has no split `train`; it has: {', '.join(splits)}")
        train = _from_rows(splits["train"], f"{args.dataset_name}, split train", languages)
        if validation is None and "validation" in splits:
            validation = _from_rows(splits["validation"], f"{args.dataset_name}, split validation", languages)
    assert train is not None  # the arguments name exactly one source of training text
    return train, validation


def read_jsonl_pairs(path: str | Path, source_lang: str, target_lang: str) -> Iterator[Pair]:
    """Reads `{"translation": {source_lang: "...", target_lang: "..."}}`, one a line; blank lines are skipped.

    Args:
        path: the file, .gz too.
        source_lang: key of the source.
        target_lang: key of the target.

    Yields:
        `{"source": "...", "target": "..."}`.

    Raises:
        ValueError: a line is no JSON, or lacks a key; the message names file and line.
    """
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: no JSON object ({error})") from error
            yield _pair(row, f"{path}, line {number}", source_lang, target_lang)


def read_text_pairs(source_path: str | Path, target_path: str | Path) -> Iterator[Pair]:
    """Reads two files, line N of one being the translation of line N of the other.

    Args:
        source_path: plain text, .gz too.
        target_path: as many lines.

    Yields:
        `{"source": "...", "target": "..."}`.

    Raises:
        ValueError: one file has more lines than the other; the message gives both numbers.
    """
    sources, targets = read_lines(source_path), read_lines(target_path)
    for number, (source, target) in enumerate(zip_longest(sources, targets), start=1):
        if source is None or target is None:
            short, long = (source_path, target_path) if source is None else (target_path, source_path)
            rest = sum(1 for _ in (targets if source is None else sources))
            raise ValueError(
                f"{short} ends after {number - 1} lines, but {long} has {number + rest}; "
                "line N of one must translate line N of the other"
            )
        yield {"source": source, "target": target}


def tokenize_pairs(pairs: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int | None, name: str) -> Dataset:
    """Turns text into token ids, and leaves out the pairs that cannot be learned from, saying how many.

    Args:
        pairs: with the columns `source` and `target`.
        tokenizer: ends both sides with `</s>`.
        max_length: the most tokens a side may have; None for any number.
        name: what to call the set in the log.

    Returns:
        The pairs that are left, with `input_ids`, `labels` and `length` (tokens of both sides) beside the text.

    Raises:
        ValueError: no pair is left.
    """
    # Reading files is cheap next to a run, and a cache keyed by anything but the content could be stale.
    full = pairs.filter(
        lambda source, target: bool(source.strip() and target.strip()),
        input_columns=["source", "target"],
        load_from_cache_file=False,
        desc=f"Filtering {name}",
    )
    tokens = full.map(
        lambda batch: _tokenize(batch, tokenizer),
        batched=True,
        load_from_cache_file=False,
        desc=f"Tokenising {name}",
    )
    kept = tokens
    if max_length is not None:
        kept = tokens.filter(
            lambda source, target: max(len(source), len(target)) <= max_length,
            input_columns=["input_ids", "labels"],
            load_from_cache_file=False,
            desc=f"Filtering {name}",
        )
    empty, long = len(pairs) - len(full), len(full) - len(kept)
    message = f"{name}: {len(kept)} of {len(pairs)} pairs kept; left out: {empty} with an empty side, {long} longer "
    message += f"than max_length={max_length} tokens"
    if not len(kept):
        raise ValueError(f"nothing is left to learn from. {message}")
    (logger.warning if empty or long else logger.info)(message)
    return kept


def _check_what_is_named(args: PretrainingArguments) -> None:
    for source, target in (("source_file", "target_file"), ("validation_source_file", "validation_target_file")):
        if (getattr(args, source) is None) != (getattr(args, target) is None):
            raise ValueError(
                f"{source}={getattr(args, source)} and {target}={getattr(args, target)} belong together; give both"
            )
    given = [name for name in ("train_file", "source_file", "dataset_name") if getattr(args, name)]
    if len(given) != 1:
        raise ValueError(
            "give exactly one of train_file, source_file with target_file, and dataset_name; "
            f"given: {', '.join(given) or 'none'}"
        )
    if args.validation_file and args.validation_source_file:
        raise ValueError("give either validation_file, or validation_source_file with validation_target_file; not both")


def _tokenize(batch: Mapping[str, list[str]], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[Any]]:
    sources = tokenizer(batch["source"])["input_ids"]
    targets = tokenizer(text_target=batch["target"])["input_ids"]
    lengths = [len(source) + len(target) for source, target in zip(sources, targets, strict=True)]
    return {"input_ids": sources, "labels": targets, "length": lengths}


def _load_files(
    jsonl: str | None, source: str | None, target: str | None, languages: tuple[str, str]
) -> Dataset | None:
    if jsonl is not None:
        pairs = list(read_jsonl_pairs(jsonl, *languages))
        what = jsonl
    elif source is not None and target is not None:
        pairs = list(read_text_pairs(source, target))
        what = f"{source} and {target}"
    else:
        return None
    if not pairs:
        raise ValueError(f"no sentence pair in {what}")
    return Dataset.from_list(pairs)


def _from_rows(rows: Dataset, what: str, languages: tuple[str, str]) -> Dataset:
    if not len(rows):
        raise ValueError(f"no sentence pair in {what}")
    return rows.map(
        lambda row, index: _pair(row, f"{what}, row {index}", *languages),
        with_indices=True,
        remove_columns=rows.column_names,
    )


def _pair(row: Any, where: str, source_lang: str, target_lang: str) -> Pair:
    """Takes a pair out of a row, in which the languages may stand below `translation` or by themselves."""
    texts = row.get("translation", row) if isinstance(row, Mapping) else None
    if not isinstance(texts, Mapping):
        raise ValueError(
            f'{where}: expected {{"translation": {{"{source_lang}": "...", "{target_lang}": "..."}}}}, got {row!r:.200}'
        )
    for language in (source_lang, target_lang):
        if not isinstance(texts.get(language), str):
            raise ValueError(
                f"{where}: expected text for language {language!r}, got {texts.get(language)!r:.100}; "
                f"there are: {', '.join(map(str, texts))}. Set source_lang and target_lang"
            )
    return {"source": texts[source_lang], "target": texts[target_lang]}
