"""Text that is read while training: corpora larger than the disk, as an endless stream of token batches."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from .batching import plan_batches
from .corpora import Corpus, Row, TextFormat, read_corpora
from .examples import MakeExample, example_lengths
from .filters import FilterCounts, Filters
from .tokenized import tokenize_rows

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
    """

    max_tokens: int
    shuffle_buffer: int = 50_000
    seed: int = 0
    num_processes: int = 1
    process_index: int = 0


class TokenBatchStream(torch.utils.data.IterableDataset):
    """An endless stream of batches by tokens (§5.1), of text that is read, filtered and tokenised on the way.

    Corpora are mixed sentence by sentence, in the proportion of their weights, each from its beginning again when it
    ends. `shuffle_buffer` examples at a time are put into batches by length, which come out shuffled. The same seed
    gives the same stream; processes and loader workers share the sentences out among themselves.

    Args:
        corpora: what to read.
        tokenizer: ends every side with `</s>`.
        text_format: how rows are taken apart.
        filters: what to leave out.
        options: how batches are made.
        make: as in `TrainingExamples`.
        collate: makes a batch of examples.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        tokenizer: PreTrainedTokenizerBase,
        text_format: TextFormat,
        filters: Filters,
        options: StreamOptions,
        make: MakeExample | None,
        collate: Any,
    ) -> None:
        self.corpora, self.tokenizer, self.text_format = corpora, tokenizer, text_format
        self.filters, self.options = filters, options
        self.make, self.collate = make, collate

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yields batches, without end.

        Raises:
            ValueError: nothing is left of a corpus after filtering; or as `read_corpora`.
        """
        filters, options, counts = self.filters, self.options, FilterCounts()
        # Two generators: all processes mix the corpora alike, however many batches each of them shuffles.
        mixing, shuffling = np.random.default_rng((options.seed, 0)), np.random.default_rng((options.seed, 1))
        rows = tokenize_rows(self._rows(mixing, counts), self.tokenizer, filters, counts)
        read = 0
        while True:
            buffer = []
            for index, row in enumerate(itertools.islice(rows, options.shuffle_buffer), start=read):
                made = row if self.make is None else {**row, **self.make(row, 0, index)}
                buffer.append({"input_ids": made["input_ids"], "labels": made["labels"], "index": index})
            read += len(buffer)
            (logger.warning if counts.kept < counts.read else logger.info)(counts.describe("stream", filters))
            sources, targets = example_lengths(buffer)
            batches = plan_batches(sources, targets, options.max_tokens)
            for position in shuffling.permutation(len(batches)):
                yield self.collate([buffer[index] for index in batches[position]])

    def _rows(self, random: np.random.Generator, counts: FilterCounts) -> Iterator[Row]:
        """The sentences of this process, and of this worker of its loader."""
        worker = torch.utils.data.get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        shares = self.options.num_processes * workers
        mine = self.options.process_index * workers + number
        streams = [self._endless(number, counts) for number in range(len(self.corpora))]
        weights = np.array([corpus.weight for corpus in self.corpora])
        limits = np.cumsum(weights / weights.sum())
        mixed = (next(streams[int(np.searchsorted(limits[:-1], random.random(), "right"))]) for _ in itertools.count())
        return itertools.islice(mixed, mine, None, shares)

    def _endless(self, number: int, counts: FilterCounts) -> Iterator[Row]:
        corpus = self.corpora[number]
        while True:
            rows = 0
            for row in read_corpora([corpus], self.text_format, streaming=True):
                rows += 1
                yield {**row, "corpus": number}
            if not rows:
                raise ValueError(f"no sentence in {corpus.name}")
            if not counts.kept and counts.read >= rows:
                raise ValueError(f"nothing is left to learn from. {counts.describe(corpus.name, self.filters)}")


__all__ = ["StreamOptions", "TokenBatchStream"]
