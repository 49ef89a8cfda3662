"""Series with noise of known size: what they are made of, their tokens, and forecasts whose errors are known."""

import math

import pytest
import torch

from hf_vanilla_transformer.lab.series import (
    BINS,
    DAY,
    FIRST_BIN,
    NOISE,
    REACH,
    WAVES,
    WEEK,
    expected_of_least_squares,
    expected_of_seasonal_naive,
    expected_values,
    forecast_errors,
    forecast_rows,
    least_squares,
    make_series,
    scale_of,
    seasonal_naive,
    to_tokens,
)

SERIES = make_series(2000, seed=0)
# A root mean square over N x 24 errors is off by 1 / sqrt(2 N 24) of itself, were they independent; here by a little
# more, for a forecast that is wrong in one hour is so in the next.
TOLERANCE = 0.03


def test_the_noise_is_of_the_known_size_and_of_no_other():
    noise = SERIES.future - SERIES.signal
    assert noise.std().item() == pytest.approx(NOISE, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=5 * NOISE / math.sqrt(noise.numel()))
    after = (noise[:, 1:] * noise[:, :-1]).mean() / NOISE**2
    assert after.item() == pytest.approx(0, abs=5 / math.sqrt(noise.numel()))
    floor = forecast_errors(SERIES.signal, SERIES.future)
    assert floor.rmse_ratio == pytest.approx(1, rel=0.02)
    assert floor.mae_ratio == pytest.approx(1, rel=0.02)


def test_a_window_is_two_weeks_and_the_day_after_and_a_seed_makes_it():
    assert (SERIES.known.shape, SERIES.future.shape) == ((2000, 14 * DAY), (2000, DAY))
    again, other = make_series(3, seed=5), make_series(3, seed=6)
    assert torch.equal(again.known, make_series(3, seed=5).known)
    assert not torch.equal(again.known, other.known)
    with pytest.raises(ValueError, match="days=6"):
        make_series(3, 0, days=6)


def test_each_wave_is_in_the_series_and_differs_from_series_to_series():
    hours = torch.arange(2 * WEEK)
    for period, greatest in WAVES.items():  # all of them fit a whole number of times
        turns = torch.exp(2j * math.pi * hours / period)
        sizes = 2 * (SERIES.known.to(turns.dtype) @ turns).abs() / len(hours)
        assert 0.3 * greatest < sizes.median().item() < greatest + 0.1, period
        assert sizes.std().item() > 0.1 * greatest


def test_what_is_expected_of_simple_forecasts_is_measured():
    naive = forecast_errors(seasonal_naive(SERIES.known), SERIES.future)
    assert naive.rmse_ratio == pytest.approx(expected_of_seasonal_naive(), rel=TOLERANCE)
    best = forecast_errors(least_squares(SERIES.known), SERIES.future)
    assert best.rmse_ratio == pytest.approx(expected_of_least_squares(14 * DAY), rel=TOLERANCE)
    assert 1 < expected_of_least_squares(28 * DAY) < expected_of_least_squares(14 * DAY) < expected_of_seasonal_naive()


def test_as_a_week_ago_means_the_same_hours_of_the_same_day():
    known = torch.arange(14 * DAY).unsqueeze(0)
    assert torch.equal(seasonal_naive(known)[0], torch.arange(14 * DAY, 15 * DAY) - WEEK)


def test_regression_is_exact_without_noise():
    hours = torch.arange(15 * DAY, dtype=torch.float64)
    series = 3 + 0.2 * hours / WEEK + sum(torch.sin(2 * math.pi * hours / period + period) for period in WAVES)
    forecast = least_squares(series[None, :-DAY])
    torch.testing.assert_close(forecast[0].double(), series[-DAY:], rtol=0, atol=1e-5)


def test_values_survive_being_tokens_but_for_half_a_bin():
    tokens = to_tokens(SERIES.future, SERIES.known)
    assert tokens.min() >= FIRST_BIN
    assert tokens.max() < FIRST_BIN + BINS
    assert tokens.unique().numel() > BINS / 3
    certain = torch.full((*tokens.shape, FIRST_BIN + BINS), -100.0).scatter(-1, tokens.unsqueeze(-1), 0.0)
    _, deviation = scale_of(SERIES.known)
    halves = (expected_values(certain, SERIES.known) - SERIES.future).abs() / (deviation * REACH / BINS)
    assert 0.9 < halves.max().item() < 1.001
    # Two neighbours, as likely as each other, mean the border between them; special tokens play no part.
    even = torch.full((1, 1, FIRST_BIN + BINS), -100.0)
    even[..., :FIRST_BIN], even[..., FIRST_BIN + 40 : FIRST_BIN + 42] = 100.0, 0.0
    known = torch.tensor([[9.0, 11.0] * 12])
    mean, deviation = scale_of(known)
    border = (41 * 2 * REACH / BINS - REACH) * deviation + mean
    torch.testing.assert_close(expected_values(even, known), border, rtol=0, atol=1e-4)


def test_values_out_of_reach_get_the_outermost_bins():
    known = torch.tensor([[-1.0, 1.0] * 12])
    assert to_tokens(torch.tensor([[-99.0, 99.0]]), known).tolist() == [[FIRST_BIN, FIRST_BIN + BINS - 1]]


def test_errors_are_written_as_they_are():
    errors = forecast_errors(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 5.0]]))
    assert (errors.mae, errors.rmse) == (1.5, pytest.approx(math.sqrt(4.5)))
    header, row = forecast_rows([("f", "1", errors)])
    assert len(header) == len(row)
    ratios = [errors.rmse / NOISE, 1.5 / (NOISE * math.sqrt(2 / math.pi))]
    assert row == ["f", "1", *(f"{ratio:.3f}" for ratio in ratios), "2.121", "1.500"]
