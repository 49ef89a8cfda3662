"""Charts of measurements, by matplotlib without a screen; it is an extra, and imported only to draw."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120


def new_chart(width: float, height: float) -> Figure:
    """Makes an empty figure that draws by Agg.

    Args:
        width: in inches.
        height: in inches.

    Returns:
        The figure.

    Raises:
        ValueError: matplotlib is not installed; the message names the extra.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("a picture needs matplotlib: pip install 'hf-vanilla-transformer[lab]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def check_ending(path: str | Path) -> None:
    """Refuses the name of a picture that is neither a PNG nor an SVG, before anything is drawn.

    Args:
        path: the picture.

    Raises:
        ValueError: it has another ending.
    """
    if Path(path).suffix not in (".png", ".svg"):
        raise ValueError(f"{path}: a picture ends in .png or .svg")


def save_chart(figure: Figure, path: str | Path, dpi: int = DPI) -> None:
    """Writes a figure to a file, which appears whole or not at all.

    Args:
        figure: what to write.
        path: the file; its ending says the format.
        dpi: dots per inch.

    Raises:
        OSError: it cannot be written.
    """
    target, picture = Path(path), io.BytesIO()
    figure.savefig(picture, format=target.suffix[1:], dpi=dpi)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_bytes(picture.getbuffer())
    os.replace(partial, target)
