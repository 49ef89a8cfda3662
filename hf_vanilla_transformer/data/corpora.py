"""Text to learn from, wherever it lies: parallel files, TSV, jsonl, the Hub; read in order, checked line by line."""

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, TypeVar

from datasets import load_dataset, load_dataset_builder
from datasets.distributed import split_dataset_by_node

from ..tokenization_tags import tag_tokens, tagged
from .rows import Row, json_rows, pair_of, text_of
from .text_files import OnError, read_lines, require_text_file

_T = TypeVar("_T")
# What the columns of a table of sentence pairs are called.
_COLUMN_NAMES = {"source", "target", "src", "tgt", "trg", "input", "output", "sentence", "translation", "reference"}
_LANGUAGE = re.compile(r"[a-z]{2}([-_][a-z]{2,4})?")
_ROWS_AT_ONCE = 1000  # of a dataset that is streamed


@dataclass(frozen=True)
class TextFormat:
    """How the rows of corpora are taken apart.

    Args:
        source_lang: key of the source in jsonl and dataset rows.
        target_lang: key of the target.
        monolingual: whether the text is sentences by themselves rather than pairs.
    """

    source_lang: str = "en"
    target_lang: str = "de"
    monolingual: bool = False


@dataclass(frozen=True)
class Share:
    """Which part of a corpus a reader gets, where several share it out: together they read each sentence once.

    Of files, it is every `count`-th sentence. Of a dataset, it is whole shards where their number is a multiple of
    `count`, so that each is downloaded by one reader, or else every `count`-th row.

    Args:
        index: which of the readers it is, from 0.
        count: how many readers there are.
    """

    index: int = 0
    count: int = 1


@dataclass(frozen=True)
class Corpus:
    """One body of text: a file, two parallel files, or a dataset.

    Args:
        path: a .jsonl or .tsv file of pairs, or one of monolingual text; .gz of each too.
        source: plain text, one sentence a line.
        target: line N translates line N of `source`.
        dataset: name of a dataset on the Hub, or a folder that `datasets` can load.
        config: its configuration.
        split: its split.
        weight: how many times each of its sentences counts in an epoch: 2 is twice, 0.5 every other sentence.
        size: how many sentences a dataset has, where several corpora are streamed and its description does not say.
        tag: what to put in front of each source, such as `2de`, for `<2de>`; or several, separated by spaces.
        reversed: whether source and target change places: the second column of a .tsv file is then the source.

    Raises:
        ValueError: not exactly one kind of text is named, weight or size are no numbers above 0, a tag is empty, or a
            file has a config or split.
    """

    path: str | None = None
    source: str | None = None
    target: str | None = None
    dataset: str | None = None
    config: str | None = None
    split: str | None = None
    weight: float = 1.0
    size: int | None = None
    tag: str | None = None
    reversed: bool = False

    def __post_init__(self) -> None:
        named = [name for name in ("path", "source", "dataset") if getattr(self, name)]
        if len(named) != 1 or (self.source is None) != (self.target is None):
            raise ValueError("a corpus is a file, source=FILE,target=FILE, or dataset=NAME, and one of these only")
        if not 0 < self.weight < math.inf:
            raise ValueError(f"the weight of a corpus is a number above 0, and not {self.weight}")
        if self.size is not None and (self.size < 1 or self.dataset is None):
            raise ValueError(
                f"the size of a corpus is a number of sentences, and only for a dataset; it cannot be {self.size} here"
            )
        for name in ("config", "split"):
            if getattr(self, name) is not None and self.dataset is None:
                raise ValueError(f"{name}={getattr(self, name)} chooses a part of a dataset, and a file has no parts")
        if self.tag is not None:
            tag_tokens(self.tag)

    @classmethod
    def parse(cls, description: "str | Mapping[str, Any] | Corpus") -> "Corpus":
        """Reads a corpus as options and recipes name it.

        Args:
            description: a path, `path,weight=2`, `key=value,key=value`, or a mapping of the same keys.

        Returns:
            The corpus.

        Raises:
            ValueError: a key is none of the fields, or they do not fit together.
        """
        if isinstance(description, Corpus):
            return description
        if isinstance(description, str):
            parts = [part.partition("=") for part in description.split(",")]
            if len(parts) == 1 and not parts[0][1]:
                return cls(path=description)
            if not parts[0][1]:  # FILE,weight=2
                parts[0] = ("path", "=", parts[0][0])
            text = description
            description = {key.strip(): value.strip() for key, _, value in parts}
        else:
            text = str(dict(description))
        names = [field.name for field in fields(cls)]
        for key in description:
            if key not in names:
                close = difflib.get_close_matches(str(key), names, n=1)
                hint = f"; did you mean {close[0]}?" if close else f"; a corpus has {', '.join(names)}"
                raise ValueError(f"{text}: unknown key {key!r}{hint}")
        given = {key: value for key, value in description.items() if value is not None}  # YAML's `key:` is None
        for key, value in given.items():
            if isinstance(value, list | tuple | dict):
                hint = "; several tags are one text, separated by spaces" if key == "tag" else ""
                raise ValueError(f"{text}: {key} is one value, and not {value!r}{hint}")
        texts = {key: str(value) for key, value in given.items() if key not in ("weight", "size", "reversed")}
        try:
            size = int(given["size"]) if "size" in given else None
            is_reversed = str(given.get("reversed", False)).lower()
            if is_reversed not in ("true", "false"):
                raise ValueError(f"reversed is true or false, and not {is_reversed}")
            return cls(weight=float(given.get("weight", 1.0)), size=size, reversed=is_reversed == "true", **texts)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{text}: {error}") from error

    @property
    def name(self) -> str:
        """What to call it in messages."""
        if self.dataset is not None:
            return "/".join(filter(None, (self.dataset, self.config, self.split)))
        return self.path or f"{self.source} and {self.target}"

    @property
    def files(self) -> list[str]:
        """The files that it is read from; none for a dataset."""
        return [path for path in (self.path, self.source, self.target) if path is not None]

    def read_pairs(self, source_lang: str, target_lang: str, share: Share | None = None) -> Iterator[Row]:
        """Reads sentence pairs in their order.

        Args:
            source_lang: key of the source in jsonl and dataset rows.
            target_lang: key of the target.
            share: which part to read, a dataset without downloading it first; None for the whole.

        Yields:
            `line`, `source` and `target`, as `reversed` and `tag` have them.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a line or row is not what it should be; the message names file and line.
        """
        rows = self._pairs(source_lang, target_lang, share)
        if not self.reversed and self.tag is None:
            return rows
        names = ("target", "source") if self.reversed else ("source", "target")
        tags = [] if self.tag is None else tag_tokens(self.tag)
        return ({**row, "source": tagged(row[names[0]], tags), "target": row[names[1]]} for row in rows)

    def _pairs(self, source_lang: str, target_lang: str, share: Share | None) -> Iterator[Row]:
        if self.source is not None and self.target is not None:
            return _part(parallel_lines(self.source, self.target), share)
        if self.dataset is not None:
            rows = self._dataset_rows(share)
            return (
                pair_of(row, number, f"{self.name}, row {number}", source_lang, target_lang) for number, row in rows
            )
        assert self.path is not None
        kind = _kind(self.path)
        if kind == ".tsv":
            return _part(tab_separated(read_lines(self.path), self.path), share)
        if kind == ".jsonl":
            rows = _part(json_rows(self.path), share)
            return (
                pair_of(row, number, f"{self.path}, line {number}", source_lang, target_lang) for number, row in rows
            )
        raise ValueError(
            f"{self.path} has no pairs: give a .jsonl or .tsv file, or source=FILE,target=FILE for plain text"
        )

    def read_texts(self, share: Share | None = None) -> Iterator[Row]:
        """Reads monolingual text: plain lines, or the key `text` of jsonl and dataset rows.

        Args:
            share: as in `read_pairs`.

        Yields:
            `line` and `source`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is parallel text, or a row has no text; the message says where.
        """
        if self.source is not None or (self.path is not None and _kind(self.path) == ".tsv"):
            raise ValueError(
                f"{self.name}: parallel text, where this objective learns from plain text, one text at a time; "
                "name each file as a corpus of its own"
            )
        if self.tag is not None or self.reversed:
            raise ValueError(f"{self.name}: tag and reversed are for pairs; leave them away for plain text")
        if self.dataset is not None:
            return (text_of(row, number, f"{self.name}, row {number}") for number, row in self._dataset_rows(share))
        assert self.path is not None
        if _kind(self.path) == ".jsonl":
            rows = _part(json_rows(self.path), share)
            return (text_of(row, number, f"{self.path}, line {number}") for number, row in rows)
        lines = _part(enumerate(read_lines(self.path), start=1), share)
        return ({"line": number, "source": line} for number, line in lines)

    def count_sentences(self) -> int | None:
        """Counts the sentences without keeping any: the lines of a file, or what a dataset says of itself.

        Returns:
            Their number; None for a dataset that does not say, and has no `size` given.

        Raises:
            ValueError: as `read_lines`.
        """
        if self.dataset is None:
            path = self.files[0]
            # A blank line is a sentence that is filtered, but in jsonl none.
            return sum(1 for line in read_lines(path) if _kind(path) != ".jsonl" or line.strip())
        if self.size is not None:
            return self.size
        split = (load_dataset_builder(self.dataset, self.config).info.splits or {}).get(self.split)
        return None if split is None else split.num_examples

    def check(self) -> None:
        """Refuses files that cannot be read, before anything long begins.

        Raises:
            FileNotFoundError: there is no such file.
            IsADirectoryError: it is a directory.
        """
        for path in self.files:
            require_text_file(path)

    def header(self, text_format: TextFormat) -> str | None:
        """Looks whether the first line of a .tsv file names its columns, which would be learned as a pair.

        Args:
            text_format: the languages that may be named.

        Returns:
            What to say of it; None where the line is none, or this is no .tsv file.
        """
        if self.path is None or _kind(self.path) != ".tsv":
            return None
        names = {*_COLUMN_NAMES, text_format.source_lang.lower(), text_format.target_lang.lower()}
        cells = [cell.strip().lower() for cell in next(read_lines(self.path), "").split("\t")]
        if len(cells) != 2 or cells[0] == cells[1] or not all(c in names or _LANGUAGE.fullmatch(c) for c in cells):
            return None
        return (
            f"{self.path}, line 1: {cells[0]!r} and {cells[1]!r} look like names of columns; they are learned as a "
            "sentence pair. Remove the line if it is not one"
        )

    def _dataset_rows(self, share: Share | None) -> Iterator[tuple[int, Any]]:
        rows = load_dataset(self.dataset, self.config, split=self.split, streaming=share is not None)
        if share is None:
            return enumerate(rows)
        rows = split_dataset_by_node(rows, rank=share.index, world_size=share.count)
        # Plain iteration would share the rows out once more among the workers of a loader.
        return enumerate(
            dict(zip(columns, values, strict=True))
            for columns in rows.iter(batch_size=_ROWS_AT_ONCE)
            for values in zip(*columns.values(), strict=True)
        )


def read_corpora(corpora: Sequence[Corpus], text_format: TextFormat, share: Share | None = None) -> Iterator[Row]:
    """Reads corpora one after the other: pairs, or monolingual text.

    Args:
        corpora: what to read.
        text_format: how their rows are taken apart.
        share: which part of each to read, datasets without downloading them first; None for the whole.

    Yields:
        `corpus` (its number), `line`, `source` and, of pairs, `target`.

    Raises:
        ValueError: a line is not what it should be; the message names file and line.
    """
    for number, corpus in enumerate(corpora):
        if text_format.monolingual:
            rows = corpus.read_texts(share)
        else:
            rows = corpus.read_pairs(text_format.source_lang, text_format.target_lang, share)
        for row in rows:
            yield {"corpus": number, **row}


def _part(rows: Iterable[_T], share: Share | None) -> Iterator[_T]:
    return iter(rows) if share is None else islice(rows, share.index, None, share.count)


def _kind(path: str) -> str:
    return Path(path.removesuffix(".gz")).suffix


def parallel_lines(source_path: str, target_path: str, on_error: OnError | None = None) -> Iterator[Row]:
    """Reads two files of which line N of one translates line N of the other, side by side.

    Args:
        source_path: plain text, one sentence a line.
        target_path: likewise.
        on_error: as in `read_lines`.

    Yields:
        `line`, `source` and `target`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one file ends before the other, or a line is no text; the message names file and line.
    """
    sources, targets = (read_lines(path, on_error=on_error) for path in (source_path, target_path))
    for number, (source, target) in enumerate(zip_longest(sources, targets), start=1):
        if source is None or target is None:
            short, long = (source_path, target_path) if source is None else (target_path, source_path)
            rest = sum(1 for _ in (targets if source is None else sources))
            raise ValueError(
                f"{short} ends after {number - 1} lines, but {long} has {number + rest}; "
                "line N of one must translate line N of the other"
            )
        yield {"line": number, "source": source, "target": target}


def tab_separated(lines: Iterable[str], name: str, on_error: OnError | None = None) -> Iterator[Row]:
    """Takes lines of SOURCE<tab>TARGET apart.

    Args:
        lines: without their ends.
        name: what to call the text in messages.
        on_error: called for each line that has not two columns, with its number, from 1, and what is wrong; if it
            returns, the line is a pair of empty texts. None raises the error.

    Yields:
        `line`, `source` and `target`.

    Raises:
        ValueError: a line has not two columns; the message names it.
    """
    for number, line in enumerate(lines, start=1):
        columns = line.split("\t")
        if len(columns) != 2:
            found = "1 column" if len(columns) == 1 else f"{len(columns)} columns"
            error = ValueError(f"{name}, line {number}: expected SOURCE<tab>TARGET, got {found}")
            if on_error is None:
                raise error
            on_error(number, error)
            columns = ["", ""]
        yield {"line": number, "source": columns[0], "target": columns[1]}
