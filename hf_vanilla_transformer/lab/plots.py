"""Maps of attention: what each head of a layer attends to, and the soft alignment of a translation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .attention_maps import AttentionMaps
from .charts import new_chart
from .drawing import draw_matrix, label_tokens
from .heads import KINDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDEST = 15.0  # of the heads side by side, in inches
_COLOURS = "Blues"
# Names of the axes, by kind: what attends, and what is attended to.
_AXES = {
    "encoder": ("source token", "attends to source token"),
    "decoder": ("to predict this token", "the decoder attends to what it has read"),
    "cross": ("to predict this token", "the decoder attends to source token"),
}


def plot_heads(maps: AttentionMaps, kind: str, layer: int) -> Figure:
    """Draws a heat map for each head of a layer, all with one scale from 0 to 1.

    Args:
        maps: of a sentence.
        kind: of `KINDS`.
        layer: from 1.

    Returns:
        The figure.

    Raises:
        ValueError: there is no such layer.
    """
    layers = maps.weights[kind]
    if not 1 <= layer <= len(layers):
        raise ValueError(f"there is no layer {layer} of {KINDS[kind]}; this model has layers 1 to {len(layers)}")
    heads, (rows, columns) = layers[layer - 1], maps.axes(kind)
    cell, size = _cell_and_letters(max(len(rows), len(columns)))
    across = min(len(heads), max(2, min(4, int(_WIDEST / (len(columns) * cell)))))
    down = math.ceil(len(heads) / across)
    letters = [max(map(len, tokens)) * size / 72 * 0.65 for tokens in (rows, columns)]  # of the longest token, inches
    width = across * max(len(columns) * cell, 1.2) + letters[0] + 1.4
    height = down * (max(len(rows) * cell, 1.0) + 0.35) + letters[1] + 1.0
    figure = new_chart(width, height)
    panels = figure.subplots(down, across, squeeze=False)
    for index, axes in enumerate(panels.flat):
        if index >= len(heads):
            axes.set_visible(False)
            continue
        image = draw_matrix(axes, heads[index], maps.may_attend(kind), cmap=_COLOURS, vmin=0, vmax=1)
        is_lowest = index + across >= len(heads)
        label_tokens(axes, rows if index % across == 0 else None, columns if is_lowest else None, size)
        axes.set_title(f"head {index + 1}", fontsize=10)
    figure.suptitle(f"{KINDS[kind]}, layer {layer} of {len(layers)}")
    figure.supylabel(_AXES[kind][0], fontsize=10)
    figure.supxlabel(_AXES[kind][1], fontsize=10)
    figure.colorbar(image, ax=panels, label="attention weight", shrink=0.8, aspect=30)
    return figure


def plot_alignment(maps: AttentionMaps, layer: int | None = None) -> Figure:
    """Draws the soft alignment of a translation: the mean of the cross-attention over the heads of a layer.

    Args:
        maps: of a sentence.
        layer: from 1; None for the second-to-last, as `translate --alignments` has it.

    Returns:
        The figure.

    Raises:
        ValueError: there is no such layer.
    """
    weights, (rows, columns) = maps.alignment(layer), maps.axes("cross")
    count = len(maps.weights["cross"])
    cell, size = _cell_and_letters(max(len(rows), len(columns)), largest=0.42)
    letters = [max(map(len, tokens)) * size / 72 * 0.65 for tokens in (rows, columns)]
    figure = new_chart(max(len(columns) * cell, 2.5) + letters[0] + 1.8, max(len(rows) * cell, 1.8) + letters[1] + 1.2)
    axes = figure.subplots()
    image = draw_matrix(axes, weights, cmap=_COLOURS, vmin=0, vmax=1)
    label_tokens(axes, rows, columns, size)
    axes.plot(weights.argmax(-1).tolist(), range(len(rows)), "o", color="#d1495b", markersize=cell * 12)
    axes.set_title(f"alignment: mean over heads, layer {layer or max(1, count - 1)} of {count}; dot: largest weight",
                   fontsize=10, wrap=True)  # fmt: skip
    axes.set(xlabel=_AXES["cross"][1], ylabel=_AXES["cross"][0])
    figure.colorbar(image, ax=axes, label="attention weight")
    return figure


def attention_pictures(maps: AttentionMaps, layer: int | None = None) -> dict[str, Figure]:
    """Draws all that there is to see of a sentence: each layer of each kind, and the alignment.

    Args:
        maps: of the sentence.
        layer: of the alignment, as in `plot_alignment`.

    Returns:
        Figures by name, such as `cross-layer-1` and `alignment`.

    Raises:
        ValueError: there is no such layer.
    """
    pictures = {"alignment": plot_alignment(maps, layer)}
    for kind in KINDS:
        for number in range(1, len(maps.weights[kind]) + 1):
            pictures[f"{kind}-layer-{number}"] = plot_heads(maps, kind, number)
    return pictures


def _cell_and_letters(tokens: int, largest: float = 0.26) -> tuple[float, float]:
    """Width of a cell in inches and size of its letters in points, so that long sentences still fit on a screen."""
    cell = min(largest, max(0.14, 6 / tokens))
    return cell, min(9.0, cell * 72 * 0.75)
