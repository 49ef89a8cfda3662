"""From text to token ids: filtered with a count of everything left out, tokenised once, kept by content."""

import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset, Features, Value
from datasets import Sequence as ListOf
from datasets.arrow_writer import ArrowWriter
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..text_to_ids import text_to_ids
from .arguments import VanillaTransformerTrainingArguments
from .checkpoints import hash_file
from .corpora import Corpus, Row

logger = logging.get_logger(__name__)

# Sentences that go through the tokenizer together.
_CHUNK = 1000
# Part of the name under which tokenised text is kept; a new number makes older ones unknown.
_CACHE_VERSION = 2

# (row, epoch, index) -> `input_ids` and `labels`
MakeExample = Callable[[Row, int, int], dict[str, list[int]]]

_PAIR_FEATURES = Features(
    {
        "corpus": Value("int32"),
        "line": Value("int64"),
        "source": Value("string"),
        "target": Value("string"),
        "input_ids": ListOf(Value("int32")),
        "labels": ListOf(Value("int32")),
    }
)
_TEXT_FEATURES = Features({name: _PAIR_FEATURES[name] for name in ("corpus", "line", "source", "input_ids")})


@dataclass(frozen=True)
class Filters:
    """What is left out of a corpus besides pairs with an empty side, of which nothing can be learned.

    Args:
        max_length: the most tokens of a side; None for any number.
        max_length_ratio: the most times that one side may have the other's tokens; None for any number.
        drop_duplicates: whether to leave out pairs whose text was seen before.
    """

    max_length: int | None = None
    max_length_ratio: float | None = None
    drop_duplicates: bool = False

    @classmethod
    def of(cls, args: VanillaTransformerTrainingArguments) -> "Filters":
        """The filters of a run's training text."""
        return cls(args.max_length, args.max_length_ratio, args.drop_duplicates)


@dataclass
class FilterCounts:
    """How many pairs there were, and why some were left out."""

    read: int = 0
    kept: int = 0
    empty: int = 0
    too_long: int = 0
    unequal: int = 0
    duplicate: int = 0

    def describe(self, name: str, filters: Filters) -> str:
        """One line for the log: what was kept of `name`, and how much each filter left out."""
        reasons = [f"{self.empty} with an empty side"]
        if filters.max_length is not None:
            reasons.append(f"{self.too_long} longer than max_length={filters.max_length} tokens")
        if filters.max_length_ratio is not None:
            reasons.append(f"{self.unequal} beyond max_length_ratio={filters.max_length_ratio}")
        if filters.drop_duplicates:
            reasons.append(f"{self.duplicate} seen before")
        return f"{name}: {self.kept} of {self.read} kept; left out: {', '.join(reasons)}"


def read_corpora(
    corpora: Sequence[Corpus], args: VanillaTransformerTrainingArguments, streaming: bool = False
) -> Iterator[Row]:
    """Reads corpora one after the other, as the objective wants them: pairs, or monolingual text.

    Args:
        corpora: what to read.
        args: the run; gives languages and objective.
        streaming: whether datasets of the Hub are to be read without downloading them first.

    Yields:
        `corpus` (its number), `line`, `source` and, of pairs, `target`.

    Raises:
        ValueError: a line is not what it should be; the message names file and line.
    """
    for number, corpus in enumerate(corpora):
        if args.objective == "span_corruption":
            rows = corpus.read_texts(streaming)
        else:
            rows = corpus.read_pairs(args.source_lang, args.target_lang, streaming)
        for row in rows:
            yield {"corpus": number, **row}


def tokenize_rows(
    rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, filters: Filters, counts: FilterCounts
) -> Iterator[Row]:
    """Adds token ids to rows, and leaves out those that a filter wants out.

    Args:
        rows: with `source` and, of pairs, `target`.
        tokenizer: ends every side with `</s>`.
        filters: what to leave out.
        counts: counts on.

    Yields:
        Rows with `input_ids` and, of pairs, `labels`.
    """
    seen: set[bytes] = set()
    iterator = iter(rows)
    while chunk := list(itertools.islice(iterator, _CHUNK)):
        counts.read += len(chunk)
        full = [row for row in chunk if all(row[side].strip() for side in _sides(row))]
        counts.empty += len(chunk) - len(full)
        if filters.drop_duplicates:
            new = [row for row in full if _is_new(row, seen)]
            counts.duplicate += len(full) - len(new)
            full = new
        if not full:
            continue
        columns = {"input_ids": text_to_ids(tokenizer, [row["source"] for row in full])}
        if "target" in full[0]:
            columns["labels"] = text_to_ids(tokenizer, [row["target"] for row in full], as_target=True)
        kept = []
        for index, row in enumerate(full):
            ids = {name: column[index] for name, column in columns.items()}
            lengths = [len(side) for side in ids.values()]
            if filters.max_length is not None and max(lengths) > filters.max_length:
                counts.too_long += 1
            elif filters.max_length_ratio is not None and max(lengths) > filters.max_length_ratio * min(lengths):
                counts.unequal += 1
            else:
                kept.append({**row, **ids})
        counts.kept += len(kept)  # before any of them is handed on: the counts add up whenever they are looked at
        yield from kept


def load_tokenized(
    corpora: Sequence[Corpus],
    tokenizer: PreTrainedTokenizerBase,
    args: VanillaTransformerTrainingArguments,
    filters: Filters,
    name: str,
) -> Dataset:
    """Tokenises corpora into a memory-mapped dataset, or finds it where an earlier run kept it.

    It is kept under a hash of the text, the tokenizer and the filters, so that it cannot be stale.

    Args:
        corpora: what to read.
        tokenizer: ends every side with `</s>`.
        args: the run; gives languages, objective and `data_cache_dir`.
        filters: what to leave out.
        name: what to call the text in the log.

    Returns:
        `corpus`, `line`, `source`, `input_ids` and, of pairs, `target` and `labels`.

    Raises:
        ValueError: a line is not what it should be, with file and line; or nothing is left, with the counts.
    """
    for corpus in corpora:
        corpus.check()
    root = Path(args.data_cache_dir or Path(datasets.config.HF_DATASETS_CACHE) / "hf_vanilla_transformer")
    key = _cache_key(corpora, tokenizer, args, filters)
    folder = root / key
    if not (folder / "counts.json").exists():
        _write_tokenized(folder, corpora, tokenizer, args, filters, name)
    counts = FilterCounts(**json.loads((folder / "counts.json").read_text(encoding="utf-8")))
    message = counts.describe(name, filters)
    if not counts.kept:
        shutil.rmtree(folder)
        raise ValueError(
            f"nothing is left to learn from in {', '.join(corpus.name for corpus in corpora)}. {message}"
            if counts.read
            else f"no sentence in {', '.join(corpus.name for corpus in corpora)}"
        )
    (logger.warning if counts.kept < counts.read else logger.info)(message)
    return Dataset.from_file(str(folder / "rows.arrow"))


def _write_tokenized(
    folder: Path,
    corpora: Sequence[Corpus],
    tokenizer: PreTrainedTokenizerBase,
    args: VanillaTransformerTrainingArguments,
    filters: Filters,
    name: str,
) -> None:
    counts = FilterCounts()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all, also beside another run that does the same: written elsewhere, then renamed.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        written = Path(scratch) / "rows"
        written.mkdir()
        features = _TEXT_FEATURES if args.objective == "span_corruption" else _PAIR_FEATURES
        rows = tokenize_rows(read_corpora(corpora, args), tokenizer, filters, counts)
        with ArrowWriter(path=str(written / "rows.arrow"), features=features) as writer:
            for row in tqdm(rows, desc=f"Tokenising {name}", unit=" sentences", disable=args.disable_tqdm):
                writer.write(row)
            writer.finalize()
        (written / "counts.json").write_text(json.dumps(asdict(counts)), encoding="utf-8")
        try:
            os.rename(written, folder)
        except OSError:
            if not (folder / "counts.json").exists():
                raise


def _cache_key(
    corpora: Sequence[Corpus],
    tokenizer: PreTrainedTokenizerBase,
    args: VanillaTransformerTrainingArguments,
    filters: Filters,
) -> str:
    digest = hashlib.sha256()
    for corpus in corpora:
        if corpus.dataset is not None:
            splits = datasets.load_dataset(corpus.dataset, corpus.config, split=corpus.split)
            digest.update(splits._fingerprint.encode())
        for path in corpus.files:
            # One a file: text that moves from one file to the next is another text.
            digest.update(hash_file(path).encode())
        # Two spellings of one file read alike, but for how they are taken apart.
        digest.update(json.dumps([Path(path).suffixes for path in corpus.files]).encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    # Which of the added tokens are read from text, and what is put around either side, is not all in there.
    probe = [" ".join(sorted(tokenizer.get_added_vocab()))]
    digest.update(json.dumps([text_to_ids(tokenizer, probe, as_target) for as_target in (False, True)]).encode())
    what = [args.objective, args.source_lang, args.target_lang, asdict(filters), _CACHE_VERSION]
    digest.update(json.dumps(what).encode())
    return digest.hexdigest()[:32]


def _sides(row: Row) -> tuple[str, ...]:
    return ("source", "target") if "target" in row else ("source",)


def _is_new(row: Row, seen: set[bytes]) -> bool:
    # Sixteen bytes a pair, not its text: a corpus of millions fits in memory.
    text = "\0".join(row[side] for side in _sides(row))
    key = hashlib.blake2b(text.encode(), digest_size=16).digest()
    if key in seen:
        return False
    seen.add(key)
    return True


def column_lengths(rows: Dataset, column: str) -> np.ndarray:
    """How many tokens each row of a column of lists has, without reading the tokens.

    Args:
        rows: a dataset.
        column: a column of lists.

    Returns:
        One number a row.
    """
    chunks = rows.data.column(column).chunks
    return np.concatenate([np.diff(chunk.offsets.to_numpy()) for chunk in chunks]).astype(np.int64)


class TrainingExamples(torch.utils.data.Dataset):
    """Tokenised rows as what one epoch learns from: the pair itself, or made anew out of it every epoch.

    Args:
        rows: as `load_tokenized` returns them.
        corpora: where the rows come from.
        make: what makes `input_ids` and `labels` of a row in an epoch; None leaves a row as it is.
    """

    def __init__(self, rows: Dataset, corpora: Sequence[Corpus] = (), make: MakeExample | None = None) -> None:
        self.rows, self.corpora, self.make = rows, corpora, make

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        """Says where a row was read, for messages.

        Args:
            index: of the row.

        Returns:
            Corpus and line.
        """
        row = self.rows[index]
        name = self.corpora[row["corpus"]].name if self.corpora else f"corpus {row['corpus']}"
        return f"{name}, line {row['line']}"

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[dict[str, Any]]:
        """Gets the rows of a batch.

        Args:
            keys: (epoch, index) of each, as a `TokenBatchSampler` gives them.

        Returns:
            `input_ids`, `labels` and `index` of each.
        """
        columns = self.rows[[index for _, index in keys]]
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        if self.make is not None:
            rows = [{**row, **self.make(row, epoch, index)} for row, (epoch, index) in zip(rows, keys, strict=True)]
        return [
            {"input_ids": row["input_ids"], "labels": row["labels"], "index": index}
            for row, (_, index) in zip(rows, keys, strict=True)
        ]


def example_lengths(examples: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Counts the tokens of examples in memory.

    Args:
        examples: each with `input_ids` and `labels`.

    Returns:
        Tokens of each source, and of each target.
    """
    sources = np.array([len(example["input_ids"]) for example in examples], dtype=np.int64)
    return sources, np.array([len(example["labels"]) for example in examples], dtype=np.int64)
