"""From text to token ids: each corpus is tokenised once and kept by its content, and filtered when it is used."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Dataset, Features, Value, concatenate_datasets
from datasets import Sequence as ListOf
from datasets.exceptions import DatasetGenerationError
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..tokenization_ids import text_to_ids
from .corpora import Corpus, TextFormat, read_corpora
from .filters import Filters
from .fingerprints import corpus_fingerprint, tokenizer_fingerprint
from .rows import Row

logger = logging.get_logger(__name__)

# Sentences that go through the tokenizer together.
CHUNK = 1000
# Fewer sentences are tokenised sooner than another process is started.
_SENTENCES_WORTH_A_PROCESS = 100_000
_MOST_PROCESSES = 8
# Part of the name under which tokenised text is kept; a new number makes older ones unknown.
_CACHE_VERSION = 4

# Folders of tokenised text that is not complete are called so, and were left by a kill where nothing of them is newer
# than so many seconds.
_UNFINISHED, _ABANDONED_AFTER = "unfinished-", 24 * 3600

_SIDES = {"source": ("input_ids", "source_length"), "target": ("labels", "target_length")}


@dataclass(frozen=True)
class Cache:
    """Where tokenised text is kept, and how it gets there.

    Args:
        folder: None for one below that of `datasets`.
        show_progress: whether to show a progress bar while it is filled.
        processes: how many tokenise at once; None for as many as the text is worth, up to 8.
    """

    folder: str | None = None
    show_progress: bool = True
    processes: int | None = None

    @property
    def root(self) -> Path:
        """The folder that has one folder for each tokenised corpus."""
        return Path(self.folder or Path(datasets.config.HF_DATASETS_CACHE) / "hf_vanilla_transformer")


def encode_columns(
    columns: Mapping[str, Sequence[str]], tokenizer: PreTrainedTokenizerBase, is_reversed: bool = False
) -> dict[str, list[Any]]:
    """Makes token ids of text, and what the filters look at.

    Args:
        columns: `source` and, of pairs, `target`: the texts.
        tokenizer: ends every side with `</s>`.
        is_reversed: whether the sources are what the tokenizer calls targets, and the other way round.

    Returns:
        `input_ids` and `source_length`; of pairs, `labels` and `target_length`; `blank`, whether a side has no visible
        character; `unknown`, how many tokens are `<unk>`; and `text_hash`, equal for equal texts.
    """
    sides = [side for side in _SIDES if side in columns]
    made: dict[str, list[Any]] = {}
    for side in sides:
        ids, length = _SIDES[side]
        made[ids] = text_to_ids(tokenizer, columns[side], as_target=(side == "target") != is_reversed)
        made[length] = [len(each) for each in made[ids]]
    rows = list(zip(*(columns[side] for side in sides), strict=True))
    made["blank"] = [not all(text.strip() for text in row) for row in rows]
    unknown = getattr(tokenizer, "unk_token_id", None)
    ids_of_rows = zip(*(made[_SIDES[side][0]] for side in sides), strict=True)
    made["unknown"] = [sum(ids.count(unknown) for ids in row) for row in ids_of_rows]
    made["text_hash"] = [_hash_text("\0".join(row)) for row in rows]
    return made


def load_tokenized(
    corpora: Sequence[Corpus],
    tokenizer: PreTrainedTokenizerBase,
    text_format: TextFormat,
    filters: Filters,
    name: str,
    cache: Cache = Cache(),
    fingerprints: Sequence[str] | None = None,
) -> Dataset:
    """Tokenises corpora into a memory-mapped dataset, or finds each where an earlier run kept it.

    A corpus is kept under a hash of its text, the tokenizer and the format, so that it cannot be stale, and neither
    other filters nor other corpora beside it make it new.

    Args:
        corpora: what to read.
        tokenizer: ends every side with `</s>`.
        text_format: how their rows are taken apart.
        filters: what to leave out.
        name: what to call the text in the log.
        cache: where it is kept.
        fingerprints: `corpus_fingerprint` of each corpus, where they are known.

    Returns:
        `corpus`, `line`, `source`, `input_ids` and `source_length` and, of pairs, `target`, `labels` and
        `target_length`.

    Raises:
        ValueError: a line is not what it should be, with file and line; a corpus has no text; or nothing is left,
            with the counts.
    """
    for corpus in corpora:
        corpus.check()
    known, parts = tokenizer_fingerprint(tokenizer), []
    for number, corpus in enumerate(corpora):
        fingerprint = corpus_fingerprint(corpus) if fingerprints is None else fingerprints[number]
        rows = _load_corpus(corpus, fingerprint, known, tokenizer, text_format, cache)
        if np.all(rows.with_format("numpy")["blank"][:]):
            what = "lines are blank" if text_format.monolingual else "pairs have an empty side"
            raise ValueError(f"nothing to learn from in {corpus.name}: all of its {len(rows)} {what}")
        parts.append(rows.add_column("corpus", np.full(len(rows), number, dtype=np.int32)))
    whole = concatenate_datasets(parts)
    numbers = whole.with_format("numpy")
    if unknown := int(numbers["unknown"][:].sum()):
        logger.warning(f"{name}: {unknown} tokens are {tokenizer.unk_token}, for what the tokenizer does not know")
    hashes = numbers["text_hash"][:] if filters.drop_duplicates else None
    kept, counts = filters.apply(
        [lengths for lengths in row_lengths(whole) if len(lengths)], numbers["blank"][:], hashes
    )
    message = filters.describe(name, counts)
    if not counts.kept:
        names = ", ".join(corpus.name for corpus in corpora)
        raise ValueError(f"nothing is left to learn from in {names}. {message}")
    (logger.warning if counts.kept < counts.read else logger.info)(message)
    whole = whole.remove_columns(["blank", "text_hash", "unknown"])
    return whole if counts.kept == counts.read else whole.select(kept)


def row_lengths(rows: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens each row has, without reading the tokens.

    Args:
        rows: as `load_tokenized` returns them, or some of them.

    Returns:
        Tokens of each source, and of each target; none where there are no targets.
    """
    numbers = rows.with_format("numpy")
    columns = [name for _, name in _SIDES.values()]
    sources, targets = (
        np.asarray(numbers[name][:] if name in rows.column_names else [], dtype=np.int64) for name in columns
    )
    return sources, targets


def is_tokenized(fingerprint: str, tokenizer: PreTrainedTokenizerBase, text_format: TextFormat, cache: Cache) -> bool:
    """Says whether a corpus was tokenised before, so that `load_tokenized` will soon be done with it.

    Args:
        fingerprint: `corpus_fingerprint` of the corpus.
        tokenizer: as for `load_tokenized`.
        text_format: likewise.
        cache: likewise.
    """
    return _folder(fingerprint, tokenizer_fingerprint(tokenizer), text_format, cache).exists()


def _folder(fingerprint: str, tokenizer_key: str, text_format: TextFormat, cache: Cache) -> Path:
    what = json.dumps([fingerprint, tokenizer_key, asdict(text_format), _CACHE_VERSION])
    return cache.root / hashlib.sha256(what.encode()).hexdigest()[:32]


def _load_corpus(
    corpus: Corpus,
    fingerprint: str,
    tokenizer_key: str,
    tokenizer: PreTrainedTokenizerBase,
    text_format: TextFormat,
    cache: Cache,
) -> Dataset:
    folder = _folder(fingerprint, tokenizer_key, text_format, cache)
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(folder.parent)
        # Whole or not at all, also beside another run that does the same: written elsewhere, then renamed.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=_UNFINISHED) as scratch:
            (written := Path(scratch) / "rows").mkdir()
            with without_progress_bars(not cache.show_progress):
                _write_corpus(written, Path(scratch), corpus, tokenizer, text_format, cache.processes)
            try:
                os.rename(written, folder)
            except OSError:
                if not folder.exists():
                    raise
    return concatenate_datasets([Dataset.from_file(str(path)) for path in sorted(folder.glob("*.arrow"))])


def _remove_unfinished(root: Path) -> None:
    """Removes what killed processes left. What one still works on, on this machine or another, it writes steadily."""
    for scratch in root.glob(f"{_UNFINISHED}*"):
        try:
            newest = max(path.stat().st_mtime for path in (scratch, *scratch.rglob("*")))
        except OSError:  # its process is done with it just now
            continue
        if newest < time.time() - _ABANDONED_AFTER:
            shutil.rmtree(scratch, ignore_errors=True)


def _write_corpus(
    folder: Path,
    scratch: Path,
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    text_format: TextFormat,
    processes: int | None,
) -> None:
    texts = {side: Value("string") for side in (["source"] if text_format.monolingual else ["source", "target"])}
    features = Features({"line": Value("int64"), **texts})
    try:
        rows = Dataset.from_generator(
            _read_corpus,
            features=features,
            cache_dir=str(scratch / "text"),
            gen_kwargs={"corpus": corpus, "text_format": text_format},
        )
    except DatasetGenerationError as error:
        # `datasets` says that something went wrong; its cause says what, in which line of which file.
        raise error.__cause__ or error from None
    made = {"blank": Value("bool"), "text_hash": Value("int64"), "unknown": Value("int32")}
    for side in texts:
        ids, length = _SIDES[side]
        made |= {ids: ListOf(Value("int32")), length: Value("int32")}
    rows.map(
        _encode_chunk,
        batched=True,
        batch_size=CHUNK,
        input_columns=list(texts),
        features=Features({**features, **made}),
        fn_kwargs={"sides": list(texts), "tokenizer": tokenizer, "is_reversed": corpus.reversed},
        num_proc=processes_for(len(rows), processes),  # of which `datasets` lets none start threads of `tokenizers`
        cache_file_name=str(folder / "rows.arrow"),
        new_fingerprint="rows",
        desc=f"Tokenising {corpus.name}",
    )


def _read_corpus(corpus: Corpus, text_format: TextFormat) -> Iterator[Row]:
    row = None
    for row in read_corpora([corpus], text_format):
        del row["corpus"]
        yield row
    if row is None:
        raise ValueError(f"no sentence in {corpus.name}")


def _encode_chunk(
    *texts: Sequence[str], sides: list[str], tokenizer: PreTrainedTokenizerBase, is_reversed: bool
) -> dict[str, list[Any]]:
    made = encode_columns(dict(zip(sides, texts, strict=True)), tokenizer, is_reversed)
    # As arrays they are written in half the time of lists.
    return made | {
        ids: [np.asarray(each, dtype=np.int32) for each in made[ids]] for ids, _ in _SIDES.values() if ids in made
    }


def usable_cores() -> int:
    """How many cores this process may use: its share of them, where a launcher started several processes here."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1)


def processes_for(sentences: int, wanted: int | None) -> int | None:
    """How many processes go through sentences together.

    Args:
        sentences: how many there are.
        wanted: how many processes are wanted; None for as many as have enough to do, up to 8 and the cores there are.

    Returns:
        Their number as `datasets` has it: None for this process alone.
    """
    if wanted is None:
        wanted = min(_MOST_PROCESSES, usable_cores(), sentences // _SENTENCES_WORTH_A_PROCESS)
    number = min(wanted, sentences)
    return number if number > 1 else None


def _hash_text(text: str) -> int:
    # Eight bytes a pair, not its text. Of 40 million pairs, two different ones are equal with a chance of 1 in 20,000.
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


@contextmanager
def without_progress_bars(hidden: bool = True) -> Iterator[None]:
    """Hides the progress bars of `datasets` for a while.

    Args:
        hidden: False leaves them as they are.
    """
    were_shown = datasets.utils.logging.is_progress_bar_enabled()
    if hidden:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if were_shown:
            datasets.enable_progress_bars()


__all__ = [
    "CHUNK",
    "Cache",
    "encode_columns",
    "is_tokenized",
    "load_tokenized",
    "processes_for",
    "row_lengths",
    "usable_cores",
    "without_progress_bars",
]
