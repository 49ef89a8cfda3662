"""Text that is read while training: corpora larger than the disk, as an endless stream of token batches."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from .arguments import VanillaTransformerTrainingArguments
from .corpora import Corpus, Row
from .data import FilterCounts, Filters, MakeExample, example_lengths, read_corpora, tokenize_rows
from .token_batches import plan_batches

logger = logging.get_logger(__name__)


class TokenBatchStream(torch.utils.data.IterableDataset):
    """An endless stream of batches by tokens (§5.1), of text that is read, filtered and tokenised on the way.

    Corpora are mixed sentence by sentence, in the proportion of their weights, each from its beginning again when it
    ends. `shuffle_buffer` examples at a time are put into batches by length, which come out shuffled. The same seed
    gives the same stream; processes and loader workers share the sentences out among themselves.

    Args:
        corpora: what to read.
        tokenizer: ends every side with `</s>`.
        args: the run.
        make: as in `TrainingExamples`.
        collate: makes a batch of examples.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        tokenizer: PreTrainedTokenizerBase,
        args: VanillaTransformerTrainingArguments,
        make: MakeExample | None,
        collate: Any,
    ) -> None:
        self.corpora, self.tokenizer, self.args = corpora, tokenizer, args
        self.make, self.collate = make, collate

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yields batches, without end.

        Raises:
            ValueError: nothing is left of a corpus after filtering; or as `read_corpora`.
        """
        filters, counts = Filters.of(self.args), FilterCounts()
        # Two generators: all processes mix the corpora alike, however many batches each of them shuffles.
        mixing, shuffling = np.random.default_rng((self.args.seed, 0)), np.random.default_rng((self.args.seed, 1))
        rows = tokenize_rows(self._rows(mixing, counts), self.tokenizer, filters, counts)
        read = 0
        while True:
            buffer = []
            for index, row in enumerate(itertools.islice(rows, self.args.shuffle_buffer), start=read):
                made = row if self.make is None else {**row, **self.make(row, 0, index)}
                buffer.append({"input_ids": made["input_ids"], "labels": made["labels"], "index": index})
            read += len(buffer)
            (logger.warning if counts.kept < counts.read else logger.info)(counts.describe("stream", filters))
            sources, targets = example_lengths(buffer)
            batches = plan_batches(sources, targets, self.args.max_tokens)
            for position in shuffling.permutation(len(batches)):
                yield self.collate([buffer[index] for index in batches[position]])

    def _rows(self, random: np.random.Generator, counts: FilterCounts) -> Iterator[Row]:
        """The sentences of this process, and of this worker of its loader."""
        worker = torch.utils.data.get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        shares = self.args.world_size * workers
        mine = self.args.process_index * workers + number
        streams = [self._endless(number, counts) for number in range(len(self.corpora))]
        weights = np.array([corpus.weight for corpus in self.corpora])
        limits = np.cumsum(weights / weights.sum())
        mixed = (next(streams[int(np.searchsorted(limits[:-1], random.random(), "right"))]) for _ in itertools.count())
        return itertools.islice(mixed, mine, None, shares)

    def _endless(self, number: int, counts: FilterCounts) -> Iterator[Row]:
        corpus = self.corpora[number]
        while True:
            rows = 0
            for row in read_corpora([corpus], self.args, streaming=True):
                rows += 1
                yield {**row, "corpus": number}
            if not rows:
                raise ValueError(f"no sentence in {corpus.name}")
            if not counts.kept and counts.read >= rows:
                raise ValueError(
                    f"nothing is left to learn from. {counts.describe(corpus.name, Filters.of(self.args))}"
                )
