"""The picture of validation scores over minutes: what is on it, and that it appears whole or not at all."""

import json
import shutil

import pytest
from queue_lists import check_picture, pretend_to_train, write_list

from hf_vanilla_transformer.data.seals import write_seal
from hf_vanilla_transformer.lab import curve_plot
from hf_vanilla_transformer.lab.curve_plot import plot_curves, read_curves
from hf_vanilla_transformer.lab.queue_results import append_row, curve_of, finished_results, row_of
from hf_vanilla_transformer.lab.run_list import read_run_list

HISTORY = [
    {"step": 5, "minutes": 0.5, "loss": 4.0, "nll": 3.5},
    {"step": 10, "minutes": 1.2, "eval_loss": 3.0, "eval_perplexity": 20.1, "eval_bleu": 10.0, "eval_runtime": 9.0},
    {"step": 20, "minutes": 2.4, "eval_loss": 2.5, "eval_bleu": 12.0, "eval_note": "text"},
    {"step": 20, "minutes": 2.5, "final_loss": 2.4, "final_bleu": 13.0, "final_runtime": 8.0},
]


def test_a_curve_is_what_validation_found_and_when():
    assert curve_of(HISTORY) == [
        {"minutes": 1.2, "update": 10, "loss": 3.0, "perplexity": 20.1, "bleu": 10.0},
        {"minutes": 2.4, "update": 20, "loss": 2.5, "bleu": 12.0},
        {"minutes": 2.5, "update": 20, "loss": 2.4, "bleu": 13.0},
    ]


def write_curve(run, history):
    """Leaves the results of a run, with its log, and its line in the file of results."""
    pretend_to_train(run)
    path = run.output_dir / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "history": history}))
    return row_of(run, finished_results(run))


def save_on_the_way(run, history):
    """Leaves a checkpoint of a run that has not ended."""
    checkpoint = run.output_dir / "checkpoint-20"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    write_seal(checkpoint)


@pytest.fixture
def runs(tmp_path):
    """Two seeds that have ended, a run on its way, one that waits, and one without validation."""
    twice = {"name": "twice", "seeds": [1, 2], "output_dir": str(tmp_path / "twice-{seed}")}
    others = ({"name": name} for name in ("on-its-way", "waits", "never-validated"))
    runs = read_run_list(write_list(tmp_path, [twice, *others]))
    first, second, third, _, last = runs.runs
    for run, history in ((first, HISTORY), (second, HISTORY[:2]), (last, HISTORY[:1])):
        append_row(runs.results, write_curve(run, history))
    shutil.rmtree(first.output_dir)  # the file of results has all that is needed
    save_on_the_way(third, HISTORY[:3])
    return runs


def test_runs_that_have_ended_and_those_on_their_way_have_a_curve(runs):
    curves = read_curves(runs)
    assert list(curves) == ["twice-seed1", "twice-seed2", "on-its-way"]
    assert curves == dict(zip(curves, map(curve_of, (HISTORY, HISTORY[:2], HISTORY[:3])), strict=True))


def test_results_of_a_former_version_lack_a_curve_which_the_folder_of_the_run_has(runs):
    rows = [json.loads(line) for line in runs.results.read_text().splitlines()]
    runs.results.write_text("".join(json.dumps({**row, "curve": None}) + "\n" for row in rows))
    assert list(read_curves(runs)) == ["twice-seed2", "on-its-way"]


def test_there_is_a_panel_for_each_score_and_a_line_for_each_run(runs, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(curve_plot, "save_chart", lambda figure, *args, **options: figures.append(figure))
    plot_curves(runs, tmp_path / "a.png")
    loss, bleu = figures[0].axes
    assert (loss.get_title(), bleu.get_title()) == ("validation: Loss", "validation: BLEU")
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in bleu.lines]
    assert drawn == [([1.2, 2.4, 2.5], [10.0, 12.0, 13.0]), ([1.2], [10.0]), ([1.2, 2.4], [10.0, 12.0])]
    first, second, third = (line.get_color() for line in bleu.lines)
    assert first == second != third, "seeds have one color"
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["twice", "on-its-way"]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_it_is_drawn(runs, tmp_path, ending):
    path = tmp_path / f"curves.{ending}"
    plot_curves(runs, path)
    check_picture(path)


def test_what_cannot_be_drawn_is_refused_and_an_earlier_picture_stays(runs, tmp_path):
    with pytest.raises(ValueError, match=r"a\.txt: a picture ends in .png, .svg, .pdf"):
        plot_curves(runs, tmp_path / "a.txt")
    path = tmp_path / "a.png"
    path.write_text("earlier")
    empty = read_run_list(write_list(tmp_path / "other", [{"name": "waits"}], tmp_path))
    with pytest.raises(ValueError, match="has nothing to draw: no run has validation scores yet"):
        plot_curves(empty, path)
    assert path.read_text() == "earlier"
