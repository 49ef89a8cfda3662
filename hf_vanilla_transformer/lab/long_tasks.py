"""Two tasks whose answers stand far back: copying all that was read, and retrieving a few things that were told."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..loss import IGNORED_LABEL

START, SEPARATOR, BLANK = 0, 4, 5
FIRST = 6  # after the special tokens
SYMBOLS = 32  # that are copied
KEYS, VALUES = 16, 8  # of retrieval
NOWHERE = -1


@dataclass(frozen=True)
class Examples:
    """Texts of one length, and where what they ask for is to be found.

    Args:
        input_ids: (N, n).
        labels: (N, n), the tokens that have to be predicted from those before them; -100 elsewhere.
        sources: (N, n), for each label the position that says which token it is; -1 elsewhere.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    sources: torch.Tensor

    def distances(self) -> torch.Tensor:
        """Returns, for all labels, how far their source is from the position that predicts them, the one before."""
        is_label = self.labels != IGNORED_LABEL
        places = torch.arange(self.labels.shape[1]).expand_as(self.labels)
        return (places - 1 - self.sources)[is_label]

    def within(self, reach: float) -> float:
        """Returns the share of labels whose source is not further from where they are predicted than that.

        Args:
            reach: positions; infinity for a model that sees all.
        """
        return float((self.distances() <= reach).double().mean())


@dataclass(frozen=True)
class Task:
    """One of the two tasks.

    Args:
        name: what to call it.
        what: what has to be done, in a line.
        vocab_size: V.
        choices: among how many tokens, all as probable, an answer is.
        shortest: the least length.
        make: makes examples, given their number, their length, which is even, and a generator.
        position_encoding: what models that learn it have, whatever their attention is.
        kept: how many things have to be kept until they are asked for, given the length.
        first_length: that of the first half of a training for longer texts; None where what is learned of short texts
            is of no use for longer ones.
    """

    name: str
    what: str
    vocab_size: int
    choices: int
    shortest: int
    make: Callable[[int, int, torch.Generator], Examples]
    position_encoding: str
    kept: Callable[[int], int]
    first_length: int | None = None

    def examples(self, count: int, length: int, seed: int) -> Examples:
        """Makes examples.

        Args:
            count: N.
            length: n.
            seed: of all that is random in them.

        Raises:
            ValueError: the length is too short, or odd.
        """
        self.check(length)
        return self.make(count, length, torch.Generator().manual_seed(seed))

    def check(self, length: int) -> None:
        """Refuses a length that the task does not have.

        Args:
            length: n.

        Raises:
            ValueError: it is too short, or odd.
        """
        if length < self.shortest or length % 2:
            raise ValueError(
                f"the task {self.name!r} has no texts of {length} tokens; allowed: an even number of at least "
                f"{self.shortest}"
            )

    def ceiling(self, share: float) -> float:
        """Returns the expected accuracy of a model that knows a share of the answers and guesses the others.

        Args:
            share: from 0 to 1.
        """
        return share + (1 - share) / self.choices


def copy_examples(count: int, length: int, generator: torch.Generator) -> Examples:
    """`<s>`, n/2 - 1 random symbols, a separator, and the same symbols once more, which have to be predicted.

    Args:
        count: N.
        length: n.
        generator: of the symbols.
    """
    half = length // 2
    symbols = torch.randint(FIRST, FIRST + SYMBOLS, (count, half - 1), generator=generator)
    start, separator = (torch.full((count, 1), token) for token in (START, SEPARATOR))
    hidden = torch.full((count, half + 1), IGNORED_LABEL)
    sources = torch.cat([torch.full((half + 1,), NOWHERE), torch.arange(1, half)])
    return Examples(
        torch.cat([start, symbols, separator, symbols], dim=1),
        torch.cat([hidden, symbols], dim=1),
        sources.expand(count, length),
    )


def retrieval_examples(count: int, length: int, generator: torch.Generator) -> Examples:
    """`<s>`, a pair for each key at random places among blanks, then all keys in another order, each with its value.

    A pair is one token that has both a key and a value, so that nobody has to find out which tokens are neighbours. A
    value has to be predicted after its key.

    Args:
        count: N.
        length: n.
        generator: of places, order and values.
    """
    told = length - 2 * KEYS  # `<s>`, pairs and blanks
    places = 1 + torch.rand(count, told - 1, generator=generator).argsort(1)[:, :KEYS]  # of the pair of each key
    values = torch.randint(VALUES, (count, KEYS), generator=generator)
    input_ids = torch.full((count, length), BLANK)
    input_ids[:, 0] = START
    input_ids.scatter_(1, places, PAIRS.start + torch.arange(KEYS) * VALUES + values)
    order = torch.rand(count, KEYS, generator=generator).argsort(1)  # of the questions
    answers = VALUE_TOKENS.start + values.gather(1, order)
    input_ids[:, told::2] = KEY_TOKENS.start + order
    input_ids[:, told + 1 :: 2] = answers
    labels, sources = torch.full_like(input_ids, IGNORED_LABEL), torch.full_like(input_ids, NOWHERE)
    labels[:, told + 1 :: 2] = answers
    sources[:, told + 1 :: 2] = places.gather(1, order)
    return Examples(input_ids, labels, sources)


KEY_TOKENS = range(FIRST, FIRST + KEYS)
VALUE_TOKENS = range(KEY_TOKENS.stop, KEY_TOKENS.stop + VALUES)
PAIRS = range(VALUE_TOKENS.stop, VALUE_TOKENS.stop + KEYS * VALUES)  # by key, then by value

TASKS = {
    each.name: each
    for each in (
        Task(
            "copy",
            f"n/2 - 1 of {SYMBOLS} symbols have to be written once more",
            FIRST + SYMBOLS,
            SYMBOLS,
            4,
            copy_examples,
            "sinusoidal",
            lambda length: length // 2 - 1,
        ),
        Task(
            "retrieval",
            f"{KEYS} keys with one of {VALUES} values each stand among blanks, and then all are asked for",
            PAIRS.stop,
            VALUES,
            3 * KEYS + 2,
            retrieval_examples,
            "none",
            lambda length: KEYS,
            first_length=64,
        ),
    )
}
