"""Maps of attention: a panel for each head, with its weights in it and the tokens beside it."""

import numpy
import pytest
import torch

from hf_vanilla_transformer.lab.attention_maps import AttentionMaps
from hf_vanilla_transformer.lab.plots import attention_pictures, plot_alignment, plot_heads


def made_up(heads, layers=3, source=5, target=4):
    shapes = {"encoder": (source, source), "decoder": (target, target), "cross": (target, source)}
    weights = {
        kind: torch.rand(2 if kind == "encoder" else layers, heads, *shape).softmax(-1)
        for kind, shape in shapes.items()
    }
    weights["decoder"] = weights["decoder"].tril() / weights["decoder"].tril().sum(-1, keepdim=True)
    read = ["<s>", *(f"t{number}" for number in range(target - 1))]
    return AttentionMaps("s", "t", tuple(f"s{number}" for number in range(source)), tuple(read),
                         (*read[1:], "</s>"), weights)  # fmt: skip


def panels(figure):
    """The axes of heads that are seen, without the colour bar."""
    return [axes for axes in figure.axes if axes.get_visible() and axes.get_title()]


@pytest.mark.parametrize(("kind", "heads"), [("encoder", 1), ("decoder", 3), ("cross", 8)])
def test_each_head_has_a_panel_with_its_weights(kind, heads):
    maps = made_up(heads)
    seen = panels(plot_heads(maps, kind, 2))
    assert [axes.get_title() for axes in seen] == [f"head {number}" for number in range(1, heads + 1)]
    for axes, expected in zip(seen, maps.weights[kind][1], strict=True):
        (image,) = axes.images
        drawn = image.get_array()
        assert image.get_clim() == (0, 1)
        assert numpy.array_equal(~numpy.ma.getmaskarray(drawn), maps.may_attend(kind).numpy())
        numpy.testing.assert_allclose(drawn.filled(0), expected.numpy())  # masked cells are those that are 0


@pytest.mark.parametrize("kind", ["decoder", "cross"])
def test_outer_panels_name_the_tokens(kind):
    maps = made_up(6)
    rows, columns = maps.axes(kind)
    labels = [
        tuple(tuple(label.get_text() for label in side()) for side in (axes.get_yticklabels, axes.get_xticklabels))
        for axes in panels(plot_heads(maps, kind, 1))
    ]
    assert [each[0] == rows for each in labels] == [True, False, False, False, True, False]
    assert [each[1] == columns for each in labels] == [False, False, True, True, True, True]
    assert {each for label in labels for each in label} == {rows, columns, ()}


def test_the_alignment_marks_the_largest_weight_of_each_row():
    maps = made_up(2)
    axes = plot_alignment(maps, 3).axes[0]
    mean = maps.weights["cross"][2].mean(0)
    numpy.testing.assert_allclose(axes.images[0].get_array(), mean.numpy(), rtol=1e-6)
    (dots,) = axes.lines
    assert list(zip(dots.get_ydata(), dots.get_xdata(), strict=True)) == list(enumerate(mean.argmax(-1).tolist()))
    assert "layer 3 of 3" in axes.get_title()
    assert "layer 2 of 3" in plot_alignment(maps).axes[0].get_title()
    assert "layer 1 of 1" in plot_alignment(made_up(2, layers=1)).axes[0].get_title()


def test_all_there_is_to_see_is_a_picture_of_each_layer_and_the_alignment():
    names = {f"{kind}-layer-{layer}" for kind, count in (("encoder", 2), ("decoder", 3), ("cross", 3))
             for layer in range(1, count + 1)}  # fmt: skip
    assert set(attention_pictures(made_up(1))) == {*names, "alignment"}


def test_a_layer_that_is_not_there_is_refused():
    maps = made_up(1)
    with pytest.raises(ValueError, match="no layer 3 of encoder self-attention; this model has layers 1 to 2"):
        plot_heads(maps, "encoder", 3)
    with pytest.raises(ValueError, match="no decoder layer 4"):
        attention_pictures(maps, 4)


def test_long_sentences_stay_within_a_screen_or_two():
    for length, heads in ((3, 1), (3, 8), (40, 4), (90, 2)):
        width, height = plot_heads(made_up(heads, source=length, target=length), "cross", 1).get_size_inches()
        assert 2 < width < 32
        assert 2 < height < 70
