"""The queue: what it skips, resumes, notes and leaves to others; and, slowly, with processes that are killed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from child_processes import foreground_signals, start
from queue_lists import pretend_to_train, write_list
from training_runs import write_text

from hf_vanilla_transformer.lab import queue
from hf_vanilla_transformer.lab.queue import run_states, table_of_results, work_through
from hf_vanilla_transformer.lab.queue_results import append_row, failure_row, read_rows
from hf_vanilla_transformer.lab.run_list import read_run_list
from hf_vanilla_transformer.lab.run_process import LOG, ProcessEnd, lock_run
from hf_vanilla_transformer.training.checkpoints import list_checkpoints


@pytest.fixture
def processes(monkeypatch):
    """In the place of processes: functions by name of the run, or what ends well; and the names of those started."""
    behaviour, started = {}, []

    def train(run, lock, options, stopping):
        started.append(run.name)
        assert lock_run(run) is None, "others are kept away"
        return behaviour.get(run.name, ends)(run)

    monkeypatch.setattr(queue, "train_in_process", train)
    monkeypatch.setattr("hf_vanilla_transformer.lab.run_process._PATIENCE", 0.0)
    return behaviour, started


def ends(run):
    pretend_to_train(run)
    return ProcessEnd(True, None)


def fails(run):
    return ProcessEnd(False, "no room")


def interrupts(number):
    """A process during which the queue is told to stop."""

    def stop(run):
        os.kill(os.getpid(), number)
        (run.output_dir / "checkpoint-7").mkdir()
        return ProcessEnd(True, None)

    return stop


def names(rows):
    return [row["name"] for row in rows]


def test_runs_are_trained_in_order_and_noted_and_the_next_queue_has_nothing_to_do(tmp_path, processes):
    runs = read_run_list(write_list(tmp_path, [{"name": name} for name in "abc"]))
    _, started = processes
    said = []
    outcome = work_through(runs, say=said.append)
    assert started == names(read_rows(runs.results)) == ["a", "b", "c"]
    assert {state.kind for state in outcome.states.values()} == {"ended"}
    assert (outcome.failed, outcome.stopped_by) == ({}, None)
    assert outcome.summary() == "3 of 3 runs have ended"
    assert len(said) == 6
    assert "1/3 a starts; log: " in said[0]
    assert said[1].endswith("1/3 a ended in 1.5 min: Loss 2.000, BLEU 30.00")
    assert work_through(runs, say=said.append).states == outcome.states
    assert len(started) == len(read_rows(runs.results)) == 3


def test_a_run_that_fails_is_noted_and_the_next_queue_tries_it_again(tmp_path, processes):
    runs = read_run_list(write_list(tmp_path, [{"name": "a"}, {"name": "b"}]))
    behaviour, started = processes
    behaviour["a"] = fails
    outcome = work_through(runs, say=lambda line: None)
    assert started == ["a", "b"], "it is not tried twice"
    assert outcome.failed == {"a": "no room"}
    assert outcome.summary() == "1 of 2 runs have ended; failed: a"
    assert outcome.states["a"].describe() == "failed: no room"
    assert [row.get("error") for row in read_rows(runs.results)] == ["no room", None]
    del behaviour["a"]
    assert work_through(runs, say=lambda line: None).summary() == "2 of 2 runs have ended"
    assert started == ["a", "b", "a"]
    assert names(read_rows(runs.results)) == ["a", "b", "a"]
    assert [line.split(" | ")[0] for line in table_of_results(runs).splitlines()[2:]] == ["| a", "| b"]


def diverges(run):
    return ProcessEnd(False, "update 1234: the loss is nan. It comes of sentences 1, 2 (all of it: log)")


def test_a_run_that_diverges_has_a_result_and_is_not_tried_again_unless_its_options_differ(tmp_path, processes):
    runs = read_run_list(write_list(tmp_path, [{"name": "a"}, {"name": "b"}]))
    behaviour, started = processes
    behaviour["a"] = diverges
    said = []
    for times in (1, 2):
        outcome = work_through(runs, say=said.append)
        assert started == ["a", "b"]
        assert [row.get("diverged_at") for row in read_rows(runs.results)] == [1234, None]
        assert (outcome.failed, outcome.summary()) == ({}, "1 of 2 runs have ended; diverged: a"), times
    description = outcome.states["a"].describe()
    again = f"remove {tmp_path / 'a'}, and change its options in the list or remove its lines from the results"
    assert description == f"diverged at update 1,234; to try it again, {again}"
    assert said[1].endswith(f"1/2 a {description}")
    assert f"a has {description}" in said
    assert "| diverged at update 1,234 |" in table_of_results(runs)
    del behaviour["a"]
    lower = read_run_list(write_list(tmp_path, [{"name": "a", "learning_rate": 1e-5}, {"name": "b"}]))
    assert run_states(lower)["a"].kind == "waiting"
    assert work_through(lower, say=said.append).summary() == "2 of 2 runs have ended"
    assert started == ["a", "b", "a"]


def test_a_run_without_its_line_is_tried_again_after_a_divergence(tmp_path, processes):
    runs = read_run_list(write_list(tmp_path, [{"name": "a"}]))
    processes[0]["a"] = diverges
    for _ in range(2):
        work_through(runs, say=lambda line: None)
        runs.results.unlink()
    assert processes[1] == ["a", "a"]


def test_what_goes_wrong_after_the_results_is_said_and_the_results_are_noted(tmp_path, processes):
    runs = read_run_list(write_list(tmp_path, [{"name": "a"}]))
    processes[0]["a"] = lambda run: ends(run) and fails(run)
    said = []
    outcome = work_through(runs, say=said.append)
    assert outcome.failed == {"a": "no room"}
    assert outcome.states["a"].kind == "ended"
    assert said[-1].endswith("BLEU 30.00, but then: no room")
    assert "error" not in read_rows(runs.results)[0]


def test_a_folder_that_cannot_be_written_fails_its_run_alone(tmp_path, processes, monkeypatch):
    runs = read_run_list(write_list(tmp_path, [{"name": "a"}, {"name": "b"}]))
    lock = queue.lock_run

    def lock_run(run):
        if run.name == "a":
            raise PermissionError("not yours")
        return lock(run)

    monkeypatch.setattr(queue, "lock_run", lock_run)
    assert work_through(runs, say=lambda line: None).failed == {"a": "not yours"}
    assert processes[1] == ["b"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_queue_that_is_stopped_starts_nothing_more_and_the_next_resumes(tmp_path, processes, number):
    runs = read_run_list(write_list(tmp_path, [{"name": "a"}, {"name": "b"}]))
    behaviour, started = processes
    behaviour["a"] = interrupts(number)
    said = []
    with foreground_signals():
        outcome = work_through(runs, say=said.append)
    assert outcome.stopped_by == number
    assert started == ["a"]
    assert said[-1].endswith("a stopped at update 7")
    assert outcome.summary() == "0 of 2 runs have ended; waiting: a, b"
    assert [state.describe() for state in outcome.states.values()] == ["waiting, saved at update 7", "waiting"]
    assert read_rows(runs.results) == []
    del behaviour["a"]
    assert work_through(runs, say=said.append).stopped_by is None
    assert any("a resumes at update 7; log: " in line for line in said)


def test_a_process_that_was_stopped_by_somebody_else_does_not_stop_the_queue(tmp_path, processes):
    runs = read_run_list(write_list(tmp_path, [{"name": "a"}, {"name": "b"}]))
    processes[0]["a"] = lambda run: ProcessEnd(True, None)
    outcome = work_through(runs, say=lambda line: None)
    assert processes[1] == ["a", "b"], "nor is it tried again"
    assert (outcome.failed, outcome.states["a"].kind) == ({}, "waiting")


def test_a_run_that_another_queue_is_training_is_left_to_it(tmp_path, processes):
    runs = read_run_list(write_list(tmp_path, [{"name": "a"}, {"name": "b"}]))
    others = lock_run(runs.runs[0])
    assert run_states(runs)["a"].describe() == "running"
    outcome = work_through(runs, say=lambda line: None)
    assert processes[1] == ["b"]
    assert outcome.summary() == "1 of 2 runs have ended; running: a"
    os.close(others)


def test_a_run_that_another_queue_has_left_is_trained_after_the_others(tmp_path, processes):
    runs = read_run_list(write_list(tmp_path, [{"name": name} for name in "abc"]))
    behaviour, started = processes
    others = lock_run(runs.runs[0])
    behaviour["b"] = lambda run: os.close(others) or ends(run)
    work_through(runs, say=lambda line: None)
    assert started == ["b", "c", "a"]


def test_what_another_queue_has_ended_or_failed_meanwhile_is_not_repeated(tmp_path, processes):
    runs = read_run_list(write_list(tmp_path, [{"name": name} for name in "abcd"]))
    append_row(runs.results, failure_row(runs.runs[3], "before"))  # which is tried again

    def other_queue_works(run):
        pretend_to_train(runs.runs[1])
        append_row(runs.results, failure_row(runs.runs[2], "elsewhere"))
        return ends(run)

    processes[0]["a"] = other_queue_works
    outcome = work_through(runs, say=lambda line: None)
    assert processes[1] == ["a", "d"]
    assert outcome.failed == {}, "of this queue"
    assert outcome.states["c"].describe() == "failed: elsewhere"
    ended = [row["name"] for row in read_rows(runs.results) if "error" not in row]
    assert sorted(ended) == ["a", "b", "d"], "b too, whose queue may have been killed"


def test_a_run_that_another_queue_ends_between_two_looks_is_not_repeated(tmp_path, processes, monkeypatch):
    runs = read_run_list(write_list(tmp_path, [{"name": "a"}]))
    lock = queue.lock_run
    monkeypatch.setattr(queue, "lock_run", lambda run: pretend_to_train(run) or lock(run))
    assert work_through(runs, say=lambda line: None).states["a"].kind == "ended"
    assert processes[1] == []


def test_results_that_a_killed_queue_did_not_note_are_noted(tmp_path, processes):
    runs = read_run_list(write_list(tmp_path, [{"name": "a"}]))
    pretend_to_train(runs.runs[0])
    assert read_rows(runs.results) == []
    work_through(runs, say=lambda line: None)
    assert names(read_rows(runs.results)) == ["a"]
    assert processes[1] == []


@pytest.mark.parametrize("mistake", [{"preset": "tinny"}, {"train_data": ["missing.tsv"]}])
def test_a_mistake_in_the_last_run_is_found_before_the_first_starts(tmp_path, processes, mistake):
    runs = read_run_list(write_list(tmp_path, [{"name": "a"}, {"name": "b", **mistake}]))
    with pytest.raises(ValueError, match="run 'b'"):
        work_through(runs)
    assert processes[1] == []


def test_results_of_other_settings_are_found_before_the_first_starts(tmp_path, processes):
    runs = read_run_list(write_list(tmp_path, [{"name": "a"}, {"name": "b"}]))
    pretend_to_train(read_run_list(write_list(tmp_path, [{"name": "b", "max_steps": 3}])).runs[0])
    with pytest.raises(ValueError, match="max_steps was 3, now the default"):
        work_through(runs)
    assert processes[1] == []


def test_what_nobody_reads_stops_the_queue_and_is_no_failure_of_a_run(tmp_path, processes):
    runs = read_run_list(write_list(tmp_path, [{"name": "a"}]))

    def say(line):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        work_through(runs, say=say)
    assert read_rows(runs.results) == []


def test_the_table_has_the_order_of_the_list_and_then_what_is_in_it_no_more(tmp_path):
    runs = read_run_list(write_list(tmp_path, [{"name": name} for name in "abc"]))
    assert table_of_results(runs) == ""
    work = [runs.runs[2], runs.runs[0], runs.runs[1]]
    for run in work:
        pretend_to_train(run)
        append_row(runs.results, queue.row_of(run, queue.finished_results(run)))
    fewer = read_run_list(write_list(tmp_path, [{"name": "b"}, {"name": "a"}]))
    assert [line.split(" | ")[0] for line in table_of_results(fewer).splitlines()[2:]] == ["| b", "| a", "| c"]
    other = read_run_list(write_list(tmp_path, [{"name": "b", "max_steps": 3}, {"name": "a"}, {"name": "d"}]))
    table, note = table_of_results(other).split("\n\n")
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == ["| a", "| c"]
    assert note == "Left out, since their results are of other settings than the list's: 1 (b)."


def queue_command(path):
    return [sys.executable, "-m", "hf_vanilla_transformer", "queue", str(path), "--threads", "1"]


def wait_until(condition, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


@pytest.mark.slow
def test_a_tiny_run_that_diverges_in_its_own_process(tmp_path):
    """Takes about ten seconds: the process of a run whose learning rate is absurd."""
    options = {"learning_rate": 1e30, "max_steps": 9, "eval_strategy": "no", "save_strategy": "no"}
    runs = read_run_list(write_list(tmp_path, [{"name": "a", **options}], write_text(tmp_path)))
    outcome = work_through(runs, say=lambda line: None)
    (row,) = read_rows(runs.results)
    assert (outcome.failed, outcome.states["a"].kind) == ({}, "diverged")
    assert row["diverged_at"] > 1
    assert work_through(runs, say=lambda line: None).summary() == "0 of 1 runs have ended; diverged: a"
    assert len(read_rows(runs.results)) == 1


@pytest.mark.slow
def test_two_tiny_runs_by_two_queues_killed_and_resumed_end_as_by_pretrain(tmp_path):
    """Takes about a minute: a queue stopped by SIGTERM, one killed whose run goes on, and two at a time."""
    (tmp_path / "list").mkdir()
    text = write_text(tmp_path)
    saving = {"save_strategy": "steps", "save_steps": 50, "eval_strategy": "no", "max_steps": 1000}
    saving |= {"logging_steps": 50}
    path = write_list(tmp_path / "list", [{"name": "one", **saving}, {"name": "two", **saving, "seed": 7}], text)
    runs = read_run_list(path)
    one = runs.runs[0]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}

    with start(queue_command(path), **quiet) as first:
        wait_until(lambda: list_checkpoints(one.output_dir))
        first.send_signal(signal.SIGTERM)
        said = first.stdout.read()
        assert first.wait() == 0, said
    assert "1/2 one starts" in said
    assert "1/2 one stopped at update" in said
    assert "0 of 2 runs have ended; waiting: one, two" in said
    stopped_at = list_checkpoints(one.output_dir)[-1].name

    with start(queue_command(path), **quiet) as second:
        wait_until(lambda: list_checkpoints(one.output_dir)[-1].name != stopped_at)
        os.kill(second.pid, signal.SIGKILL)
        second.wait()
        assert run_states(runs)["one"].kind in ("running", "ended")
        with start(queue_command(path), **quiet) as third:  # leaves `one` to the process that goes on
            said = third.stdout.read()
            assert third.wait() == 0, said
    wait_until(lambda: run_states(runs)["one"].kind == "ended")
    assert "2/2 two ended in" in said
    log = (one.output_dir / LOG).read_text()
    assert log.count("pretrain") == log.count("--resume_from_checkpoint auto") == 2

    with start(queue_command(path), **quiet) as fourth:
        said = fourth.stdout.read()
        assert fourth.wait() == 0, said
    assert "2 of 2 runs have ended" in said
    assert sorted(names(read_rows(runs.results))) == ["one", "two"]
    assert [line.split(" | ")[0] for line in table_of_results(runs).splitlines()[2:]] == ["| one", "| two"]

    values = {**one.values, "output_dir": str(tmp_path / "whole")}
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump(values))
    done = subprocess.run(
        [sys.executable, "-m", "hf_vanilla_transformer", "pretrain", str(tmp_path / "whole.yaml")], check=True, **quiet
    )
    assert "Trained" in done.stdout
    results = [json.loads((folder / "results.json").read_text()) for folder in (one.output_dir, tmp_path / "whole")]
    scores = [{name: value for name, value in each["metrics"].items() if "loss" in name} for each in results]
    assert scores[0] == scores[1]
    minutes = [entry["minutes"] for entry in results[0]["history"]]
    assert minutes == sorted(minutes), "of all starts"
