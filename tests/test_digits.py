"""Images of several digits and their names: put together, written as tokens, read back and counted."""

import sys

import pytest
import torch

from hf_vanilla_transformer.lab.digits import (
    EOS,
    LETTERS,
    MOST,
    NAMES,
    PAD,
    READING_HEADER,
    START,
    Digits,
    hold_out,
    load_digits,
    make_rows,
    nearest_neighbours,
    reading_row,
    to_labels,
    to_texts,
)
from hf_vanilla_transformer.loss import IGNORED_LABEL


def drawn_digits(count=40):
    """Images of which each label has one of its own, with a little noise."""
    generator = torch.Generator().manual_seed(0)
    shapes, labels = torch.rand(10, 8, 8, generator=generator), torch.arange(count) % 10
    return Digits(shapes[labels] * 0.9 + 0.1 * torch.rand(count, 8, 8, generator=generator), labels)


def test_rows_show_their_digits_side_by_side_and_say_them():
    digits = drawn_digits()
    rows = make_rows(digits, 200, seed=1)
    assert rows.pixel_values.shape == (200, 1, 8, 24)
    assert {len(places) for places in rows.places} == {2, 3}
    for pixels, places, text in zip(rows.pixel_values[:, 0], rows.places, rows.texts, strict=True):
        assert text.split() == [NAMES[digits.labels[place]] for place in places]
        for at in range(MOST):
            expected = digits.images[places[at]] if at < len(places) else torch.zeros(8, 8)
            torch.testing.assert_close(pixels[:, 8 * at : 8 * at + 8] * 0.4 + 0.3, expected, rtol=0, atol=1e-6)
    assert make_rows(digits, 5, seed=1).places != make_rows(digits, 5, seed=2).places


def test_held_out_digits_are_not_learned_from():
    digits = drawn_digits()
    learn, kept = hold_out(digits, 15)
    assert (len(learn), len(kept)) == (25, 15)
    together = torch.cat([learn.images, kept.images]).flatten(1)
    assert torch.equal(together.unique(dim=0), digits.images.flatten(1).unique(dim=0))
    with pytest.raises(ValueError, match="40 of 40 digits"):
        hold_out(digits, 40)


def test_texts_survive_being_tokens():
    texts = ["three seven", "zero zero nine"]
    labels = to_labels(texts)
    assert labels.shape == (2, len("zero zero nine") + 1)
    assert labels[0].tolist()[11:] == [EOS] + [IGNORED_LABEL] * 3
    ids = torch.cat([torch.full((2, 1), START), labels.masked_fill(labels == IGNORED_LABEL, PAD)], dim=1)
    assert to_texts(ids) == texts
    assert to_texts(torch.tensor([[START, EOS, 5], [START, PAD, 4]])) == ["", LETTERS[0]]
    assert set(LETTERS) == set("".join(NAMES)) | {" "}


def test_nearest_neighbours_read_what_is_near():
    learn, kept = hold_out(drawn_digits(), 10)
    rows = make_rows(kept, 30, seed=0)
    assert nearest_neighbours(learn, rows, kept) == list(rows.texts)
    wrong = Digits(learn.images, (learn.labels + 1) % 10)
    assert not set(nearest_neighbours(wrong, rows, kept)) & set(rows.texts)


def test_digits_and_images_are_counted():
    row = reading_row("m", ["one two", "one", "six six six", ""], ["one two", "one two", "six six six", "two two two"])
    # 6 of 10 digits; images of two and of three: 0.6^2 and 0.6^3 on the average; one of two of each is right
    assert row == ["m", "60.0", f"{100 * (0.6**2 + 0.6**3) / 2:.1f}", "50.0", "50.0", "50.0"]
    assert len(row) == len(READING_HEADER)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ValueError, match=r"pip install 'hf-vanilla-transformer\[lab\]'"):
        load_digits()


def test_the_digits_of_scikit_learn_are_there():
    pytest.importorskip("sklearn")
    digits = load_digits()
    assert digits.images.shape == (1797, 8, 8)
    assert (digits.images.min(), digits.images.max()) == (0, 1)
    assert digits.labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
