"""The command `lab-inputs`."""

import sys

import pytest
from commanding import run
from test_digits import drawn_digits

from hf_vanilla_transformer.commands import lab_inputs
from hf_vanilla_transformer.lab import inputs


def test_both_tables_are_printed_and_written(tmp_path, monkeypatch):
    tiny = {"d_model": 8, "num_heads": 2, "d_ff": 8, "num_encoder_layers": 1, "num_decoder_layers": 1}
    monkeypatch.setitem(lab_inputs.TABLES, "forecast", lambda seeds, step, **sizes: f"{list(seeds)} {sizes}")
    monkeypatch.setattr(inputs, "READER", {**inputs.READER, **tiny})
    for module in (lab_inputs, inputs):
        monkeypatch.setattr(module, "load_digits", drawn_digits)
    sizes = {"--seeds": 1, "--steps": 1, "--examples": 4, "--test_examples": 4, "--output": tmp_path / "inputs.md"}
    done = run(lab_inputs.main, *(word for pair in sizes.items() for word in pair))
    assert done.returncode == 0, done.stderr
    forecasts, readings, end = done.stdout.strip().split("\n\n")
    assert forecasts == "[0] {'steps': 1, 'examples': 4, 'test_examples': 4}"
    header, _, neighbours, model = readings.splitlines()
    assert header.startswith("| Digits read as words, right in % | ")
    assert neighbours.startswith("| nearest neighbour, told where each digit is | 100.0 | 100.0 | 100.0 |")
    assert model.startswith("| this model, seed 0 |")
    assert end.startswith("2 models in ")
    assert (tmp_path / "inputs.md").read_text() == done.stdout


def test_what_is_missing_or_impossible_is_said_at_once(monkeypatch):
    assert "steps=0 is less than 1" in run(lab_inputs.main, "--steps", 0).error
    monkeypatch.setitem(lab_inputs.TABLES, "forecast", pytest.fail)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert "scikit-learn" in run(lab_inputs.main).error
