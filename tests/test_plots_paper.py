"""The pictures of the paper: each against its definition."""

import pytest
import torch

from hf_vanilla_transformer.lab.plots_paper import (
    dot_product_statistics,
    normalised_activations,
    paper_pictures,
    plot_label_smoothing,
    plot_learning_rate,
    plot_masks,
    plot_norms,
    plot_scaling,
    smoothed_targets,
    toy_model,
)


def test_masks_are_drawn_for_a_sentence_with_padding_and_one_without():
    seen = plot_masks().axes
    allowed = [~torch.tensor(axes.images[0].get_array().mask) for axes in seen]
    everything, triangle = torch.ones(5, 5, dtype=torch.bool), torch.ones(5, 5, dtype=torch.bool).tril()
    tokens = torch.arange(5) < 3
    expected = [everything, triangle, everything, everything & tokens, triangle & tokens, everything & tokens]
    assert all(torch.equal(one, other) for one, other in zip(allowed, expected, strict=True))
    assert [label.get_text() for label in seen[4].get_xticklabels()] == ["<s>", "Hund", "rennt", "<pad>", "<pad>"]


def test_learning_rates_are_equation_3():
    axes = plot_learning_rate([(512, 4000), (128, 50)], updates=6000).axes[0]
    for line, (d_model, warmup) in zip(axes.lines, [(512, 4000), (128, 50)], strict=True):
        assert len(line.get_xdata()) >= 1000
        for step, rate in zip(line.get_xdata(), line.get_ydata(), strict=True):
            assert rate == pytest.approx(d_model**-0.5 * min(step**-0.5, step * warmup**-1.5))


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.4])
def test_targets_are_smoothed_over_the_whole_vocabulary(epsilon):
    targets = smoothed_targets(torch.tensor([2, -100, 0]), 5, epsilon)
    for row, label in ((0, 2), (2, 0)):
        expected = torch.full((5,), epsilon / 5, dtype=torch.float64)
        expected[label] += 1 - epsilon
        torch.testing.assert_close(targets[row], expected)
    assert targets[1].abs().max() == 0


def test_certainty_costs_where_labels_are_smoothed():
    heat, curve = plot_label_smoothing(0.1).axes
    plain, smoothed = (torch.tensor(line.get_ydata()) for line in curve.lines)
    certainty = torch.tensor(curve.lines[0].get_xdata())
    torch.testing.assert_close(plain, -certainty.log())
    least = smoothed.argmin()
    assert certainty[least] == pytest.approx(0.9 + 0.1 / 12, abs=0.003)  # q of the right word
    assert smoothed[-1] > smoothed[least] + 0.1
    written = [text.get_text() for text in heat.texts]
    assert (written.count("0.908"), written.count("0.008")) == (5, 55)


def test_the_variance_of_products_is_d_k_and_scaled_it_is_1():
    for d_k in (4, 64):
        found = dot_product_statistics(d_k)
        assert found["variance"] == pytest.approx(d_k, rel=0.05)
        assert found["scaled_variance"] == pytest.approx(1, rel=0.05)
        assert found["slope"] < found["scaled_slope"] < 1
    assert dot_product_statistics(64)["slope"] < 0.5 * dot_product_statistics(4)["slope"]
    variances, _ = plot_scaling((2, 8)).axes
    assert [line.get_ydata()[1] > 6 for line in variances.lines] == [True, False, True]


def test_layer_norm_normalises_tokens_and_batch_norm_features():
    model = toy_model()
    ids = torch.tensor([[4, 5, 6, 2], [7, 8, 2, 1], [9, 5, 4, 11]])
    found = normalised_activations(model, ids, ids.ne(1).long())
    assert found["activations"].shape == (11, 64)
    for name, axis in (("layer norm", 1), ("batch norm", 0)):
        values = found[name].double()
        assert values.mean(axis).abs().max() < 1e-6
        assert (values.var(axis, correction=0) - 1).abs().max() < 1e-4
        assert values.mean(1 - axis).abs().max() > 0.05
    # What the model's own norm makes of the same: fresh gains are 1, fresh biases 0.
    own = model.model.encoder.layers[0].self_attention_norm(found["activations"])
    torch.testing.assert_close(found["layer norm"], own)
    alone = normalised_activations(model, ids[:1], ids[:1].ne(1).long())
    torch.testing.assert_close(alone["layer norm"], found["layer norm"][:4], rtol=0, atol=1e-5)
    assert (alone["batch norm"] - found["batch norm"][:4]).abs().max() > 0.1
    assert [axes.get_title().partition("\n")[0] for axes in plot_norms().axes[:3]] == list(found)


def test_the_toy_model_is_the_same_every_time_and_leaves_random_numbers_alone():
    state = torch.get_rng_state()
    one, two = toy_model(), toy_model()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.slow
def test_all_pictures_can_be_drawn_without_a_warning(recwarn):
    """Takes 15 seconds."""
    for name, figure in paper_pictures().items():
        figure.canvas.draw()
        assert not recwarn.list, name
