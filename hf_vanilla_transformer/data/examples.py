"""What one epoch makes of a row: the pair as it is, cut anew by BPE-dropout, or what is learned of plain text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Value
from transformers import PreTrainedTokenizerBase

from .bpe_dropout import BpeDropout
from .corpora import Corpus
from .noise import PlainTextObjective, plain_text_objective
from .rows import Row
from .tokenized import CHUNK, processes_for, row_lengths, without_progress_bars

# (row, epoch, index) -> what is made of a row: some of `COLUMNS`
MakeExample = Callable[[Row, int, int], dict[str, Any]]
# epoch -> tokens of each source, and of each target
LengthsInEpoch = Callable[[int], tuple[np.ndarray, np.ndarray]]
# What a model may be given of an example; `prefix_length` is for prefix language models only.
COLUMNS = ("input_ids", "labels", "prefix_length")


@dataclass(frozen=True)
class Noise:
    """What is changed in a row each time it is learned from.

    Args:
        bpe_dropout: probability of leaving out a merge; 0 is off.
        objective: what is learned: "translation", or the name of a `plain_text_objective`.
        noise_density: as of `plain_text_objective`.
        mean_span_length: likewise.
        denoising_steps: likewise.
        seed: of the randomness.
        max_positions: the most tokens that BPE-dropout may cut a side into, which is left whole where they would be
            more; None for any number.
    """

    bpe_dropout: float = 0.0
    objective: str = "translation"
    noise_density: float = 0.15
    mean_span_length: float = 3.0
    denoising_steps: Sequence[str] = ("text_infilling",)
    seed: int = 0
    max_positions: int | None = None

    def objective_for(self, tokenizer: PreTrainedTokenizerBase) -> PlainTextObjective | None:
        """Builds what makes examples of plain text; None for translation.

        Args:
            tokenizer: of the text.

        Raises:
            ValueError: as `plain_text_objective`.
        """
        if self.objective == "translation":
            return None
        return plain_text_objective(
            self.objective, tokenizer, self.noise_density, self.mean_span_length, self.denoising_steps
        )


def example_maker(noise: Noise, tokenizer: PreTrainedTokenizerBase) -> MakeExample | None:
    """Builds what makes an example of a row. The same epoch and index give the same example on every run.

    Args:
        noise: what is changed in it.
        tokenizer: of the rows.

    Returns:
        A function of (row, epoch, index); None where rows are learned from as they are.

    Raises:
        ValueError: the tokenizer lacks a token that the objective needs; or BPE-dropout of one that is no BPE.
    """
    if (objective := noise.objective_for(tokenizer)) is not None:
        return partial(_of_plain_text, seed=noise.seed, objective=objective)
    if noise.bpe_dropout:
        dropout = BpeDropout(tokenizer, noise.bpe_dropout)
        return partial(_cut_anew, seed=noise.seed, dropout=dropout, limit=noise.max_positions)
    return None


def planned_lengths(
    noise: Noise, rows: Dataset, tokenizer: PreTrainedTokenizerBase, processes: int | None = None
) -> LengthsInEpoch | tuple[np.ndarray, np.ndarray]:
    """How long the examples of rows are, for the planning of batches.

    Args:
        noise: what is changed in them.
        rows: as `load_tokenized` returns them.
        tokenizer: of the rows.
        processes: how many cut at once where all text has to be cut for it; None for as many as it is worth.

    Returns:
        Tokens of each source, and of each target. With BPE-dropout they are others in each epoch, and what is returned
        is a function of the epoch: all text is cut once for its lengths before it is cut for learning. Nothing less
        will do: how long a sentence comes out varies so much that its mean length plans hardly better than the length
        without dropout (30 % and 32 % of padding, where it is 4 % with the lengths themselves).
    """
    sources, targets = row_lengths(rows)
    if (objective := noise.objective_for(tokenizer)) is not None:
        return objective.lengths(sources - 1)
    if (make := example_maker(noise, tokenizer)) is not None:
        return lru_cache(maxsize=1)(partial(_lengths_in_epoch, rows=rows, make=make, processes=processes))
    return sources, targets


def _lengths_in_epoch(
    epoch: int, rows: Dataset, make: MakeExample, processes: int | None
) -> tuple[np.ndarray, np.ndarray]:
    with without_progress_bars():
        lengths = rows.map(
            _lengths_of_chunk,
            batched=True,
            batch_size=CHUNK,
            with_indices=True,
            remove_columns=rows.column_names,
            fn_kwargs={"epoch": epoch, "make": make},
            features=Features({"source_length": Value("int32"), "target_length": Value("int32")}),
            num_proc=processes_for(len(rows), processes),
            keep_in_memory=True,
            load_from_cache_file=False,
            new_fingerprint=f"epoch-{epoch}",
        )
    return row_lengths(lengths)


def _lengths_of_chunk(
    columns: dict[str, list[Any]], indices: list[int], epoch: int, make: MakeExample
) -> dict[str, list[int]]:
    made = [make(row, epoch, index) for row, index in zip(_as_rows(columns), indices, strict=True)]
    return {
        "source_length": [len(each["input_ids"]) for each in made],
        "target_length": [len(each["labels"]) for each in made],
    }


def _as_rows(columns: dict[str, list[Any]]) -> list[Row]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _of_plain_text(row: Row, epoch: int, index: int, seed: int, objective: PlainTextObjective) -> dict[str, Any]:
    return objective(row["input_ids"][:-1], np.random.default_rng((seed, epoch, index)))


def _cut_anew(
    row: Row, epoch: int, index: int, seed: int, dropout: BpeDropout, limit: int | None
) -> dict[str, list[int]]:
    random = np.random.default_rng((seed, epoch, index))
    made = {"input_ids": dropout.encode(row["source"], random), "labels": dropout.encode(row["target"], random, True)}
    if limit is not None:
        made = {name: ids if len(ids) <= limit else row[name] for name, ids in made.items()}
    return made


class TrainingExamples(torch.utils.data.Dataset):
    """Tokenised rows as what one epoch learns from: the pair itself, or made anew out of it every epoch.

    Args:
        rows: as `load_tokenized` returns them; or any with `input_ids` and `labels`, each ended by `</s>`.
        corpora: where the rows come from.
        make: what makes `COLUMNS` of a row in an epoch; None leaves a row as it is.
    """

    def __init__(self, rows: Dataset, corpora: Sequence[Corpus] = (), make: MakeExample | None = None) -> None:
        self.rows, self.corpora, self.make = rows, corpora, make
        # Without the text, and not as Python numbers one by one: batches are made while a device waits for them.
        self._ids = None if make is not None else rows.select_columns(["input_ids", "labels"]).with_format("arrow")

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        """Says where a row was read, for messages.

        Args:
            index: of the row.

        Returns:
            Corpus and line; the number of the row, where it was not read from a corpus.
        """
        row = self.rows[index]
        if "corpus" not in row:
            return f"row {index}"
        name = self.corpora[row["corpus"]].name if self.corpora else f"corpus {row['corpus']}"
        return f"{name}, line {row['line']}"

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[dict[str, Any]]:
        """Gets the rows of a batch.

        Args:
            keys: (epoch, index) of each, as a `TokenBatchSampler` gives them.

        Returns:
            `COLUMNS`, lists or arrays, and `index` of each.
        """
        indices = [index for _, index in keys]
        if self.make is None:
            assert self._ids is not None
            table = self._ids[indices]
            sides = (_arrays(table.column(name)) for name in ("input_ids", "labels"))
            return [
                {"input_ids": source, "labels": target, "index": index}
                for source, target, index in zip(*sides, indices, strict=True)
            ]
        rows = _as_rows(self.rows[indices])
        return [
            {**self.make(row, epoch, index), "index": index} for row, (epoch, index) in zip(rows, keys, strict=True)
        ]


def _arrays(column: Any) -> list[np.ndarray]:
    """The lists of an Arrow column as arrays, which share its memory."""
    lists = column.combine_chunks()
    values, bounds = lists.values.to_numpy(zero_copy_only=False), lists.offsets.to_numpy().tolist()
    return [values[start:stop] for start, stop in pairwise(bounds)]


def example_lengths(examples: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Counts the tokens of examples in memory.

    Args:
        examples: each with `input_ids` and `labels`.

    Returns:
        Tokens of each source, and of each target.
    """
    sources = np.array([len(example["input_ids"]) for example in examples], dtype=np.int64)
    return sources, np.array([len(example["labels"]) for example in examples], dtype=np.int64)


__all__ = [
    "COLUMNS",
    "LengthsInEpoch",
    "MakeExample",
    "Noise",
    "TrainingExamples",
    "example_lengths",
    "example_maker",
    "planned_lengths",
]
