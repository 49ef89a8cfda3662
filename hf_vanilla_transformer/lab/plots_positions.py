"""§3.5 in pictures: the sinusoids in their three layouts, what their products depend on, and a shift as a rotation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import torch

from ..configuration_vanilla_transformer import SinusoidLayout, VanillaTransformerConfig
from ..positions import SinusoidalPositions
from .charts import new_chart
from .drawing import draw_matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAYOUTS: tuple[str, ...] = get_args(SinusoidLayout)
_SHIFTS = 50  # of the check of the identity
_TITLES = {
    "interleaved": "interleaved\n(the paper)",
    "concatenated": "concatenated\n(MarianMT)",
    "concatenated_tensor2tensor": "concatenated_tensor2tensor\n(the authors' code, fairseq)",
}


def position_encodings(positions: int, d_model: int, layout: str = "interleaved") -> torch.Tensor:
    """The encodings that the model adds to its embeddings, by `SinusoidalPositions`.

    Args:
        positions: how many, from 0.
        d_model: D.
        layout: value of `sinusoid_layout`.

    Returns:
        (positions, D) in float32.
    """
    config = VanillaTransformerConfig(d_model=d_model, num_heads=1, sinusoid_layout=layout)
    return SinusoidalPositions(config)(torch.zeros(1, positions, d_model), torch.arange(positions).unsqueeze(0))[0]


def shift_rotation(shift: int, d_model: int, layout: str = "interleaved") -> torch.Tensor:
    """The matrix M with PE(pos + shift) = M PE(pos) for every position: a rotation of each pair of sine and cosine.

    Its angles are those of position `shift`, so that its entries are the numbers of PE(shift) themselves.

    Args:
        shift: k, in positions.
        d_model: D.
        layout: value of `sinusoid_layout`.

    Returns:
        (D, D) in float32.
    """
    return _rotation(position_encodings(shift + 1, d_model, layout)[shift], layout)


def shift_errors(shifts: Sequence[int], positions: int, d_model: int, layout: str = "interleaved") -> list[float]:
    """How far the identity PE(pos + shift) = M PE(pos) is from holding.

    Args:
        shifts: values of k.
        positions: how many are looked at, from 0.
        d_model: D.
        layout: value of `sinusoid_layout`.

    Returns:
        For each shift the largest difference of two numbers, of values from -1 to 1. The products are in float64;
        encodings are rounded to float32, so about 1e-7 is to be expected.
    """
    encodings = position_encodings(positions + max(shifts), d_model, layout).double()
    found = []
    for shift in shifts:
        rotated = encodings[:positions] @ _rotation(encodings[shift], layout).T
        found.append(float((rotated - encodings[shift : shift + positions]).abs().max()))
    return found


def plot_sinusoids(positions: int = 50, d_model: int = 128) -> Figure:
    """Draws the encodings of the first positions as heat maps, one for each layout.

    Args:
        positions: how many.
        d_model: D.

    Returns:
        The figure.
    """
    figure = new_chart(13, 4.2)
    panels = figure.subplots(1, len(LAYOUTS), sharey=True)
    for axes, layout in zip(panels, LAYOUTS, strict=True):
        encodings = position_encodings(positions, d_model, layout)
        image = draw_matrix(axes, encodings, cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_title(_TITLES[layout], fontsize=10)
        axes.set_xlabel("dimension")
    panels[0].set_ylabel("position")
    figure.colorbar(image, ax=panels, label="value")
    return figure


def plot_position_products(positions: int = 50, d_model: int = 128) -> Figure:
    """Draws the dot product of any two encodings: it depends on their distance alone, and falls with it in waves.

    Args:
        positions: how many.
        d_model: D.

    Returns:
        The figure: the matrix of all pairs for the paper's layout, and the product by distance for each.
    """
    figure = new_chart(11, 4.4)
    matrix, curves = figure.subplots(1, 2)
    for layout in LAYOUTS:
        encodings = position_encodings(positions, d_model, layout).double()
        products = encodings @ encodings.T
        by_distance = [products.diagonal(distance) for distance in range(positions)]
        spread = max(float(each.max() - each.min()) for each in by_distance)
        label = f"{layout} (equal distances differ by {spread:.0e})"
        style = "--" if layout == "concatenated" else "-"  # it lies upon the first one
        curves.plot([float(each.mean()) for each in by_distance], style, label=label)
        if layout == "interleaved":
            figure.colorbar(draw_matrix(matrix, products, cmap="viridis"), ax=matrix, label="PE(i) · PE(j)")
    matrix.set(title="dot products, interleaved", xlabel="position j", ylabel="position i")
    curves.set(title="dot product by distance", xlabel="distance |i - j|", ylim=(0, None))
    curves.legend(fontsize=8)
    return figure


def plot_shift_rotation(shift: int = 5, d_model: int = 16, positions: int = 50) -> Figure:
    """Draws the rotation of one shift, and how exactly the identity holds for all shifts up to 50.

    Args:
        shift: k of the matrix that is drawn.
        d_model: D of that matrix; the check has D = 128.
        positions: how many the identity is checked at.

    Returns:
        The figure.
    """
    figure = new_chart(11, 4.4)
    matrix, errors = figure.subplots(1, 2)
    image = draw_matrix(matrix, shift_rotation(shift, d_model), cmap="RdBu_r", vmin=-1, vmax=1)
    figure.colorbar(image, ax=matrix, label="entry of M")
    matrix.set(title=f"M with PE(pos + {shift}) = M PE(pos), D = {d_model}", xlabel="dimension", ylabel="dimension")
    shifts = range(1, _SHIFTS + 1)
    for layout, style in zip(LAYOUTS, ("o", "+", "x"), strict=True):
        errors.plot(shifts, shift_errors(shifts, positions, 128, layout), style, label=layout)
    errors.set(title="largest |PE(pos + k) - M PE(pos)|, D = 128", xlabel="shift k", ylim=(0, 4e-7))
    errors.axhline(2**-23, color="grey", linewidth=0.8, label="spacing of float32 at 1")
    errors.legend(fontsize=8)
    return figure


def _rotation(encoding: torch.Tensor, layout: str) -> torch.Tensor:
    places = torch.arange(len(encoding))
    if layout == "interleaved":
        sines, cosines = places[0::2], places[1::2]
    else:
        sines, cosines = places.chunk(2)
    matrix = torch.zeros(len(encoding), len(encoding), dtype=encoding.dtype)
    matrix[sines, sines] = matrix[cosines, cosines] = encoding[cosines]
    matrix[sines, cosines], matrix[cosines, sines] = encoding[sines], -encoding[sines]
    return matrix
