"""The queue as a command: what it prints, and its exit status."""

import signal

import pytest
from commanding import run
from queue_lists import pretend_to_train, write_list

from hf_vanilla_transformer.commands import queue
from hf_vanilla_transformer.lab.queue import QueueOutcome
from hf_vanilla_transformer.lab.queue_results import append_row, finished_results, row_of
from hf_vanilla_transformer.lab.run_list import read_run_list


@pytest.fixture
def path(tmp_path):
    """A list of two runs, the first of which has ended."""
    path = write_list(tmp_path, [{"name": "first"}, {"name": "next"}])
    ended, runs = read_run_list(path).runs[0], read_run_list(path)
    pretend_to_train(ended)
    append_row(runs.results, row_of(ended, finished_results(ended)))
    return path


def test_states_are_one_line_each(path):
    done = run(queue.main, path, "--list")
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["first  ended in 1.5 min: Loss 2.000, BLEU 30.00", "next   waiting"]


def test_the_table_is_printed_without_the_text(path, tmp_path):
    (tmp_path / "train.jsonl").unlink()
    done = run(queue.main, path, "--table")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].startswith("| Run | Changed |")
    assert done.stdout.splitlines()[2].startswith("| first | ")


def test_a_table_of_nothing_says_so(tmp_path):
    done = run(queue.main, write_list(tmp_path, [{"name": "a"}]), "--table")
    assert done.stdout == f"no run has ended: there is none in {tmp_path / 'runs.results.jsonl'}\n"


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (QueueOutcome(), 0),
        (QueueOutcome(failed={"next": "no room"}), 1),
        (QueueOutcome(stopped_by=signal.SIGTERM), 0),
        (QueueOutcome(stopped_by=signal.SIGINT), 130),
        (QueueOutcome(stopped_by=signal.SIGINT, failed={"next": "no room"}), 1),
    ],
)
def test_the_exit_status_says_how_it_ended(path, monkeypatch, outcome, status):
    called = []

    def work_through(runs, options, say):
        called.append((runs.path, options.nice, options.threads))
        say("1/2 next starts")
        return outcome

    monkeypatch.setattr(queue, "work_through", work_through)
    done = run(queue.main, path, "--nice", "3", "--threads", "2")
    assert called == [(path, 3, 2)]
    assert done.returncode == status
    lines = done.stdout.splitlines()
    assert lines[0] == "1/2 next starts"
    assert lines[2].startswith("| Run |")
    assert lines[-1] == outcome.summary()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--list", "--nice", "1"], "--nice and --threads have no effect where nothing is trained"),
        (["--table", "--threads", "1"], "--nice and --threads have no effect where nothing is trained"),
        (["--curves", "a.png", "--nice", "1"], "--nice and --threads have no effect where nothing is trained"),
        (["--list", "--table"], "not allowed with argument"),
        (["--curves", "a.png"], "has nothing to draw: no run has validation scores yet"),
        (["--nice", "20"], "nice=20 is not a number from 0 to 19"),
        (["--threads", "0"], "threads=0 is less than 1"),
        (["--thread", "1"], "unknown option --thread; did you mean --threads?"),
    ],
)
def test_options_that_are_wrong_or_without_effect_are_one_line(path, options, message):
    assert message in run(queue.main, path, *options).error


def test_a_mistake_in_the_list_is_one_line(tmp_path):
    path = write_list(tmp_path, [{"name": "a", "dropuot": 1}])
    error = run(queue.main, path).error
    assert error.startswith(f"{path}, line ")
    assert "run 'a': unknown option 'dropuot'" in error
    assert "missing.yaml" in run(queue.main, tmp_path / "missing.yaml").error


def test_the_list_in_the_help_is_one(tmp_path, monkeypatch):
    """What the help shows can be copied."""
    monkeypatch.chdir(tmp_path)
    text = queue.EXAMPLES.split("a list:\n")[1].split("\nEach run")[0]
    (tmp_path / "runs.yaml").write_text(text)
    runs = read_run_list("runs.yaml")
    assert [each.name for each in runs.runs] == ["base", "dropout-seed1", "dropout-seed2", "dropout-seed3"]
    assert str(runs.results) == "dropout.jsonl"
