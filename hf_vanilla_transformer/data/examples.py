"""What one epoch makes of a row: the pair as it is, cut anew by BPE-dropout, or text with holes to fill."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from .bpe_dropout import BpeDropout
from .corpora import Corpus, Row
from .span_corruption import span_corruption, span_corruption_lengths
from .tokenization import sentinel_ids
from .tokenized import column_lengths

# (row, epoch, index) -> `input_ids` and `labels`
MakeExample = Callable[[Row, int, int], dict[str, list[int]]]


@dataclass(frozen=True)
class Noise:
    """What is changed in a row each time it is learned from.

    Args:
        bpe_dropout: probability of leaving out a merge; 0 is off.
        span_corruption: whether spans of a monolingual text become its target.
        noise_density: share of the tokens that span corruption takes out.
        mean_span_length: tokens of a span, in the mean.
        seed: of the randomness.
    """

    bpe_dropout: float = 0.0
    span_corruption: bool = False
    noise_density: float = 0.15
    mean_span_length: float = 3.0
    seed: int = 0


def example_maker(noise: Noise, tokenizer: PreTrainedTokenizerBase) -> MakeExample | None:
    """Builds what makes an example of a row. The same epoch and index give the same example on every run.

    Args:
        noise: what is changed in it.
        tokenizer: of the rows.

    Returns:
        A function of (row, epoch, index); None where rows are learned from as they are.

    Raises:
        ValueError: span_corruption without sentinel tokens; or BPE-dropout of a tokenizer that is no BPE.
    """
    if noise.span_corruption:
        return partial(
            _corrupted,
            seed=noise.seed,
            sentinels=_sentinels(tokenizer),
            end=tokenizer.eos_token_id,
            noise=(noise.noise_density, noise.mean_span_length),
        )
    if noise.bpe_dropout:
        return partial(_cut_anew, seed=noise.seed, dropout=BpeDropout(tokenizer, noise.bpe_dropout))
    return None


def planned_lengths(noise: Noise, rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """How long the examples of rows are, for the planning of batches.

    Args:
        noise: what is changed in them.
        rows: as `load_tokenized` returns them.
        tokenizer: of the rows.

    Returns:
        Tokens of each source, and of each target. With BPE-dropout, which makes sentences longer by chance, those
        without it: such batches hold somewhat more tokens than planned.
    """
    sources = column_lengths(rows, "input_ids")
    if noise.span_corruption:
        return span_corruption_lengths(
            sources - 1, len(_sentinels(tokenizer)), noise.noise_density, noise.mean_span_length
        )
    return sources, column_lengths(rows, "labels")


def _corrupted(
    row: Row, epoch: int, index: int, seed: int, sentinels: list[int], end: int, noise: tuple[float, float]
) -> dict[str, list[int]]:
    random = np.random.default_rng((seed, epoch, index))
    source, target = span_corruption(row["input_ids"][:-1], sentinels, random, *noise, eos_token_id=end)
    return {"input_ids": source, "labels": target}


def _cut_anew(row: Row, epoch: int, index: int, seed: int, dropout: BpeDropout) -> dict[str, list[int]]:
    random = np.random.default_rng((seed, epoch, index))
    return {"input_ids": dropout.encode(row["source"], random), "labels": dropout.encode(row["target"], random)}


def _sentinels(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    sentinels = sentinel_ids(tokenizer)
    if not sentinels:
        raise ValueError("span_corruption needs a tokenizer with sentinel tokens; set num_sentinels when it is trained")
    return sentinels


class TrainingExamples(torch.utils.data.Dataset):
    """Tokenised rows as what one epoch learns from: the pair itself, or made anew out of it every epoch.

    Args:
        rows: as `load_tokenized` returns them; or any with `input_ids` and `labels`, each ended by `</s>`.
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


__all__ = ["MakeExample", "Noise", "TrainingExamples", "example_lengths", "example_maker", "planned_lengths"]
