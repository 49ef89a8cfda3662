"""Runs of a queue in processes of their own: locks that outlive a killed queue, signals, logs, how a process ends."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import yaml
from child_processes import foreground_signals
from queue_lists import write_list

from hf_vanilla_transformer.lab import run_process
from hf_vanilla_transformer.lab.run_list import read_run_list
from hf_vanilla_transformer.lab.run_process import (
    LOG,
    RECIPE,
    ProcessOptions,
    Stopping,
    is_locked,
    lock_run,
    train_in_process,
)
from hf_vanilla_transformer.training import read_recipe
from hf_vanilla_transformer.training.folder_lock import training_folder


@pytest.fixture
def run(tmp_path):
    return read_run_list(write_list(tmp_path, [{"name": "a"}])).runs[0]


def train(run, monkeypatch, program, options=None, stopping=None):
    """Has a program in the place of the one that trains."""
    monkeypatch.setattr(run_process, "_command", lambda recipe: [sys.executable, "-S", "-c", program, str(recipe)])
    lock = lock_run(run)
    try:
        return train_in_process(run, lock, options or ProcessOptions(), stopping or Stopping(print))
    finally:
        os.close(lock)


def test_a_locked_run_is_nobody_elses(run, monkeypatch):
    monkeypatch.setattr(run_process, "_PATIENCE", 0.01)
    assert not is_locked(run)
    assert not run.output_dir.exists()  # looking changes nothing
    lock = lock_run(run)
    assert is_locked(run)
    assert lock_run(run) is None
    os.close(lock)
    assert not is_locked(run)
    os.close(lock_run(run))


def test_a_run_that_is_trained_without_a_queue_is_left_to_that(run, monkeypatch):
    monkeypatch.setattr(run_process, "_PATIENCE", 0.01)
    with training_folder(run.output_dir):
        assert is_locked(run)
        assert lock_run(run) is None
    assert not is_locked(run)
    os.close(lock_run(run))


def test_whoever_only_looks_keeps_nobody_away(run):
    os.close(lock_run(run))
    done = threading.Event()

    def look():
        while not done.is_set():
            is_locked(run)

    looker = threading.Thread(target=look)
    looker.start()
    locks = []
    for _ in range(100):
        locks.append(lock_run(run))
        os.close(locks[-1])
    done.set()
    looker.join()
    assert None not in locks


def test_a_run_stays_locked_while_its_process_lives_though_its_queue_is_gone(run, monkeypatch):
    """As after a SIGKILL of the queue: what it had open is closed, and the process knows nothing of it."""
    program = "import sys; print('up', flush=True); sys.stdin.read()"
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__(command, **{**options, "stdin": subprocess.PIPE})
            started.append(self)

        def wait(self):
            return 0

    monkeypatch.setattr(subprocess, "Popen", Popen)
    train(run, monkeypatch, program)
    (process,) = started
    assert is_locked(run)
    process.stdin.close()
    super(Popen, process).wait()
    assert not is_locked(run)


def test_the_process_gets_a_recipe_that_says_everything(run, monkeypatch):
    assert train(run, monkeypatch, "").error is None
    assert read_recipe(run.output_dir / RECIPE) == run.values
    first = (run.output_dir / RECIPE).read_text().splitlines()[0]
    assert first == (
        f"# {run.name}: resumed by `vanilla-transformer pretrain {run.output_dir / RECIPE} "
        "--resume_from_checkpoint auto`"
    )


def test_a_recipe_of_ones_own_in_the_folder_is_not_replaced(run, monkeypatch):
    run.check()
    train(run, monkeypatch, "pass")
    run.check()  # what the queue itself has written may be written again
    (run.output_dir / RECIPE).write_text("max_steps: 1  # mine\n")
    with pytest.raises(
        ValueError, match="recipe.yaml is not of a queue, which would replace it; name another output_dir"
    ):
        run.check()


def test_the_command_trains_by_the_recipe_and_resumes(tmp_path):
    command = run_process._command(tmp_path / "recipe.yaml")
    assert command[:4] == [sys.executable, "-m", "hf_vanilla_transformer", "pretrain"]
    assert command[4:] == [
        *(str(tmp_path / "recipe.yaml"), "--resume_from_checkpoint", "auto", "--disable_tqdm", "true"),
    ]


def test_nice_and_threads_are_those_of_the_process(run, monkeypatch):
    program = "import os; print(os.nice(0), os.environ.get('OMP_NUM_THREADS'))"
    before = os.nice(0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    train(run, monkeypatch, program)
    train(run, monkeypatch, program, ProcessOptions(nice=2, threads=3))
    said = [line for line in (run.output_dir / LOG).read_text().splitlines() if line and " -c " not in line]
    assert said == [f"{before} None", f"{min(before + 2, 19)} 3"]
    assert os.nice(0) == before


@pytest.mark.parametrize("options", [{"nice": -1}, {"nice": 20}, {"threads": 0}])
def test_numbers_that_are_none_are_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name}={value} is "):
        ProcessOptions(**options)


@pytest.mark.parametrize(
    ("program", "was_stopped", "error"),
    [
        ("", True, None),
        ("raise SystemExit(130)", True, None),
        ("import os; os.kill(os.getpid(), 15)", True, None),
        ("import os; os.kill(os.getpid(), 9)", False, "killed by SIGKILL"),
        ("raise SystemExit('verb: error: no room\\n\\n')", False, "no room"),
        ("import sys; print('said'); sys.exit(3)", False, "said"),
        ("1 / 0", False, "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", False, "it ended with status 3 and said nothing"),
    ],
)
def test_how_a_process_ended(run, monkeypatch, program, was_stopped, error):
    end = train(run, monkeypatch, program)
    assert end.was_stopped is was_stopped
    assert end.error == (None if error is None else f"{error} (all of it: {run.output_dir / LOG})")


def test_the_log_is_of_all_starts_and_an_error_of_the_last(run, monkeypatch):
    train(run, monkeypatch, "raise SystemExit('first')")
    assert "it ended with status 3 and said nothing" in train(run, monkeypatch, "raise SystemExit(3)").error
    log = (run.output_dir / LOG).read_text()
    assert log.count("-c") == 2
    assert "first\n" in log


# Says what it hears, and ends at the second signal, or at the first as a run does that saves.
LISTENER = """
import os, signal, sys, time
heard = []
def hear(number, frame):
    heard.append(number)
    print(signal.Signals(number).name, flush=True)
    if number == {last}:
        sys.exit(0)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, hear)
print("ready", flush=True)
time.sleep(60)
time.sleep(60)
"""


def send_when_ready(run, *numbers):
    """Sends signals to this process: each when the program has said something after the one before."""

    def work():
        said = 0
        for number in numbers:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                log = run.output_dir / LOG
                lines = [line for line in log.read_text().splitlines() if line.isalpha()] if log.exists() else []
                if len(lines) > said:
                    break
                time.sleep(0.005)
            said = len(lines)
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("sent", "heard", "last"),
    [
        ([signal.SIGTERM], ["SIGTERM"], signal.SIGTERM),
        ([signal.SIGINT], ["SIGTERM"], signal.SIGTERM),  # a second SIGINT, as from a terminal, would interrupt it
        ([signal.SIGHUP], ["SIGTERM"], signal.SIGTERM),
        ([signal.SIGINT, signal.SIGINT], ["SIGTERM", "SIGINT"], signal.SIGINT),
        ([signal.SIGTERM, signal.SIGINT], ["SIGTERM", "SIGINT"], signal.SIGINT),
    ],
)
def test_signals_are_passed_on(run, monkeypatch, sent, heard, last):
    said = []
    with foreground_signals(), Stopping(said.append) as stopping:
        sender = send_when_ready(run, *sent)
        end = train(run, monkeypatch, LISTENER.format(last=int(last)), stopping=stopping)
        sender.join()
    assert stopping.heard == sent[0]
    assert end.was_stopped
    assert [line for line in (run.output_dir / LOG).read_text().splitlines() if line.isupper()] == heard
    assert len(said) == 1
    assert "Stopping" in said[0]


def test_a_signal_before_the_process_starts_ends_it(run, monkeypatch):
    with foreground_signals(), Stopping(print) as stopping:
        os.kill(os.getpid(), signal.SIGTERM)
        assert train(run, monkeypatch, "import time; time.sleep(60)", stopping=stopping).was_stopped


def test_between_runs_a_second_ctrl_c_interrupts():
    with foreground_signals(), Stopping(print) as stopping:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stopping.heard == signal.SIGINT


def test_signals_get_back_their_meaning_and_ignored_ones_stay_ignored():
    with foreground_signals():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with Stopping(print) as stopping:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stopping.heard is None
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_the_recipe_is_written_as_text_of_any_language(tmp_path, monkeypatch):
    run = read_run_list(write_list(tmp_path, [{"name": "a", "new_tokens": ["<2ελ>"], "source_lang": "no"}])).runs[0]
    train(run, monkeypatch, "")
    text = (run.output_dir / RECIPE).read_text(encoding="utf-8")
    assert "<2ελ>" in text
    assert yaml.safe_load(text)["source_lang"] == "no"
