"""Series like the use of electricity, with noise of known size: how near to it does a forecast of one day come?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

DAY, WEEK = 24, 168  # hours
# Standard deviation of the noise, and hours and greatest amplitude of each wave.
NOISE = 0.3
WAVES = {24: 1.5, 12: 0.7, 168: 1.0, 84: 0.4}
# Standard deviation of the rise in a week.
TREND = 0.25
# Values become tokens by bins of equal width, over so many standard deviations of what is known to either side.
BINS, REACH = 64, 4.0
FIRST_BIN = 4  # after the special tokens


@dataclass(frozen=True)
class Series:
    """Windows of hourly series, each of another one: whole days that are known, and the day after them.

    Args:
        known: (N, days * 24).
        future: (N, 24), the day after.
        signal: (N, 24), the day after without noise.
    """

    known: torch.Tensor
    future: torch.Tensor
    signal: torch.Tensor


def make_series(count: int, seed: int, days: int = 14) -> Series:
    """Makes windows with a level, a trend, waves of a day and a week of random size and phase, and normal noise.

    Args:
        count: N.
        seed: of the random numbers.
        days: how many are known, at least a week.

    Returns:
        The windows, in float32.

    Raises:
        ValueError: there is no window, or less than a week is known.
    """
    if count < 1 or days < 7:
        raise ValueError(f"count={count} and days={days}: there must be a window, and a week that is known")
    generator = torch.Generator().manual_seed(seed)
    hours = torch.arange((days + 1) * DAY)
    signal = 10 + 3 * torch.randn(count, 1, generator=generator)
    signal = signal + TREND * torch.randn(count, 1, generator=generator) * hours / WEEK
    for period, greatest in WAVES.items():
        amplitude = greatest * (0.3 + 0.7 * torch.rand(count, 1, generator=generator))
        phase = 2 * math.pi * torch.rand(count, 1, generator=generator)
        signal = signal + amplitude * torch.sin(2 * math.pi * hours / period + phase)
    values = signal + NOISE * torch.randn(signal.shape, generator=generator)
    return Series(values[:, :-DAY], values[:, -DAY:], signal[:, -DAY:])


def scale_of(known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation, (N, 1) each, of what is known of each window (N, hours)."""
    return known.mean(1, keepdim=True), known.std(1, keepdim=True)


def to_tokens(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Turns values into tokens, a bin each.

    Args:
        values: (N, T).
        known: (N, hours), which gives the scale.

    Returns:
        (N, T) from `FIRST_BIN` on; what lies beyond `REACH` gets the outermost bin.
    """
    mean, deviation = scale_of(known)
    places = ((values - mean) / deviation + REACH) * (BINS / (2 * REACH))
    return places.floor().clamp(0, BINS - 1).long() + FIRST_BIN


def expected_values(logits: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Turns predictions of tokens into values: the mean of the middles of all bins, by their probability.

    Args:
        logits: (N, T, V).
        known: (N, hours), which gives the scale.

    Returns:
        (N, T).
    """
    mean, deviation = scale_of(known)
    middles = (torch.arange(BINS, device=logits.device) + 0.5) * (2 * REACH / BINS) - REACH
    probabilities = logits[..., FIRST_BIN : FIRST_BIN + BINS].float().softmax(-1)
    return probabilities @ middles * deviation + mean


def seasonal_naive(known: torch.Tensor) -> torch.Tensor:
    """Forecasts that the next day is as the same day was a week ago, noise included; (N, hours) to (N, 24)."""
    return known[:, -WEEK : DAY - WEEK]


def least_squares(known: torch.Tensor) -> torch.Tensor:
    """Forecasts by regression on the very terms that the series are made of: the best that two weeks allow.

    Args:
        known: (N, hours).

    Returns:
        (N, 24).
    """
    past, future = _terms(known.shape[1])
    return (future @ torch.linalg.lstsq(past, known.double().T).solution).T.float()


def expected_of_least_squares(hours: int) -> float:
    """The root mean square error of `least_squares`, over that of the noise: what it costs not to know the terms.

    Args:
        hours: that are known.

    Returns:
        At least 1; sqrt(1 + x' (X' X)^-1 x), squared and averaged over the day.
    """
    past, future = _terms(hours)
    spread = future @ torch.linalg.inv(past.T @ past) @ future.T
    return math.sqrt(1 + float(spread.diagonal().mean()))


def expected_of_seasonal_naive() -> float:
    """The root mean square error of `seasonal_naive`, over that of the noise: two noises, and the trend of a week."""
    return math.sqrt(2 + (TREND / NOISE) ** 2)


def _terms(hours: int) -> tuple[torch.Tensor, torch.Tensor]:
    times = torch.arange(hours + DAY, dtype=torch.float64)
    columns = [torch.ones_like(times), times / WEEK]
    for period in WAVES:
        columns += [torch.sin(2 * math.pi * times / period), torch.cos(2 * math.pi * times / period)]
    terms = torch.stack(columns, dim=1)
    return terms[:hours], terms[hours:]


@dataclass(frozen=True)
class ForecastErrors:
    """How far forecasts are from what came, in units of the series.

    Args:
        mae: mean absolute error.
        rmse: root mean square error.
    """

    mae: float
    rmse: float

    @property
    def mae_ratio(self) -> float:
        """The mean absolute error, over that of the noise alone, which is sqrt(2 / pi) of its standard deviation."""
        return self.mae / (NOISE * math.sqrt(2 / math.pi))

    @property
    def rmse_ratio(self) -> float:
        """The root mean square error, over that of the noise alone."""
        return self.rmse / NOISE


def forecast_errors(forecast: torch.Tensor, future: torch.Tensor) -> ForecastErrors:
    """Compares forecasts (N, 24) with what came (N, 24)."""
    differences = (forecast - future).double()
    return ForecastErrors(float(differences.abs().mean()), float(differences.square().mean().sqrt()))


def forecast_rows(errors: Sequence[tuple[str, str, ForecastErrors]]) -> list[list[str]]:
    """Writes errors as rows of a table.

    Args:
        errors: for each forecast its name, what is expected of the ratio of `rmse` to the floor, and its errors.

    Returns:
        A header, and a row for each.
    """
    header = ["Forecast of the next day", "RMSE / noise, expected", "RMSE / noise", "MAE / noise", "RMSE", "MAE"]
    rows = [
        [name, expected, *(f"{x:.3f}" for x in (each.rmse_ratio, each.mae_ratio, each.rmse, each.mae))]
        for name, expected, each in errors
    ]
    return [header, *rows]
