"""§3.5 in pictures: against the formula in float64."""

import numpy
import pytest
import torch

from hf_vanilla_transformer.lab.plots_positions import (
    LAYOUTS,
    plot_position_products,
    plot_shift_rotation,
    plot_sinusoids,
    position_encodings,
    shift_errors,
    shift_rotation,
)


def by_formula(positions, d_model, layout):
    """The encodings in float64, and the angle of each dimension per position."""
    index = numpy.arange(d_model // 2)
    exponent = 2 * index / d_model if layout != "concatenated_tensor2tensor" else index / (d_model // 2 - 1)
    frequencies = 10000.0**-exponent
    angles = numpy.arange(positions)[:, None] * frequencies
    halves = numpy.concatenate([numpy.sin(angles), numpy.cos(angles)], axis=1)
    order = numpy.arange(d_model).reshape(2, -1).T.ravel() if layout == "interleaved" else numpy.arange(d_model)
    return halves[:, order], order, frequencies


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_shift_is_a_rotation_in_float64(layout):
    """The identity itself, with the matrix that is drawn: each 2 x 2 block turns by shift times frequency."""
    encodings, order, frequencies = by_formula(120, 32, layout)
    numpy.testing.assert_allclose(position_encodings(120, 32, layout), encodings, rtol=0, atol=6e-8)
    place = numpy.argsort(order)  # where the sines stand, then the cosines
    for shift in (1, 7, 60):
        exact = numpy.zeros((32, 32))
        for pair, angle in enumerate(shift * frequencies):
            sine, cosine = place[pair], place[16 + pair]
            exact[sine, sine] = exact[cosine, cosine] = numpy.cos(angle)
            exact[sine, cosine], exact[cosine, sine] = numpy.sin(angle), -numpy.sin(angle)
        numpy.testing.assert_allclose(encodings[:60] @ exact.T, encodings[shift : shift + 60], rtol=0, atol=1e-12)
        numpy.testing.assert_allclose(exact @ exact.T, numpy.eye(32), rtol=0, atol=1e-12)
        numpy.testing.assert_allclose(shift_rotation(shift, 32, layout), exact, rtol=0, atol=6e-8)
        assert max(shift_errors([shift], 60, 32, layout)) < 3e-7


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_identity_is_not_that_of_another_shift_or_layout(layout):
    encodings = position_encodings(20, 16, layout)
    other = LAYOUTS[LAYOUTS.index(layout) - 1]
    for matrix in (shift_rotation(4, 16, layout), shift_rotation(3, 16, other)):
        assert (encodings[:10] @ matrix.T - encodings[3:13]).abs().max() > 1e-3


def test_sinusoids_are_drawn_in_three_layouts():
    seen = plot_sinusoids(50, 128).axes[:3]
    assert [axes.get_title().partition("\n")[0] for axes in seen] == list(LAYOUTS)
    for axes, layout in zip(seen, LAYOUTS, strict=True):
        numpy.testing.assert_allclose(axes.images[0].get_array(), by_formula(50, 128, layout)[0], atol=1e-7)


def test_products_depend_on_the_distance():
    matrix, curves = plot_position_products(20, 32).axes[:2]
    products = matrix.images[0].get_array()
    encodings = by_formula(20, 32, "interleaved")[0]
    numpy.testing.assert_allclose(products, encodings @ encodings.T, atol=1e-5)
    for line, layout in zip(curves.lines, LAYOUTS, strict=True):
        frequencies = by_formula(1, 32, layout)[2]
        expected = [numpy.cos(distance * frequencies).sum() for distance in range(20)]
        numpy.testing.assert_allclose(line.get_ydata(), expected, atol=1e-5)


def test_the_rotation_is_drawn_beside_its_errors():
    matrix, errors = plot_shift_rotation(5, 16, positions=3).axes[:2]
    assert torch.equal(torch.tensor(matrix.images[0].get_array()).float(), shift_rotation(5, 16))
    points = [line for line in errors.lines if len(line.get_xdata()) == 50]
    assert len(points) == 3
    assert max(float(max(line.get_ydata())) for line in points) < errors.get_ylim()[1]
