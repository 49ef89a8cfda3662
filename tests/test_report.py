"""What a run leaves to look at: numbers, curves, three lines."""

import json
import shlex
import sys
import warnings

import matplotlib.image
import pytest

from hf_vanilla_transformer.training import report
from hf_vanilla_transformer.training.report import plot_curves, summary_lines, write_results

HISTORY = [
    {"step": 10, "loss": 5.0, "nll": 4.8, "learning_rate": 1e-4, "grad_norm": 1.5, "epoch": 0.5},
    {"step": 20, "loss": 4.0, "nll": 3.7, "learning_rate": 2e-4, "grad_norm": 1.0, "epoch": 1.0},
    {"step": 20, "eval_loss": 3.5, "eval_bleu": 2.0, "eval_chrf": 20.0, "epoch": 1.0},
    {"step": 30, "loss": 3.0, "nll": 2.6, "learning_rate": 3e-4, "grad_norm": 0.5, "epoch": 1.5},
    {"step": 30, "train_runtime": 9.0},
]
METRICS = {
    "parameters": 1_834_567,
    "learned_parameters": 1_834_567,
    "updates": 6000,
    "minutes": 35.0,
    "tokens_per_second": 7654.3,
    "padding": 0.0432,
    "final_weights": "average of 8 checkpoints",
    "final_loss": 1.2345,
    "final_perplexity": 3.437,
    "final_bleu": 36.123,
    "final_chrf": 60.456,
    "signatures": {"bleu": "BLEU|v:2", "chrf": "chrF2|v:2"},
}


@pytest.fixture(autouse=True, scope="module")
def _with_pictures(drawn_curves):
    with drawn_curves():
        yield


def test_results_are_json_with_everything_in_them(tmp_path):
    write_results(tmp_path, {"max_tokens": 4096, "output_dir": "ä"}, METRICS, HISTORY)
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    expected = {"metrics": METRICS, "arguments": {"max_tokens": 4096, "output_dir": "ä"}, "history": HISTORY}
    assert results == expected
    assert matplotlib.image.imread(tmp_path / "curves.png").ndim == 3


def test_results_say_what_they_were_computed_on(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "plot_curves", lambda *given: None)
    write_results(tmp_path, {}, METRICS, [], {"device": "A CPU", "threads": 2})
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["environment"] == {"device": "A CPU", "threads": 2}


def test_results_hold_no_secrets_at_any_depth(tmp_path):
    secrets = {"hub_token": "hf_1", "push_to_hub_token": "hf_2", "API_KEY": "3", "smtp_password": "4", "a_secret": "5"}
    harmless = {"new_tokens": ["<2de>"], "max_tokens": 7, "keyword": "k"}
    nested = {"accelerator_config": {**secrets, "split_batches": False}, "train_data": [{"dataset": "d", **secrets}]}
    write_results(tmp_path, {**secrets, **harmless, **nested}, METRICS, [])
    expected = {**harmless, "accelerator_config": {"split_batches": False}, "train_data": [{"dataset": "d"}]}
    assert json.loads((tmp_path / "results.json").read_text())["arguments"] == expected


def test_without_matplotlib_there_are_results_and_no_curves(tmp_path, monkeypatch, package_log):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it could not be found
    write_results(tmp_path, {}, METRICS, HISTORY)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    (record,) = package_log.records
    assert "curves.png is not drawn: matplotlib is not installed" in record.message


def drawn(history, tmp_path, monkeypatch):
    """The curves by name and panel: x, y."""
    panels = []

    def remember(axes, *args):
        draw(axes, *args)
        panels.append({line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines})

    draw = report._draw
    monkeypatch.setattr(report, "_draw", remember)
    plot_curves(history, tmp_path / "curves.png")
    return panels


def test_curves_show_the_log_over_updates(tmp_path, monkeypatch):
    losses, scores, optimizer = drawn(HISTORY, tmp_path, monkeypatch)
    assert losses == {
        "training, smoothed": ([10, 20, 30], [5.0, 4.0, 3.0]),
        "training": ([10, 20, 30], [4.8, 3.7, 2.6]),
        "validation": ([20], [3.5]),
    }
    assert scores == {"BLEU": ([20], [2.0]), "chrF": ([20], [20.0])}
    assert optimizer == {
        "learning rate": ([10, 20, 30], [1e-4, 2e-4, 3e-4]),
        "norm of the gradient": ([10, 20, 30], [1.5, 1.0, 0.5]),
    }
    image = matplotlib.image.imread(tmp_path / "curves.png")
    assert image.shape[1] > 2.5 * image.shape[0]
    assert len({tuple(pixel) for row in image[::3, ::3] for pixel in row}) > 5  # there are curves on it


@pytest.mark.parametrize("history", [[], HISTORY[2:3]], ids=["empty", "one_score"])
def test_any_log_can_be_drawn_without_a_warning(tmp_path, history):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_curves(history, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_has_three_lines_and_the_command_to_try_the_model():
    lines = summary_lines(METRICS, "runs/tiny")
    assert lines[0] == (
        "Trained 1,834,567 parameters for 6,000 updates in 35.0 min, 7,654 target tokens per second, 4.3% padding."
    )
    assert lines[1] == (
        "Validation (average of 8 checkpoints): 1.234 nats per token, perplexity 3.44, BLEU 36.12 (BLEU|v:2), "
        "chrF 60.46."
    )
    assert len(lines) == 3
    command = shlex.split(lines[2].removeprefix("Try it: "))
    assert command[:2] == ["vanilla-transformer", "translate"]
    assert command[command.index("--model") + 1] == "runs/tiny"


def test_a_folder_with_a_blank_is_one_word_of_the_command():
    command = shlex.split(summary_lines(METRICS, "my runs/it's")[2].removeprefix("Try it: "))
    assert command[command.index("--model") + 1] == "my runs/it's"


def test_the_summary_leaves_out_what_there_is_not():
    few = {name: METRICS[name] for name in ("parameters", "learned_parameters", "updates", "minutes")}
    lines = summary_lines(few, "out")
    assert lines[0] == "Trained 1,834,567 parameters for 6,000 updates in 35.0 min."
    assert lines[1] == "No validation text, no scores: give validation_data."
    without_text = {**few, "final_weights": "last update", "final_loss": 1.5, "final_perplexity": 4.48}
    assert summary_lines(without_text, "out")[1] == ("Validation (last update): 1.500 nats per token, perplexity 4.48.")


def test_the_summary_and_the_curves_have_error_rates_where_they_were_computed(tmp_path, monkeypatch):
    rates = {"final_wer": 16.4, "final_per": 3.99, "signatures": {"wer": "error:line", "per": "error:unit"}}
    metrics = {name: value for name, value in METRICS.items() if name not in ("final_bleu", "final_chrf")} | rates
    assert "perplexity 3.44, WER 16.40 (error:line), PER 3.99." in summary_lines(metrics, "out")[1]
    _, scores, _ = drawn([{"step": 20, "eval_loss": 3.5, "eval_wer": 20.0, "eval_per": 5.0}], tmp_path, monkeypatch)
    assert scores == {"WER": ([20], [20.0]), "PER": ([20], [5.0])}


def test_the_summary_says_how_many_parameters_learned_of_how_many():
    line = summary_lines({**METRICS, "learned_parameters": 2048}, "out")[0]
    assert line.startswith("Trained 2,048 of 1,834,567 parameters for 6,000 updates")


def test_after_span_corruption_the_summary_says_how_to_learn_to_translate():
    line = summary_lines(METRICS, "my runs/x/", "span_corruption")[2]
    command = shlex.split(line.removeprefix("Go on: "))
    assert command[:2] == ["vanilla-transformer", "finetune"]
    assert command[command.index("--model_name_or_path") + 1] == "my runs/x/"
    assert command[command.index("--output_dir") + 1] == "my runs/x-finetuned"


@pytest.mark.parametrize(
    ("objective", "option"), [("masked_lm", "--init_encoder_from"), ("prefix_lm", "--init_decoder_from")]
)
def test_after_one_stack_has_learned_the_summary_says_how_a_translator_begins_with_it(objective, option):
    lines = summary_lines(METRICS, "runs/x", objective)
    command = shlex.split(lines[2].removeprefix("Go on: "))
    assert command[1:4] == ["pretrain", option, "runs/x"]
    wanted = {"masked_lm": ("masked tokens", "masked token"), "prefix_lm": ("tokens after prefixes", "token after the")}
    assert f" {wanted[objective][0]} per second" in lines[0]
    assert f"nats per {wanted[objective][1]}" in lines[1]


def test_a_model_that_learned_tags_is_tried_with_one():
    command = shlex.split(summary_lines(METRICS, "runs/tiny", tag="2de bt")[2].removeprefix("Try it: "))
    assert command[command.index("--tag") + 1] == "2de bt"
