"""The vanishing gradient: against derivatives by hand, and what follows from them."""

import math

import pytest
import torch
from commanding import run

from hf_vanilla_transformer.commands import lab_gradients
from hf_vanilla_transformer.lab.gradients import (
    KINDS,
    GradientNorms,
    gradient_norms,
    gradients_table,
    measure_gradients,
    plot_gradients,
)

WIDTH = 8


def module_of(name):
    torch.manual_seed(3)
    return KINDS[name].build(WIDTH).double().eval()


def test_the_gradient_of_an_elman_network_is_a_product_of_jacobians():
    """d h_T / d x_t is the product of diag(1 - h^2) W over the steps between, times diag(1 - h^2) U at t."""
    module, length = module_of("RNN"), 5
    layer = module.layers[0]
    norms = gradient_norms(module, WIDTH, length, torch.Generator().manual_seed(7), sequences=1)
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(1, length, WIDTH, generator=generator, dtype=torch.float64)
    direction = torch.randn(1, WIDTH, generator=generator, dtype=torch.float64)[0]
    hidden, states = torch.zeros(WIDTH).double(), []
    for step in inputs[0]:
        pre = layer.weight_ih_l0 @ step + layer.bias_ih_l0 + layer.weight_hh_l0 @ hidden + layer.bias_hh_l0
        hidden = pre.tanh()
        states.append(hidden)
    for position in range(length):
        jacobian = torch.diag(1 - states[position] ** 2) @ layer.weight_ih_l0
        for later in states[position + 1 :]:
            jacobian = torch.diag(1 - later**2) @ layer.weight_hh_l0 @ jacobian
        torch.testing.assert_close(norms[0, position], (direction @ jacobian).norm())


@pytest.mark.parametrize("name", KINDS)
def test_the_gradient_is_that_of_finite_differences(name):
    module = module_of(name)
    norms = gradient_norms(module, WIDTH, 3, torch.Generator().manual_seed(1), sequences=2)
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(2, 3, WIDTH, generator=generator, dtype=torch.float64)
    directions = torch.randn(2, WIDTH, generator=generator, dtype=torch.float64)

    def output(changed):
        return (module(inputs_embeds=changed).last_hidden_state[:, -1] * directions).sum(-1)

    squares = torch.zeros(2).double()
    with torch.no_grad():
        for place in range(WIDTH):
            step = torch.zeros_like(inputs)
            step[:, 0, place] = 1e-6
            squares += ((output(inputs + step) - output(inputs - step)) / 2e-6) ** 2
    torch.testing.assert_close(norms[:, 0], squares.sqrt(), rtol=1e-5, atol=1e-8)


def test_what_vanishes_and_what_does_not():
    names = ["RNN", "LSTM", "LSTM, forget bias 5", "Transformer"]
    found = {each.name: each for each in measure_gradients([4, 16, 32], WIDTH, 2, names)}
    factors = {name: each.factor_per_position for name, each in found.items()}
    assert factors["RNN"] < factors["LSTM"] < 0.8 < factors["LSTM, forget bias 5"]
    assert factors["Transformer"] > 0.9
    assert found["RNN"].ratios[32] < 1e-6 < found["Transformer"].ratios[32]


def test_the_same_networks_are_measured_whatever_was_drawn_before():
    before = torch.random.get_rng_state()
    first = measure_gradients([2, 3], WIDTH, 1, ["GRU"])
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    assert measure_gradients([3, 2], WIDTH, 1, ["GRU"]) == first
    with pytest.raises(ValueError, match="not two or more different numbers"):
        measure_gradients([4, 4])
    with pytest.raises(ValueError, match="no multiple of 4"):
        measure_gradients([2, 4], 6)
    with pytest.raises(ValueError, match="there is no kind 'CNN'; there are RNN, GRU"):
        measure_gradients([2, 4], names=["CNN"])


def test_the_table_has_claims_beside_numbers():
    found = [GradientNorms("X", "a claim", {2: 0.5, 4: 0.125})]
    assert math.isclose(found[0].factor_per_position, 0.5)
    line = gradients_table(found).splitlines()[-1]
    assert line == "| X | 0.5 | 0.12 | x 0.500 | a claim |"


@pytest.mark.parametrize("name", ["plot.png", "plot.svg"])
def test_the_plot_appears_whole_or_not_at_all(name, tmp_path):
    pytest.importorskip("matplotlib")
    found = [GradientNorms("X", "a claim", {2: 0.5, 4: 0.125})]
    plot_gradients(found, tmp_path / name)
    head = (tmp_path / name).read_bytes()[:5]
    assert head == (b"\x89PNG\r" if name.endswith("png") else b"<?xml")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(ValueError, match="a picture ends in .png or .svg"):
        plot_gradients(found, tmp_path / "plot.gif")


def test_a_plot_without_matplotlib_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match=r"hf-vanilla-transformer\[lab\]"):
        plot_gradients([GradientNorms("X", "a claim", {2: 0.5, 4: 0.125})], tmp_path / "plot.png")


def test_the_verb_prints_the_table():
    done = run(lab_gradients.main, "--lengths", 2, 4, "--d_model", 4, "--seeds", 1)
    assert done.returncode == 0
    assert [line.split(" | ")[0] for line in done.stdout.splitlines()[2:]] == [f"| {name}" for name in KINDS]
    assert "no multiple of 4" in run(lab_gradients.main, "--d_model", 3).error
