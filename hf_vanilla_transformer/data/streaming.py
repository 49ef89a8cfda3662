"""Text that is read while training: corpora larger than the disk, as an endless stream of token batches."""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from .batching import Batching, plan_batches
from .corpora import Corpus, Share, TextFormat, read_corpora
from .examples import COLUMNS, MakeExample, example_lengths
from .filters import FilterCounts, Filters
from .mixing import tempered_weights
from .rows import Row
from .tokenized import CHUNK, encode_columns

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class StreamOptions:
    """How a stream is made.

    Args:
        max_tokens: of a side of a batch, padding included (§5.1).
        shuffle_buffer: examples that are put into batches and shuffled together.
        seed: of mixing and shuffling.
        num_processes: processes that share the sentences.
        process_index: which of them this is.
        batching: "length" for pairs of similar length in a batch, "random" for any of the buffer.
    """

    max_tokens: int
    shuffle_buffer: int = 50_000
    seed: int = 0
    num_processes: int = 1
    process_index: int = 0
    batching: Batching = "length"


def corpus_shares(corpora: Sequence[Corpus], sizes: Sequence[int | None], temperature: float = 1.0) -> list[float]:
    """How large a part of a stream each corpus is: its weight times its size, as in an epoch of text in memory.

    Args:
        corpora: with their weights.
        sizes: sentences of each; None where it is not known.
        temperature: as of `tempered_weights`.

    Returns:
        Shares that add up to 1.

    Raises:
        ValueError: several corpora are to be mixed, and the size of one is not known.
    """
    if len(corpora) == 1:
        return [1.0]
    for corpus, size in zip(corpora, sizes, strict=True):
        if size is None:
            raise ValueError(
                f"{corpus.name} does not say how many sentences it has, on which its part of a stream of "
                f"{len(corpora)} corpora depends; add size=N to it"
            )
    known = [size or 0 for size in sizes]
    weights = tempered_weights([corpus.weight for corpus in corpora], known, temperature)
    counts = [weight * size for weight, size in zip(weights, known, strict=True)]
    return [count / sum(counts) for count in counts]


class TokenBatchStream(torch.utils.data.IterableDataset):
    """An endless stream of batches by tokens (§5.1), of text that is read, filtered and tokenised on the way.

    Processes and loader workers share the sentences of each corpus out among themselves, and each of them mixes its
    parts sentence by sentence in the given proportion, a part from its beginning again when it ends. `shuffle_buffer`
    examples at a time are put into batches, as `batching` says, which come out shuffled. The same seed gives the same
    stream.

    Args:
        corpora: what to read.
        shares: how large a part of the stream each is, as `corpus_shares` has it.
        tokenizer: ends every side with `</s>`.
        text_format: how rows are taken apart.
        filters: what to leave out; duplicates cannot be.
        options: how batches are made.
        make: as in `TrainingExamples`.
        collate: makes a batch of examples.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        shares: Sequence[float],
        tokenizer: PreTrainedTokenizerBase,
        text_format: TextFormat,
        filters: Filters,
        options: StreamOptions,
        make: MakeExample | None,
        collate: Any,
    ) -> None:
        self.corpora, self.shares = corpora, shares
        self.tokenizer, self.text_format = tokenizer, text_format
        self.filters, self.options = filters, options
        self.make, self.collate = make, collate

    def where(self, index: int) -> str:
        """Says where a sentence was read, for messages.

        Args:
            index: of a batch. It is the line times the number of corpora, plus the number of the corpus: batches are
                made by other processes, and bring along all that is known of them.

        Returns:
            Corpus and line. Rows of a dataset are counted by each reader, from 0, where several share it out.
        """
        line, number = divmod(index, len(self.corpora))
        corpus = self.corpora[number]
        return f"{corpus.name}, {'line' if corpus.dataset is None else 'row'} {line}"

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yields batches, without end; `index` of each example is for `where`.

        Raises:
            ValueError: nothing is left of a corpus after filtering; or as `read_corpora`.
        """
        worker = torch.utils.data.get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        if worker:
            # The threads of `tokenizers` did not survive the fork of this process, which would wait for them in vain.
            os.environ["TOKENIZERS_PARALLELISM"] = "false"
        options = self.options
        mine = Share(options.process_index * workers + number, options.num_processes * workers)
        counts = [FilterCounts() for _ in self.corpora]
        # Two generators: how sentences are mixed does not depend on how many batches were shuffled before.
        mixing, shuffling = (np.random.default_rng((options.seed, use, mine.index)) for use in range(2))
        rows = self._mixed([self._endless(number, mine, counts) for number in range(len(self.corpora))], mixing)
        read = 0
        while True:
            buffer = []
            for index, row in enumerate(itertools.islice(rows, options.shuffle_buffer), start=read):
                # Of all readers, so that no two of them draw the same noise.
                made = row if self.make is None else self.make(row, 0, index * mine.count + mine.index)
                place = row["line"] * len(self.corpora) + row["corpus"]
                buffer.append({name: made[name] for name in COLUMNS if name in made} | {"index": place})
            read += len(buffer)
            whole = sum(counts, start=FilterCounts())
            (logger.warning if whole.kept < whole.read else logger.info)(self.filters.describe("stream", whole))
            sources, targets = example_lengths(buffer)
            random = shuffling if options.batching == "random" else None
            batches = plan_batches(sources, targets, options.max_tokens, random=random)
            for position in shuffling.permutation(len(batches)):
                yield self.collate([buffer[index] for index in batches[position]])

    def _mixed(self, streams: list[Iterator[Row | None]], random: np.random.Generator) -> Iterator[Row]:
        """Draws among rows as they are read, those left out too: else a corpus of which few are kept is repeated."""
        limits = np.cumsum(self.shares)[:-1]
        while True:
            for draw in random.random(CHUNK):
                row = next(streams[int(np.searchsorted(limits, draw, "right"))])
                if row is not None:
                    yield row

    def _endless(self, number: int, mine: Share, counts: list[FilterCounts]) -> Iterator[Row | None]:
        """The rows of a corpus that are this reader's, with their ids, or None if left out, again and again."""
        corpus = self.corpora[number]
        while True:
            before = counts[number]
            rows = read_corpora([corpus], self.text_format, mine)
            while chunk := list(itertools.islice(rows, CHUNK)):
                columns = {name: [row[name] for row in chunk] for name in chunk[0]}
                made = encode_columns(
                    {side: columns[side] for side in ("source", "target") if side in columns},
                    self.tokenizer,
                    corpus.reversed,
                )
                lengths = [np.array(made[name]) for name in ("source_length", "target_length") if name in made]
                kept, more = self.filters.apply(lengths, np.array(made["blank"]))
                counts[number] += more  # before any of them is handed on: they add up whenever they are looked at
                ids = [name for name in ("input_ids", "labels") if name in made]
                is_kept = np.zeros(len(chunk), dtype=bool)
                is_kept[kept] = True
                for row, its in enumerate(chunk):
                    own: Row = {"corpus": number, **{name: made[name][row] for name in ids}}
                    yield {**its, **own} if is_kept[row] else None
            if counts[number].read == before.read:
                part = "" if mine.count == 1 else f" for reader {mine.index + 1} of {mine.count}"
                raise ValueError(f"no sentence in {corpus.name}{part}")
            if counts[number].kept == before.kept:
                raise ValueError(f"nothing is left to learn from. {self.filters.describe(corpus.name, counts[number])}")


__all__ = ["StreamOptions", "TokenBatchStream", "corpus_shares"]
