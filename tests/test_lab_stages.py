"""The command of the staged models: its options, its table, its files, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
from child_processes import start
from commanding import run

from hf_vanilla_transformer.commands import lab_stages
from hf_vanilla_transformer.lab import stage_runs
from hf_vanilla_transformer.lab.stages import EXPERIMENTS, STAGES


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Experiments of two updates on few samples, and short outputs."""
    monkeypatch.setattr(stage_runs, "MAX_TOKENS", 3)
    monkeypatch.setattr(lab_stages, "EXPERIMENTS", [replace(each, epochs=2, samples=8) for each in EXPERIMENTS])


def test_it_prints_a_row_for_each_experiment_and_a_summary(tmp_path):
    done = run(lab_stages.main, "--seeds", "1", "--processes", "2", "--output", tmp_path / "all.md")
    assert done.returncode == 0, done.stderr
    *table, _, summary = done.stdout.splitlines()
    assert (tmp_path / "all.md").read_text(encoding="utf-8").splitlines() == table
    for each in EXPERIMENTS:
        assert any(line.startswith(f"| {each.stage.name} | {each.task} |") for line in table)
    assert summary.split(" claims")[0].endswith(f"of {len(EXPERIMENTS)}")
    assert f"{len(EXPERIMENTS)} runs in " in summary


def test_stages_can_be_chosen_and_all_is_written_as_json(tmp_path):
    file = tmp_path / "plain.json"
    done = run(lab_stages.main, "--stages", "plain", "--seeds", "2", "--processes", "1", "--output", file)
    assert done.returncode == 0, done.stderr
    (data,) = json.loads(file.read_text(encoding="utf-8"))["experiments"]
    assert data["stage"] == "plain"
    assert [each["seed"] for each in data["outcomes"]] == [0, 1]
    assert "| tokens | " not in done.stdout


def test_an_earlier_file_stays_if_the_work_ends_in_an_error(tmp_path, monkeypatch):
    file = tmp_path / "table.md"
    file.write_text("earlier")

    def fail(*_):
        raise ValueError("no")

    monkeypatch.setattr(lab_stages, "run_all", fail)
    assert run(lab_stages.main, "--output", file).error == "no"
    assert file.read_text() == "earlier"
    assert [*tmp_path.iterdir()] == [file]


@pytest.mark.parametrize(("options", "message"), [
    (["--seeds", "0"], "`seeds`=0"), (["--processes", "-1"], "`processes`=-1"), (["--stages", "plane"], "plane"),
    (["--stages", "plain", "plain"], "twice"), (["--output", "table.csv"], "table.csv"),
    (["--seed", "3"], "did you mean --seeds?"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_in_a_line_that_names_it(options, message):
    assert message in run(lab_stages.main, *options).error


def test_a_file_that_cannot_be_written_is_found_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(lab_stages, "run_all", lambda *_: pytest.fail("it began"))
    assert "no/table.md" in run(lab_stages.main, "--output", tmp_path / "no" / "table.md").error


def test_help_says_what_each_stage_is(capsys):
    with pytest.raises(SystemExit):
        lab_stages.main(["--help"], "program")
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in STAGES)


@pytest.mark.slow
def test_ctrl_c_ends_it_and_its_processes_at_once_in_a_line(tmp_path):
    """Ten seconds, most of them for importing torch: the signal goes to all its processes, as that of a terminal."""
    command = [sys.executable, "-m", "hf_vanilla_transformer", "lab-stages", "--processes", "2"]
    options = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with start([*command, "--output", tmp_path / "table.md"], **options) as process:
        while len(workers := psutil.Process(process.pid).children()) < 2:
            time.sleep(0.1)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate()
    assert (process.returncode, output) == (130, "")
    assert errors == "vanilla-transformer lab-stages: interrupted\n"
    assert not any(worker.is_running() for worker in workers)
    assert not list(tmp_path.iterdir())
