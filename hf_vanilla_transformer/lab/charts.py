"""Charts of measurements, by matplotlib without a screen; it is an extra, and imported only to draw."""

from __future__ import annotations

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
        raise ValueError("charts need matplotlib: pip install 'hf-vanilla-transformer[lab]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
