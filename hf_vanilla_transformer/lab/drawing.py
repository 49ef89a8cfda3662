"""What the pictures of the lab share: matrices as heat maps, tokens along their axes, and files that are whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..interop.output_folder import output_folder
from .charts import DPI

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")
_FEINT = "#c9ccd1"  # of what cannot be attended to


def save_pictures(
    figures: Mapping[str, Figure], folder: str | Path, formats: Iterable[str] = FORMATS, overwrite: bool = False
) -> list[str]:
    """Writes figures into a folder: all of them, or none if something goes wrong.

    Args:
        figures: by the names of their files, without an ending.
        folder: must be free or empty, unless `overwrite`.
        formats: of `FORMATS`.
        overwrite: whether pictures of the same names are replaced; other files stay.

    Returns:
        The names of the files.

    Raises:
        OSError: the folder is not empty, or cannot be written.
    """
    from matplotlib import rc_context

    names = []
    # SVG without the date and with repeatable ids: the same picture is the same file.
    with output_folder(folder, overwrite) as written, rc_context({"svg.hashsalt": "lab"}):
        for name, figure in figures.items():
            for kind in formats:
                metadata = {"Date": None} if kind == "svg" else None
                figure.savefig(written / f"{name}.{kind}", format=kind, metadata=metadata, dpi=DPI)
                names.append(f"{name}.{kind}")
    return names


def draw_matrix(axes: Axes, matrix: Any, may_attend: Any = None, **options: Any) -> Any:
    """Draws a matrix as a heat map, its first row on top.

    Args:
        axes: where.
        matrix: (rows, columns), an array or tensor.
        may_attend: (rows, columns) booleans; cells that are False are grey, whatever they hold. None for no such cells.
        **options: of `Axes.imshow`, such as `vmin` and `cmap`.

    Returns:
        The image, for a colour bar.
    """
    import numpy

    values = numpy.asarray(matrix, dtype=float)
    if may_attend is not None:
        values = numpy.ma.masked_array(values, mask=~numpy.asarray(may_attend, dtype=bool))
    # Axes.imshow paints no masked cell, so they show the background.
    axes.set_facecolor(_FEINT)
    return axes.imshow(values, **{"aspect": "auto", "interpolation": "nearest", **options})


def label_tokens(axes: Axes, rows: Sequence[str] | None, columns: Sequence[str] | None, size: float = 9) -> None:
    """Writes tokens along the axes of a matrix, as plain text: a `$` in them is no formula.

    Args:
        axes: of `draw_matrix`.
        rows: tokens from top to bottom; None for none.
        columns: tokens from left to right; None for none.
        size: of the letters, in points.
    """
    for axis, tokens, turned in ((axes.yaxis, rows, False), (axes.xaxis, columns, True)):
        labels = [drawable(token) for token in tokens or ()]
        axis.set_ticks(range(len(labels)), labels, parse_math=False, fontsize=size, rotation=90 if turned else 0)
        axis.set_tick_params(length=0)


def drawable(text: str) -> str:
    """Writes characters that the font does not have, such as Chinese, by their numbers: `U+72D7`.

    Args:
        text: any.
    """
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return "".join(each if font.get_char_index(ord(each)) else f"U+{ord(each):04X}" for each in text)
