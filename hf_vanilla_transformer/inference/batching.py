"""What scoring and decoding share: batches of sentences of like length."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..loss import IGNORED_LABEL


def sorted_batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Groups sentences of like length, the longest first, so that what does not fit in memory fails at once.

    Args:
        lengths: the length of each sentence.
        batch_size: sentences in a batch, at most.

    Yields:
        Indices into `lengths`; each index once.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def token_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Groups sentences of like length, the longest first, into batches of about as much work.

    Args:
        lengths: the length of each sentence.
        batch_tokens: tokens in a batch, at most, its padding among them. A sentence that is longer stands alone.

    Yields:
        Indices into `lengths`; each index once.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def padded_batch(examples: Sequence[dict[str, Any]], pad_token_id: int | None) -> dict[str, torch.Tensor]:
    """Pads sentences on their right and stacks them.

    Args:
        examples: each with `input_ids` and, all or none, `labels`: lists of token ids. Other keys are left out.
        pad_token_id: the id of `<pad>`; with None, 0 stands in the masked places.

    Returns:
        `input_ids` and `attention_mask` (B, S), and `labels` (B, T) with -100 as padding.
    """
    sources = [example["input_ids"] for example in examples]
    batch = {
        "input_ids": _padded(sources, pad_token_id or 0),
        "attention_mask": _padded([[1] * len(source) for source in sources], 0),
    }
    if "labels" in examples[0]:
        batch["labels"] = _padded([example["labels"] for example in examples], IGNORED_LABEL)
    return batch


def _padded(rows: Sequence[Sequence[int]], padding: int) -> torch.Tensor:
    length = max(len(row) for row in rows)
    return torch.tensor([[*row, *[padding] * (length - len(row))] for row in rows], dtype=torch.long)


__all__ = ["padded_batch", "sorted_batches", "token_batches"]
