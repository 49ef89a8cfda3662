"""From text to token ids: filtered with a count of everything left out, tokenised once, kept by content."""

import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import numpy as np
from datasets import Dataset, Features, Value
from datasets import Sequence as ListOf
from datasets.arrow_writer import ArrowWriter
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..text_to_ids import text_to_ids
from .corpora import Corpus, Row, TextFormat, read_corpora
from .filters import FilterCounts, Filters
from .text_files import hash_file

logger = logging.get_logger(__name__)

# Sentences that go through the tokenizer together.
_CHUNK = 1000
# Part of the name under which tokenised text is kept; a new number makes older ones unknown.
_CACHE_VERSION = 2

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
class Cache:
    """Where tokenised text is kept.

    Args:
        folder: None for one below that of `datasets`.
        show_progress: whether to show a progress bar while it is filled.
    """

    folder: str | None = None
    show_progress: bool = True


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
    text_format: TextFormat,
    filters: Filters,
    name: str,
    cache: Cache = Cache(),
) -> Dataset:
    """Tokenises corpora into a memory-mapped dataset, or finds it where an earlier run kept it.

    It is kept under a hash of the text, the tokenizer and the filters, so that it cannot be stale.

    Args:
        corpora: what to read.
        tokenizer: ends every side with `</s>`.
        text_format: how their rows are taken apart.
        filters: what to leave out.
        name: what to call the text in the log.
        cache: where it is kept.

    Returns:
        `corpus`, `line`, `source`, `input_ids` and, of pairs, `target` and `labels`.

    Raises:
        ValueError: a line is not what it should be, with file and line; or nothing is left, with the counts.
    """
    for corpus in corpora:
        corpus.check()
    root = Path(cache.folder or Path(datasets.config.HF_DATASETS_CACHE) / "hf_vanilla_transformer")
    key = _cache_key(corpora, tokenizer, text_format, filters)
    folder = root / key
    if not (folder / "counts.json").exists():
        _write_tokenized(folder, corpora, tokenizer, text_format, filters, name, cache.show_progress)
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
    text_format: TextFormat,
    filters: Filters,
    name: str,
    show_progress: bool,
) -> None:
    counts = FilterCounts()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all, also beside another run that does the same: written elsewhere, then renamed.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        written = Path(scratch) / "rows"
        written.mkdir()
        features = _TEXT_FEATURES if text_format.monolingual else _PAIR_FEATURES
        rows = tokenize_rows(read_corpora(corpora, text_format), tokenizer, filters, counts)
        with ArrowWriter(path=str(written / "rows.arrow"), features=features) as writer:
            for row in tqdm(rows, desc=f"Tokenising {name}", unit=" sentences", disable=not show_progress):
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
    text_format: TextFormat,
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
    what = [asdict(text_format), asdict(filters), _CACHE_VERSION]
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


__all__ = ["Cache", "column_lengths", "load_tokenized", "tokenize_rows"]
