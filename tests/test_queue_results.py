"""Results of a queue: whose they are, lines that appear whole or not at all, and tables."""

import json
import math
import os
import statistics
import threading
from types import SimpleNamespace

import pytest
import yaml
from queue_lists import METRICS, pretend_to_train, write_list
from training_runs import write_text

from hf_vanilla_transformer import VanillaTransformerConfig
from hf_vanilla_transformer.lab import queue_results
from hf_vanilla_transformer.lab.ablations import AblatedTransformerConfig
from hf_vanilla_transformer.lab.queue_results import (
    append_row,
    failure_row,
    finished_results,
    last_row,
    latest_rows,
    read_rows,
    results_table,
    row_of,
    score_of,
    scores_text,
)
from hf_vanilla_transformer.lab.run_list import read_run_list
from hf_vanilla_transformer.training import prepare, report, train
from hf_vanilla_transformer.training.trainer import VanillaTransformerTrainer


def one_run(folder, text=None, **options):
    return read_run_list(write_list(folder, [{"name": "a", **options}], text)).runs[0]


WITHOUT_VALIDATION = {"validation_data": [], "learning_rate": 1e-3}


@pytest.mark.parametrize("changes", [{}, pytest.param(WITHOUT_VALIDATION, marks=pytest.mark.slow)])
def test_a_run_that_has_ended_is_recognised_by_what_it_wrote(tmp_path, changes, monkeypatch):
    """The second takes about a second."""
    monkeypatch.setattr(report, "plot_curves", lambda *args: None)  # which takes longest
    run = one_run(tmp_path, write_text(tmp_path), max_steps=1, save_strategy="no", **changes)
    assert finished_results(run) is None
    args = one_run(tmp_path, **{**changes, "max_steps": 1, "save_strategy": "no"}).arguments  # of the run's own process
    result = train(prepare(args), args)
    results = finished_results(run)
    assert results["metrics"]["updates"] == 1
    row = row_of(run, results)
    assert row["parameters"] == sum(weight.numel() for weight in result.model.parameters())
    assert row["minutes"] == result.history[-1]["minutes"]
    expected = {f"final_{name}": value for name, value in row["scores"].items()}
    assert expected.items() <= result.metrics.items()
    assert set(row["scores"]) == (set() if changes else {"loss", "perplexity", "bleu", "chrf"})


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"max_steps": 7}, "max_steps was the default, now 7"),
        ({"config_overrides": ["d_model=32"]}, "config_overrides was ['d_model=16'"),
        ({"seed": 1, "bpe_dropout": 0.1}, "bpe_dropout was the default, now 0.1; seed was the default, now 1"),
    ],
)
def test_results_of_other_settings_are_refused(tmp_path, changes, difference):
    pretend_to_train(one_run(tmp_path))
    assert finished_results(one_run(tmp_path)) is not None
    with pytest.raises(ValueError, match="is of a run with other settings: ") as caught:
        finished_results(one_run(tmp_path, **changes))
    assert difference in str(caught.value)


def test_a_learning_rate_that_is_no_longer_given_is_another_setting(tmp_path):
    """Unless it is what §5.3 says, which the run has found itself."""
    without = one_run(tmp_path, learning_rate=None, lr_scheduler_type="inverse_sqrt", warmup_steps=4)
    found = (16 * 4) ** -0.5
    for given in (found, 2 * found):
        run = one_run(tmp_path, learning_rate=given, lr_scheduler_type="inverse_sqrt", warmup_steps=4)
        pretend_to_train(run)
        VanillaTransformerConfig(d_model=16, num_heads=2).save_pretrained(run.output_dir)
        if given == found:
            assert finished_results(without) is not None
    with pytest.raises(ValueError, match=r"learning_rate was 0\.25, now the default"):
        finished_results(without)


def test_the_learning_rate_that_a_run_of_another_class_has_found_is_known(tmp_path, package_log):
    kind = {"model_class": "hf_vanilla_transformer.lab.ablations:AblatedTransformer"}
    kind["config_overrides"] = {"d_model": 16, "layer_norm": False}
    schedule = {"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 4}
    pretend_to_train(one_run(tmp_path, **kind, **schedule, learning_rate=(16 * 4) ** -0.5))
    run = one_run(tmp_path, **kind, **schedule, learning_rate=None)
    AblatedTransformerConfig(d_model=16, num_heads=2, layer_norm=False).save_pretrained(run.output_dir)
    assert finished_results(run) is not None
    assert package_log.text == ""


def test_what_changes_only_how_long_a_run_takes_is_no_other_setting(tmp_path):
    pretend_to_train(one_run(tmp_path))
    other = {"data_cache_dir": "elsewhere", "logging_steps": 7, "preprocessing_workers": 1, "max_eval_tokens": 99}
    assert finished_results(one_run(tmp_path, **other)) is not None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"arguments": {}}', '{"arguments": 1, "metrics": 2}'])
def test_results_that_cannot_be_read_are_named(tmp_path, text):
    run = one_run(tmp_path)
    run.output_dir.mkdir()
    (run.output_dir / "results.json").write_text(text)
    with pytest.raises(ValueError, match="results.json cannot be read"):
        finished_results(run)


def test_a_row_says_whose_it_is_and_has_no_secrets(tmp_path):
    run = one_run(tmp_path, seeds=[3], train_data=[{"dataset": "d", "token": "hf_1"}])
    pretend_to_train(run, loss=1.5, wer=12.5)
    row = row_of(run, finished_results(run))
    assert (row["name"], row["entry"], row["seed"], row["recipe"]) == ("a-seed3", "a", 3, None)
    assert row["options"]["train_data"] == [{"dataset": "d"}]
    assert "hf_1" not in json.dumps(row)
    assert row["scores"] == {"loss": 1.5, "wer": 12.5}  # and not how long the evaluation took
    assert {name: row[name] for name in ("updates", "parameters", "minutes")}.items() <= METRICS.items()
    assert scores_text(row) == "Loss 1.500, WER 12.50"
    failure = failure_row(run, "no room")
    assert failure["error"] == "no room"
    assert failure["name"] == "a-seed3"


def test_a_run_that_diverges_is_recognised_by_what_the_trainer_says(tmp_path):
    run = one_run(
        tmp_path, write_text(tmp_path), max_steps=9, save_strategy="no", eval_strategy="no", learning_rate=1e30
    )
    with pytest.raises(FloatingPointError) as raised:
        train(prepare(run.arguments), run.arguments)
    (failed,) = tmp_path.glob("a/failed-batch-*.json")
    row = failure_row(run, str(raised.value))
    assert row["diverged_at"] == json.loads(failed.read_text())["update"] > 1
    assert math.isnan(score_of(row, "bleu"))


@pytest.mark.parametrize(
    "what", ["the loss is -inf", "the norm of the gradient is nan", "the norm of the gradient is inf"]
)
def test_other_words_of_the_trainer_for_a_divergence(tmp_path, what):
    trainer = SimpleNamespace(state=SimpleNamespace(global_step=1233), _micro_batches=[[1, 2]], train_dataset=None)
    trainer.args = SimpleNamespace(output_dir=tmp_path, process_index=0)
    error = VanillaTransformerTrainer._describe_failure(trainer, what)
    assert failure_row(one_run(tmp_path), f"{error} (all of it: train.log)")["diverged_at"] == 1234
    assert "diverged_at" not in failure_row(one_run(tmp_path), f"update 1234: no checkpoint, and {what}")


def test_the_last_row_of_a_run_is_of_its_settings(tmp_path):
    """Whatever changes only how long it takes, or how the same is written."""
    former, now = one_run(tmp_path, max_steps=3), one_run(tmp_path, seeds=[1])
    rows = [failure_row(run, error) for run, error in ((now, "first"), (now, "last"), (former, "former"))]
    rows.append({"name": now.name, "error": "who knows"})
    rows[2]["name"] = now.name
    rows = json.loads(json.dumps(rows))
    assert last_row(now, rows)["error"] == "last"
    assert last_row(one_run(tmp_path, seeds=[1], logging_steps=7), rows)["error"] == "last"
    written = yaml.safe_load("\n".join(each.replace("=", ": ") for each in now.options["config_overrides"]))
    for options, row in [
        ({"config_overrides": written}, rows[1]),
        ({"config_overrides": {**written, "dropout": 0.75}}, None),
        ({"max_steps": 4}, None),
        ({"recipe": "quickstart"}, None),
    ]:
        assert last_row(one_run(tmp_path, seeds=[1], **options), rows) == row, options
    assert last_row(one_run(tmp_path, seeds=[2]), rows) is None
    rows[1]["seed"] = 2
    assert last_row(now, rows)["error"] == "first"


ROW = {"name": "a", "entry": "a", "scores": {"loss": 1.0}, "date": "now", "version": "1"}


def test_rows_are_appended_and_read(tmp_path):
    path = tmp_path / "new" / "results.jsonl"
    assert read_rows(path) == []
    rows = [{**ROW, "name": name} for name in ("a", "b ä\n", "c")]
    for row in rows:
        append_row(path, row)
    assert read_rows(path) == rows
    assert len(path.read_text().splitlines()) == 3


def test_the_same_scores_are_there_once_and_every_failure(tmp_path):
    path = tmp_path / "results.jsonl"
    append_row(path, ROW)
    append_row(path, {**ROW, "date": "later", "version": "2"})
    assert read_rows(path) == [ROW]
    infinite = tmp_path / "infinite.jsonl"
    for date in ("now", "later"):
        append_row(infinite, {**ROW, "scores": {"loss": math.nan, "perplexity": math.inf}, "date": date})
    assert len(read_rows(infinite)) == 1
    append_row(path, {**ROW, "scores": {"loss": 2.0}})
    for _ in range(2):
        append_row(path, {"name": "a", "error": "no room"})
    assert len(read_rows(path)) == 4
    assert "error" in latest_rows(read_rows(path))["a"]


@pytest.mark.parametrize("length", range(0, 60, 7))
def test_what_a_killed_machine_left_unfinished_is_overwritten(tmp_path, length):
    path = tmp_path / "results.jsonl"
    append_row(path, ROW)
    whole = path.read_text()
    path.write_text(whole + json.dumps({**ROW, "name": "b"})[:length])
    assert read_rows(path) == [ROW]
    append_row(path, {**ROW, "name": "c"})
    assert [row["name"] for row in read_rows(path)] == ["a", "c"]


def test_a_whole_line_without_an_end_stays(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(ROW))
    append_row(path, {**ROW, "name": "b"})
    assert [row["name"] for row in read_rows(path)] == ["a", "b"]


@pytest.mark.parametrize("written", [None, 5])
def test_a_full_disk_leaves_no_part_of_a_line(tmp_path, monkeypatch, written):
    path = tmp_path / "results.jsonl"
    append_row(path, ROW)

    class Full:
        """A file that has room for some bytes only, or that is not on the disk when it should be."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, line):
            return self.file.write(line[:written])

    def no_room(descriptor):
        raise OSError(28, "No space left on device")

    def open_full(*args, **options):
        return Full(open(*args, **options))  # which closes it

    monkeypatch.setattr(queue_results, "open", open_full, raising=False)
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OSError, match="no room for|No space left"):
        append_row(path, {**ROW, "name": "b"})
    assert path.read_text() == json.dumps(ROW) + "\n"


def test_several_append_at_once(tmp_path):
    path = tmp_path / "results.jsonl"
    names = [f"{number}" for number in range(40)]
    threads = [threading.Thread(target=append_row, args=(path, {**ROW, "name": name})) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row["name"] for row in read_rows(path)) == sorted(names)


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(ROW) + "\n\n[1]\n")
    with pytest.raises(ValueError, match=r"results.jsonl, line 3: no result of a run"):
        read_rows(path)


def row(name, entry, options, seed=42, recipe="r", minutes=2.0, **scores):
    beginning = {"name": name, "entry": entry, "recipe": recipe, "seed": seed, "options": options}
    return {**beginning, "scores": scores, "parameters": 2_600_000, "updates": 5280, "minutes": minutes}


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_table_says_what_a_run_has_other_than_the_first():
    rows = [
        row("base", "base", {"config_overrides": {"dropout": 0.1, "norm_position": "pre"}, "r_drop": 1.0}, loss=1.5),
        {"name": "failed", "error": "no room"},
        row("wide", "wide", {"config_overrides": ["dropout=0.3", "norm_position=pre"]}, loss=1.25, bleu=38.0),
        row("other", "other", {"r_drop": 1.0}, seed=1, recipe="s", perplexity=3.0, wer=12.0),
    ]
    header, _, *lines = cells(results_table(rows))
    assert header == ["Run", "Changed", "Parameters", "Updates", "Loss", "BLEU", "WER", "Minutes"]
    assert lines == [
        ["base", "", "2.60M", "5,280", "1.500", "", "", "2.0"],
        ["wide", "dropout=0.3, no r_drop", "2.60M", "5,280", "1.250", "38.00", "", "2.0"],
        ["other", "recipe=s, seed=1, no dropout, no norm_position", "2.60M", "5,280", "", "", "12.00", "2.0"],
    ]
    assert results_table([]) == results_table(rows[1:2]) == ""


def test_the_table_has_mean_and_spread_of_the_seeds_of_an_entry():
    scores = [37.5, 38.25, 39.0]
    rows = [row(f"a-seed{n}", "a", {}, seed=n, minutes=n, bleu=score) for n, score in enumerate(scores)]
    *_, last = cells(results_table([*rows, row("b", "b", {}, bleu=1.0)]))[:-1]
    mean, spread = statistics.fmean(scores), statistics.stdev(scores)
    assert last == ["mean of a", "3 seeds", "", "", f"{mean:.2f} ± {spread:.2f}", "1.0"]
    former = row("a-seed9", "a", {"max_steps": 3}, seed=9, bleu=0.0)
    assert cells(results_table(rows, [former]))[-2] == last, "it is of other settings than its seed"
    rows[1]["scores"] = {"chrf": 2.0}
    assert cells(results_table(rows))[-1] == ["mean of a", "3 seeds", "", "", "", "", "1.0"]


def test_runs_that_diverged_are_in_the_table_and_in_no_mean():
    lost = {"name": "a-seed1", "entry": "a", "recipe": "r", "seed": 1, "options": {}, "error": "e", "diverged_at": 1234}
    rows = [row("a-seed0", "a", {}, seed=0, bleu=37.5, minutes=3.0), lost]
    rows += [row(f"b-seed{seed}", "b", {}, seed=seed, bleu=score) for seed, score in enumerate([math.inf, 20.0])]
    lines = cells(results_table(rows))[2:]
    assert lines[1] == ["a-seed1", "seed=1", "", "diverged at update 1,234", "", ""]
    assert lines[2] == ["mean of a", "2 seeds", "", "", "diverged in 1 of 2", "3.0"]
    assert lines[3][4] == "inf"
    assert lines[5] == ["mean of b", "2 seeds", "", "", "diverged in 1 of 2", "2.0"]
    everything = cells(results_table([lost, {**lost, "name": "a-seed2", "seed": 2}]))
    assert everything[0] == ["Run", "Changed", "Parameters", "Updates", "Minutes"]
    assert everything[-1] == ["mean of a", "2 seeds", "", "", ""]


def test_a_bar_in_a_name_ends_no_cell():
    table = results_table([row("a", "a", {}, bleu=1.0), row("b", "b", {"run_name": "x|y"}, bleu=1.0)])
    assert "run_name=x\\|y" in table
