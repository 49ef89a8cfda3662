"""Figures, files and labels: what is masked is grey, what is written is whole, tokens are text."""

import numpy
import pytest
import torch

from hf_vanilla_transformer.lab.charts import new_chart
from hf_vanilla_transformer.lab.drawing import draw_matrix, drawable, label_tokens, save_pictures


def pixel(figure, axes, column, row):
    """The colour in the middle of a cell, as red, green and blue from 0 to 255."""
    figure.canvas.draw()
    x, y = axes.transData.transform((column, row))
    image = numpy.asarray(figure.canvas.buffer_rgba())
    return tuple(int(each) for each in image[image.shape[0] - 1 - round(y), round(x), :3])


def test_masked_cells_are_grey_whatever_they_hold_and_others_are_not():
    figure = new_chart(2, 2)
    axes = figure.subplots()
    mask = torch.tensor([[True, False], [True, True]])
    draw_matrix(axes, torch.tensor([[1.0, 1.0], [0.0, 0.5]]), mask, cmap="Blues", vmin=0, vmax=1)
    colours = {(row, column): pixel(figure, axes, column, row) for row in range(2) for column in range(2)}
    assert max(colours[0, 1]) - min(colours[0, 1]) < 12
    assert 150 < min(colours[0, 1]) < 230
    assert sum(colours[0, 0]) < sum(colours[1, 1]) < sum(colours[1, 0])  # darker, the greater
    assert len(set(colours.values())) == 4


def test_labels_are_plain_text_in_the_order_of_the_matrix():
    figure = new_chart(3, 3)
    axes = figure.subplots()
    draw_matrix(axes, torch.eye(3))
    label_tokens(axes, ["$x_1$", "b", "狗"], None)
    figure.canvas.draw()  # would raise for a formula that is none
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$x_1$", "b", "U+72D7"]
    assert not any(label.get_parse_math() for label in axes.get_yticklabels())
    assert not axes.get_xticklabels()
    assert axes.yaxis_inverted()  # the first on top


def test_a_broken_formula_in_a_token_is_drawn():
    figure = new_chart(2, 2)
    axes = figure.subplots()
    draw_matrix(axes, torch.zeros(2, 2))
    label_tokens(axes, ["$\\frac", "$$"], ["_{", "^$"])
    figure.canvas.draw()


def test_characters_that_the_font_has_stay_as_they_are():
    assert drawable("·Straße </s> \\xf0") == "·Straße </s> \\xf0"
    assert drawable("a\U0001f98a") == "aU+1F98A"


def test_pictures_are_of_the_formats_asked_for_and_the_same_every_time(tmp_path):
    for folder in ("one", "two"):
        figure = new_chart(1, 1)
        figure.subplots().plot([1, 2])
        assert save_pictures({"line": figure}, tmp_path / folder) == ["line.png", "line.svg"]
    one, two = (sorted((tmp_path / folder).iterdir()) for folder in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert one[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in one[1].read_bytes()


def test_either_all_pictures_are_written_or_none(tmp_path):
    class Broken:
        def savefig(self, *args, **kwargs):
            raise OSError("the disk is full")

    good = new_chart(1, 1)
    with pytest.raises(OSError, match="disk is full"):
        save_pictures({"good": good, "bad": Broken()}, tmp_path / "new", ["png"])
    assert list(tmp_path.iterdir()) == []
    save_pictures({"good": good}, tmp_path / "old", ["png"])
    before = (tmp_path / "old" / "good.png").read_bytes()
    with pytest.raises(OSError, match="disk is full"):
        save_pictures({"good": new_chart(2, 2), "bad": Broken()}, tmp_path / "old", ["png"], overwrite=True)
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["good.png"]
    assert (tmp_path / "old" / "good.png").read_bytes() == before
    with pytest.raises(FileExistsError, match="is not empty"):
        save_pictures({"good": good}, tmp_path / "old")
