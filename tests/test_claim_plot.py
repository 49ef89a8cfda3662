"""The picture of claims beside findings: it appears whole or not at all."""

import statistics
import sys

import pytest
from queue_lists import check_picture
from test_claim_results import DIVERGED, ended, said

from hf_vanilla_transformer.lab import claim_plot
from hf_vanilla_transformer.lab.claim_plot import plot_claims


@pytest.fixture
def runs(tmp_path):
    entries = {"base": (said(bleu=25.8), [20.0, 20.5]), "one": (said(bleu=24.9), [15.0, 15.5]), "two": (None, [])}
    return ended(tmp_path, entries)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_it_is_drawn(runs, tmp_path, ending):
    path = tmp_path / f"claims.{ending}"
    plot_claims(runs, path)
    check_picture(path)


def test_each_entry_with_results_has_its_dots_and_what_is_said(runs):
    comparisons = claim_plot.compare(runs)[:2]
    (axes,) = claim_plot._draw(comparisons, comparisons[0]).axes
    dots = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in dots] == [[20.0, 20.5], [15.0, 15.5]]
    assert dots[1].get_color() == claim_plot._COLORS["agrees"]
    assert [text.get_text() for text in axes.texts] == ["25.80", "24.90 (worse)"]


def drawn(runs, path, monkeypatch):
    """The panel of a picture."""
    figures = []
    monkeypatch.setattr(claim_plot, "save_chart", lambda figure, *args, **options: figures.append(figure))
    plot_claims(runs, path)
    (axes,) = figures[0].axes
    return axes


@pytest.mark.parametrize("scores", [[20.0, 21.0], []])
def test_the_dashed_line_is_the_mean_of_the_first_entry_of_the_list_or_is_not_there(tmp_path, monkeypatch, scores):
    runs = ended(tmp_path, {"base": (said(bleu=25.8), scores), "one": (None, [15.0, 15.5])})
    axes = drawn(runs, tmp_path / "a.png", monkeypatch)
    lines = [list(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "--"]
    assert lines == ([[statistics.fmean(scores)] * 2] if scores else [])


def test_runs_that_diverged_are_at_the_worst_edge_and_counted(tmp_path, monkeypatch):
    entries = {"base": (None, [5.0, 6.0]), "one": (said(perplexity="worse"), [DIVERGED, 7.0])}
    entries["two"] = (None, [DIVERGED, DIVERGED])
    axes = drawn(ended(tmp_path, entries, "perplexity"), tmp_path / "a.png", monkeypatch)
    crosses = [line for line in axes.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in crosses] == [(1.0, 1), (1.0, 2)]
    assert crosses[0].get_transform() == axes.get_yaxis_transform()
    assert [text.get_text() for text in axes.texts] == ["", "worse; diverged in 1 of 2", "diverged in 2 of 2"]
    axes.figure.draw_without_rendering()
    assert axes.get_xlim()[1] < 10, "the cross is no value"


def test_what_cannot_be_drawn_is_refused_and_an_earlier_picture_stays(runs, tmp_path):
    with pytest.raises(ValueError, match=r"claims.txt: a picture ends in .png, .svg, .pdf"):
        plot_claims(runs, tmp_path / "claims.txt")
    path = tmp_path / "claims.png"
    path.write_text("earlier")
    runs.results.unlink()
    with pytest.raises(ValueError, match="has nothing to draw"):
        plot_claims(runs, path)
    assert path.read_text() == "earlier"


def test_without_matplotlib_it_says_what_to_install(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if it could not be found
    with pytest.raises(ValueError, match="a picture needs matplotlib: pip install"):
        plot_claims(runs, tmp_path / "claims.png")
    assert not (tmp_path / "claims.png").exists()
