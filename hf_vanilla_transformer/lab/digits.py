"""Handwritten digits, two or three side by side, and their names written out: images in, letters out."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..loss import IGNORED_LABEL

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = sorted({" ", *"".join(NAMES)})
START, PAD, EOS = 0, 1, 2
FIRST_LETTER = 4  # after the special tokens
SIDE = 8  # pixels
MOST = 3  # digits of an image


@dataclass(frozen=True)
class Digits:
    """Images of one digit each.

    Args:
        images: (N, 8, 8), from 0 to 1.
        labels: (N,), from 0 to 9.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DigitRows:
    """Images of several digits.

    Args:
        pixel_values: (N, 1, 8, 24), of about unit variance; blank where a third digit is missing.
        places: of each image, which digits stand in it, in their order.
        texts: of each image, their names.
    """

    pixel_values: torch.Tensor
    places: Sequence[Sequence[int]]
    texts: Sequence[str]


def load_digits() -> Digits:
    """Reads the 1,797 handwritten digits that come with scikit-learn (Alpaydin and Kaynak, 1998).

    Returns:
        The images, in the order of scikit-learn.

    Raises:
        ValueError: scikit-learn is not installed; the message names the extra.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ValueError("the digits come with scikit-learn: pip install 'hf-vanilla-transformer[lab]'") from error
    found = datasets.load_digits()
    return Digits(torch.tensor(found.images, dtype=torch.float32) / 16, torch.tensor(found.target))


def hold_out(digits: Digits, count: int = 500, seed: int = 0) -> tuple[Digits, Digits]:
    """Keeps some digits to be tested on. The same people have written both parts.

    Args:
        digits: all.
        count: how many are kept.
        seed: of their choice.

    Returns:
        Those to learn from, and those that are kept.

    Raises:
        ValueError: a part would be empty.
    """
    if not 0 < count < len(digits):
        raise ValueError(f"{count} of {len(digits)} digits cannot be held out")
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))
    parts = (order[count:], order[:count])
    learn, kept = (Digits(digits.images[part], digits.labels[part]) for part in parts)
    return learn, kept


def make_rows(digits: Digits, count: int, seed: int) -> DigitRows:
    """Puts two or three digits side by side, as likely as each other.

    Args:
        digits: what to draw from, with repetition.
        count: N.
        seed: of the draws.

    Returns:
        The images and what they say.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(digits), (count, MOST), generator=generator)
    lengths = torch.randint(2, MOST + 1, (count,), generator=generator)
    is_there = torch.arange(MOST) < lengths.unsqueeze(1)
    images = digits.images[drawn] * is_there[:, :, None, None]
    pixels = images.transpose(1, 2).flatten(2).unsqueeze(1)  # (N, 1, 8, 24)
    places = [row[:length].tolist() for row, length in zip(drawn, lengths.tolist(), strict=True)]
    texts = [" ".join(NAMES[int(digits.labels[place])] for place in row) for row in places]
    return DigitRows((pixels - 0.3) / 0.4, places, texts)


def to_labels(texts: Sequence[str]) -> torch.Tensor:
    """Turns texts into labels (N, longest + 1): a token for each letter, then `</s>`, then -100."""
    rows = [[FIRST_LETTER + LETTERS.index(letter) for letter in text] + [EOS] for text in texts]
    longest = max(map(len, rows))
    return torch.tensor([row + [IGNORED_LABEL] * (longest - len(row)) for row in rows])


def to_texts(ids: torch.Tensor) -> list[str]:
    """Turns what `generate()` returns, (N, L), into texts; other special tokens are left out."""
    texts = []
    for row in ids[:, 1:].tolist():
        row = row[: row.index(EOS)] if EOS in row else row
        texts.append("".join(LETTERS[token - FIRST_LETTER] for token in row if token >= FIRST_LETTER))
    return texts


def nearest_neighbours(learn: Digits, rows: DigitRows, digits: Digits) -> list[str]:
    """Reads images by the digit to learn from that is nearest to each, pixel by pixel; it is told where they stand.

    Args:
        learn: the digits whose labels are known.
        rows: what to read.
        digits: what `rows` are made of.

    Returns:
        A text for each image.
    """
    distances = torch.cdist(digits.images.flatten(1), learn.images.flatten(1))
    found = learn.labels[distances.argmin(1)]
    return [" ".join(NAMES[int(found[place])] for place in row) for row in rows.places]


def reading_row(name: str, texts: Sequence[str], references: Sequence[str]) -> list[str]:
    """Counts what is read rightly, as a row of a table.

    Args:
        name: of the reader.
        texts: what it reads.
        references: what is right.

    Returns:
        A cell for each of `READING_HEADER`, in percent. What is expected of whole images is p^n, with n digits of which
        a share of p is right, were mistakes independent of each other.
    """
    pairs = [(text.split(), reference.split()) for text, reference in zip(texts, references, strict=True)]
    by_count = {n: [text == right for text, right in pairs if len(right) == n] for n in range(2, MOST + 1)}
    whole = [hit for hits in by_count.values() for hit in hits]
    count = sum(len(right) for _, right in pairs)
    share = sum(sum(map(str.__eq__, text, right)) for text, right in pairs) / count
    expected = sum(share ** len(right) for _, right in pairs) / len(pairs)
    shares = [share, expected, _mean(whole), *map(_mean, by_count.values())]
    return [name, *(f"{100 * each:.1f}" for each in shares)]


READING_HEADER = [
    "Digits read as words, right in %", "digits", "images, expected of that", "images", "two digits", "three digits",
]  # fmt: skip


def _mean(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits) if hits else float("nan")
