"""Random features beside softmax: errors on inputs small enough to compute both ways, and the report of them."""

import json

import matplotlib.image
import pytest
import torch

from hf_vanilla_transformer.lab.feature_errors import (
    KINDS,
    FeatureError,
    FeatureErrors,
    feature_lines,
    measure_feature_errors,
    write_feature_report,
)

POSITIVE, *_ = KINDS


def test_errors_fall_with_the_number_of_directions():
    """As the variance of a mean does, by 16 here, if single samples did not weigh so much."""
    measured = measure_feature_errors([32, 512], length=200, width=8)
    for kind in KINDS:
        few, many = measured.of(kind)
        assert (few.directions, many.directions) == (32, 512)
        assert many.mean < few.mean / 3
        assert many.mean < measured.size / 10
    assert -1.4 < measured.exponent(POSITIVE) < -0.4


def test_one_sample_is_softmax_beside_its_estimate():
    measured = measure_feature_errors([4, 5], length=6, width=3, samples=1)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(6, 3, generator=generator).double() for _ in range(3))
    exact = (query @ key.t() / 3**0.5 / 3**0.5).softmax(-1) @ value  # once more, for both have variance 3^-0.5
    assert measured.size == pytest.approx(float(exact.square().mean()), rel=1e-5)
    assert all(cell.mean > 0 and cell.spread == 0 for cell in measured.cells)


def test_an_exact_exponent_is_found_and_written(tmp_path):
    cells = [FeatureError(kind, m, [3 / m, 5 / m]) for kind in KINDS for m in (16, 64, 256)]
    measured = FeatureErrors(7, 5, 0.5, cells)
    assert measured.exponent(POSITIVE) == pytest.approx(-1)
    far_off = [FeatureError(each.kind, 16, [1e6]) if each.directions == 16 else each for each in cells]
    assert FeatureErrors(7, 5, 0.5, far_off).exponent(POSITIVE) == pytest.approx(-1)  # of the upper half
    write_feature_report(measured, tmp_path)
    assert json.loads((tmp_path / "features.json").read_text())["exponents"][POSITIVE] == pytest.approx(-1)
    assert (tmp_path / "features.md").read_text().splitlines() == feature_lines(measured)
    assert f"| {POSITIVE} | -1.00 | 2.5e-01 ± 9e-02 | 6.2e-02 ± 2e-02 | 1.6e-02 ± 6e-03 |" in feature_lines(measured)
    assert matplotlib.image.imread(tmp_path / "features.png").ndim == 3


@pytest.mark.parametrize("numbers", [[8], [8, 4], [0, 4], [4, 4]])
def test_numbers_that_cannot_be_fitted_are_refused(numbers):
    with pytest.raises(ValueError, match="`random_features` .* are not allowed"):
        measure_feature_errors(numbers)
