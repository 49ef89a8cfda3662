"""Learning from series and images: what goes into the models, what is made of their outputs, and the tables."""

from types import SimpleNamespace

import pytest
import torch

from hf_vanilla_transformer.lab import inputs
from hf_vanilla_transformer.lab.digits import to_labels
from hf_vanilla_transformer.lab.inputs import (
    FORECASTER,
    READER,
    forecast,
    forecast_table,
    read,
    small_translator,
    train_small,
)
from hf_vanilla_transformer.lab.series import BINS, DAY, FIRST_BIN, expected_values, make_series, scale_of

TINY = {"d_model": 8, "num_heads": 2, "d_ff": 8, "num_encoder_layers": 1, "num_decoder_layers": 1}


@pytest.fixture
def small(monkeypatch):
    """Models of a tenth of the size."""
    monkeypatch.setattr(inputs, "FORECASTER", {**FORECASTER, **TINY})
    monkeypatch.setattr(inputs, "READER", {**READER, **TINY})


def test_a_forecast_is_the_mean_of_what_the_model_expects_of_each_hour(small):
    series, seen = make_series(4, seed=0), []
    logits = torch.randn(4, DAY, FIRST_BIN + BINS)

    def generate(input_features, max_new_tokens, **options):
        seen.append(input_features)
        rows = slice(sum(map(len, seen[:-1])), sum(map(len, seen)))
        return SimpleNamespace(logits=tuple(logits[rows].unbind(1)))

    model = SimpleNamespace(generate=generate, device="cpu")
    torch.testing.assert_close(forecast(model, series.known, batch_size=3), expected_values(logits, series.known))
    mean, deviation = scale_of(series.known)
    torch.testing.assert_close(torch.cat(seen).squeeze(-1) * deviation + mean, series.known, rtol=0, atol=1e-4)


def test_the_table_of_forecasts_has_what_is_expected_beside_what_is_measured(small):
    done = []
    table = forecast_table([5], steps=1, examples=4, test_examples=4, step=lambda: done.append(1))
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert header[:3] == ["Forecast of the next day", "RMSE / noise, expected", "RMSE / noise"]
    names = [row[0] for row in rows]
    assert names[2:] == ["this model, seed 5", "as a week ago (seasonal naive)"]
    assert len(done) == 1
    for row in rows:
        assert float(row[2]) * 0.3 == pytest.approx(float(row[4]), abs=1e-3)


@pytest.mark.slow  # 2 seconds
def test_the_recipe_learns_by_heart_what_an_image_says(small):
    """And reading gives it back: a few images, each of one colour."""
    texts = ["one", "two two", "six"]
    shades = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 1, 8, 24)
    shape = {**READER, **TINY, "d_model": 16, "d_ff": 32, "dropout": 0.0}
    model = train_small(
        small_translator(shape, 0), {"pixel_values": shades, "labels": to_labels(texts)}, steps=150, seed=0
    )
    assert read(model, shades, batch_size=2) == texts
