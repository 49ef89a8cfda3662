"""§5.1 batches by tokens: sentences of like length together, so that little of a batch is padding; or random ones."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from transformers.utils import logging

from ..loss import IGNORED_LABEL

logger = logging.get_logger(__name__)

# Which pairs stand together: those of similar length (§5.1), or any.
Batching = Literal["length", "random"]
# Random orders that are tried where their batches must not exceed a number.
_TRIALS = 8


def plan_batches(
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    max_tokens: int,
    multiple: int = 1,
    random: np.random.Generator | None = None,
) -> list[np.ndarray]:
    """Groups sentence pairs of like lengths into batches that hold `max_tokens` on either side, padding included.

    Pairs are ordered by the longer of their sides, and by the other side up and down in turns, and cut where the next
    one would not fit: few tokens away from the fewest batches. A pair that is longer than `max_tokens` by itself gets
    a batch by itself. If the number of batches has to be a multiple, the largest are halved.

    With `random`, pairs are in random order, and cut in the same way: a batch has long and short ones, and padding.

    Args:
        source_lengths: tokens of each source.
        target_lengths: tokens of each target.
        max_tokens: the most source tokens and the most target tokens of a batch: sentences times the longest.
        multiple: processes times accumulation steps, so that all have equally many batches.
        random: draws the order of the pairs; None to order them by length.

    Returns:
        Indices of pairs, one array a batch; each index once. Only where fewer pairs than batches are needed, so that
        each is in a batch by itself and none can be halved, is one repeated.
    """
    longest = np.maximum(source_lengths, target_lengths)
    if random is None:
        difference = source_lengths - target_lengths
        order = np.lexsort((np.where(longest % 2, difference, -difference), longest))
    else:
        order = random.permutation(len(longest))
    sources, targets = source_lengths[order].tolist(), target_lengths[order].tolist()
    cuts, start, widest = [0], 0, 0
    for index, (source, target) in enumerate(zip(sources, targets, strict=True)):
        widest = max(widest, source, target)
        if index > start and (index - start + 1) * widest > max_tokens:
            cuts.append(index)
            start, widest = index, max(source, target)
    batches = [order[a:b] for a, b in zip(cuts, [*cuts[1:], len(order)], strict=True)]
    return _halved(batches, longest, math.ceil(len(batches) / multiple) * multiple)


def plan_number_of_batches(
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    max_tokens: int,
    number: int,
    random: np.random.Generator | None = None,
) -> list[np.ndarray]:
    """As `plan_batches`, but makes a given number of batches: fuller ones where they would be more.

    Args:
        source_lengths: tokens of each source.
        target_lengths: tokens of each target.
        max_tokens: the most tokens of a side of a batch. Where the number does not suffice, as few more as will do.
        number: how many batches to make.
        random: as in `plan_batches`.

    Returns:
        Indices of pairs, one array a batch.
    """
    batches = plan_batches(source_lengths, target_lengths, max_tokens, random=random)
    while len(batches) > number:
        max_tokens = math.ceil(max_tokens * len(batches) / number)
        batches = plan_batches(source_lengths, target_lengths, max_tokens, random=random)
    return _halved(batches, np.maximum(source_lengths, target_lengths), number)


def _halved(batches: list[np.ndarray], longest: np.ndarray, number: int) -> list[np.ndarray]:
    """Halves the largest batches until there are so many."""
    sizes = [len(batch) * int(longest[batch].max()) for batch in batches]
    while len(batches) < number:
        largest = max(range(len(batches)), key=lambda index: sizes[index] if len(batches[index]) > 1 else -1)
        batch = batches[largest]
        half = len(batch) // 2
        # One pair cannot be halved: with fewer pairs than batches are needed, some batches are of the same pair.
        parts = (batch[:half], batch[half:]) if half else (batch, batch)
        batches[largest : largest + 1] = parts
        sizes[largest : largest + 1] = [len(part) * int(longest[part].max()) for part in parts]
    return batches


class TokenBatchSampler:
    """Batches by tokens for every epoch: the same on every run, shared out among processes, as many each epoch.

    A corpus of weight w is in an epoch floor(w) times whole; of the rest, one sentence is drawn out of each group of
    like lengths, or all but one, so that each has nearly the same chance. Which pairs stand together changes from epoch
    to epoch only among those of equal lengths, so that the batches need planning once and their number never changes.
    Where lengths are others in each epoch, each is planned by itself, and has as many batches as epoch 0. Their order
    is shuffled.

    Batches of random pairs are drawn anew for each epoch, and are as many in all: the most of several drawings. A
    drawing that makes fewer has its largest batches halved, and one that makes more is drawn again.

    There is no `batch_size` attribute: accelerate would leave out batches of another size.

    Args:
        source_lengths: tokens of each source.
        target_lengths: tokens of each target.
        max_tokens: as in `plan_batches`.
        seed: of the shuffling.
        weights: of each pair; None for 1 each.
        num_processes: processes that share the batches.
        process_index: which of them this is.
        accumulation_steps: batches a process adds up before an update.
        lengths_in_epoch: the lengths in each epoch, where they change; the first two are then those of epoch 0.
        batching: "length" for pairs of similar length in a batch, "random" for any.
    """

    def __init__(
        self,
        source_lengths: Sequence[int] | np.ndarray,
        target_lengths: Sequence[int] | np.ndarray,
        max_tokens: int,
        seed: int = 0,
        weights: np.ndarray | None = None,
        num_processes: int = 1,
        process_index: int = 0,
        accumulation_steps: int = 1,
        lengths_in_epoch: Callable[[int], tuple[np.ndarray, np.ndarray]] | None = None,
        batching: Batching = "length",
    ) -> None:
        self.source_lengths, self.target_lengths = np.asarray(source_lengths), np.asarray(target_lengths)
        self.seed, self.num_processes, self.process_index = seed, num_processes, process_index
        self.max_tokens, self.lengths_in_epoch, self.batching = max_tokens, lengths_in_epoch, batching
        self.epoch = 0
        weights = np.ones(len(self.source_lengths)) if weights is None else weights
        # Slots are places in an epoch: a pair is in as many as its weight says, or shares one with others.
        whole = np.repeat(np.arange(len(weights)), weights.astype(np.int64))
        self._shared = _groups_of_like_lengths(weights % 1, self.source_lengths, self.target_lengths)
        self._whole = whole
        sources = [
            self.source_lengths[whole],
            *(np.repeat(self.source_lengths[group].max(), number) for group, number in self._shared),
        ]
        targets = [
            self.target_lengths[whole],
            *(np.repeat(self.target_lengths[group].max(), number) for group, number in self._shared),
        ]
        self._slot_sources, self._slot_targets = np.concatenate(sources), np.concatenate(targets)
        lengths, multiple = (self._slot_sources, self._slot_targets), num_processes * accumulation_steps
        if batching == "random":
            draws = [np.random.default_rng((seed, number)) for number in range(_TRIALS)]
            self._batches = max((plan_batches(*lengths, max_tokens, multiple, draw) for draw in draws), key=len)
        else:
            self._batches = plan_batches(*lengths, max_tokens, multiple)
        alone = int((np.maximum(self._slot_sources, self._slot_targets) > max_tokens).sum())
        if alone:
            logger.warning(f"{alone} pairs are longer than max_tokens={max_tokens}; each is a batch of its own")

    def __len__(self) -> int:
        """Batches of an epoch for one process."""
        return len(self._batches) // self.num_processes

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose batches come next.

        Args:
            epoch: from 0.
        """
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yields the batches of this process: (epoch, index) of each pair."""
        random = np.random.default_rng((self.seed, self.epoch))
        slots, batches = self._pairs_in_slots(random), self._batches
        draw = random if self.batching == "random" else None
        if self.lengths_in_epoch is not None:
            sources, targets = self.lengths_in_epoch(self.epoch)
            batches = plan_number_of_batches(sources[slots], targets[slots], self.max_tokens, len(batches), draw)
        elif draw is not None:
            batches = self._random_batches(draw)
        for position in random.permutation(len(self._batches)).reshape(-1, self.num_processes)[:, self.process_index]:
            yield [(self.epoch, int(index)) for index in slots[batches[position]]]

    def _pairs_in_slots(self, random: np.random.Generator) -> np.ndarray:
        drawn = []
        for group, number in self._shared:
            one = random.integers(len(group))
            drawn.append(group[one : one + 1] if number == 1 else np.delete(group, one))
        slots = np.concatenate([self._whole, *drawn]).astype(np.int64)
        # Two orders by lengths, each with ties in random order of its own: pairs of equal lengths change places.
        count = len(self._whole)
        sources, targets = self._slot_sources[:count], self._slot_targets[:count]
        by_length = np.lexsort((np.arange(count), targets, sources))
        shuffled = np.lexsort((random.random(count), targets, sources))
        slots[by_length] = self._whole[shuffled]
        return slots

    def _random_batches(self, random: np.random.Generator) -> list[np.ndarray]:
        """Draws batches of any slots, as many as planned, none of which is over the bound."""
        for _ in range(_TRIALS):
            batches = plan_batches(self._slot_sources, self._slot_targets, self.max_tokens, random=random)
            if len(batches) <= len(self._batches):
                return _halved(batches, np.maximum(self._slot_sources, self._slot_targets), len(self._batches))
        return self._batches

    def padding_share(self) -> float:
        """The share of an epoch's source and target places that hold no token; goal: under 5 % by length."""
        places = sum(
            len(batch) * int(self._slot_sources[batch].max() + self._slot_targets[batch].max())
            for batch in self._batches
        )
        return 1 - int(self._slot_sources.sum() + self._slot_targets.sum()) / places


def _groups_of_like_lengths(
    shares: np.ndarray, sources: np.ndarray, targets: np.ndarray
) -> list[tuple[np.ndarray, int]]:
    """Cuts the pairs of each share, ordered by length, into groups; the numbers drawn of each make up the share."""
    groups: list[tuple[np.ndarray, int]] = []
    for share in np.unique(shares[shares > 0]):
        members = np.flatnonzero(shares == share)
        ordered = members[np.lexsort((targets[members], sources[members]))]
        drawn = max(round(len(members) * float(share)), 1)
        left_out = len(members) - drawn
        if drawn <= left_out or not left_out:
            groups += [(group, 1) for group in np.array_split(ordered, drawn)]
        else:  # one of each group is left out; drawn one by one, some pairs would be groups of their own, and always in
            groups += [(group, len(group) - 1) for group in np.array_split(ordered, left_out)]
    return groups


class TokenBatchLoader(torch.utils.data.DataLoader):
    """A DataLoader that takes its epoch from the trainer and hands it to its `TokenBatchSampler`."""

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose batches come next.

        Args:
            epoch: from 0.
        """
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


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
    """Groups sentences of like length as `plan_batches` does, the longest first.

    Args:
        lengths: the length of each sentence.
        batch_tokens: tokens in a batch, at most, its padding among them. A sentence that is longer stands alone.

    Yields:
        Indices into `lengths`; each index once.
    """
    if len(lengths):
        counts = np.asarray(lengths)
        yield from (batch[::-1].tolist() for batch in reversed(plan_batches(counts, counts, batch_tokens)))


def padded_batch(examples: Sequence[dict[str, Any]], pad_token_id: int | None) -> dict[str, torch.Tensor]:
    """Pads sentences on their right and stacks them.

    Args:
        examples: each with `input_ids` and, all or none, `labels`: lists or arrays of token ids; and, all or none,
            `prefix_length`, a number. Other keys are left out.
        pad_token_id: the id of `<pad>`; with None, 0 stands in the masked places.

    Returns:
        `input_ids` and `attention_mask` (B, S), `labels` (B, T) with -100 as padding, and `prefix_length` (B,).
    """
    sources = [example["input_ids"] for example in examples]
    input_ids, attention_mask = padded(sources, pad_token_id or 0)
    batch = {"input_ids": input_ids, "attention_mask": attention_mask.long()}
    if "labels" in examples[0]:
        batch["labels"], _ = padded([example["labels"] for example in examples], IGNORED_LABEL)
    if "prefix_length" in examples[0]:
        batch["prefix_length"] = torch.tensor([example["prefix_length"] for example in examples])
    return batch


def padded(rows: Sequence[Sequence[int] | np.ndarray], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stacks rows of token ids, padded on their right.

    Args:
        rows: token ids of each sentence.
        padding: what fills them up.

    Returns:
        The ids (B, L), and where they are those of a row (B, L), in booleans.
    """
    lengths = np.array([len(row) for row in rows])
    given = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(given.shape, padding, dtype=np.int64)
    ids[given] = np.concatenate(rows)
    return torch.from_numpy(ids), torch.from_numpy(given)


def collate(examples: list[dict[str, Any]], pad_token_id: int | None) -> dict[str, torch.Tensor]:
    """Stacks examples as a batch to learn from.

    Args:
        examples: each with `input_ids`, `labels` and `index`.
        pad_token_id: the id of `<pad>`.

    Returns:
        As `padded_batch`, and `index` (B,): which sentences these are.
    """
    batch = padded_batch(examples, pad_token_id)
    batch["index"] = torch.tensor([example["index"] for example in examples])
    return batch


__all__ = [
    "Batching",
    "TokenBatchLoader",
    "TokenBatchSampler",
    "collate",
    "padded",
    "padded_batch",
    "plan_batches",
    "plan_number_of_batches",
    "sorted_batches",
    "token_batches",
]
