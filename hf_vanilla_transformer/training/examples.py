"""What one epoch makes of a row: the pair as it is, cut anew by BPE-dropout, or text with holes to fill."""

from functools import partial

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from .arguments import VanillaTransformerTrainingArguments
from .bpe_dropout import BpeDropout
from .corpora import Row
from .data import MakeExample, column_lengths
from .objectives import span_corruption, span_corruption_lengths
from .tokenization import sentinel_ids


def example_maker(args: VanillaTransformerTrainingArguments, tokenizer: PreTrainedTokenizerBase) -> MakeExample | None:
    """Builds what makes an example of a row. The same epoch and index give the same example on every run.

    Args:
        args: the run; gives objective, `bpe_dropout` and seed.
        tokenizer: of the rows.

    Returns:
        A function of (row, epoch, index); None where rows are learned from as they are.

    Raises:
        ValueError: span_corruption without sentinel tokens; or BPE-dropout of a tokenizer that is no BPE.
    """
    if args.objective == "span_corruption":
        return partial(
            _corrupted,
            seed=args.seed,
            sentinels=_sentinels(tokenizer),
            end=tokenizer.eos_token_id,
            noise=(args.noise_density, args.mean_span_length),
        )
    if args.bpe_dropout:
        return partial(_cut_anew, seed=args.seed, dropout=BpeDropout(tokenizer, args.bpe_dropout))
    return None


def planned_lengths(
    args: VanillaTransformerTrainingArguments, rows: Dataset, tokenizer: PreTrainedTokenizerBase
) -> tuple[np.ndarray, np.ndarray]:
    """How long the examples of rows are, for the planning of batches.

    Args:
        args: the run.
        rows: as `load_tokenized` returns them.
        tokenizer: of the rows.

    Returns:
        Tokens of each source, and of each target. With BPE-dropout, which makes sentences longer by chance, those
        without it: such batches hold somewhat more tokens than planned.
    """
    sources = column_lengths(rows, "input_ids")
    if args.objective == "span_corruption":
        return span_corruption_lengths(
            sources - 1, len(_sentinels(tokenizer)), args.noise_density, args.mean_span_length
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
