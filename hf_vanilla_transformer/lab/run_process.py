"""A run of a list in a process of its own: locked against others, told to stop as the queue is, its log kept."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from ..inference import open_output
from ..inference.pipes import INTERRUPTED
from ..training.folder_lock import TRAINING_LOCK, is_file_locked, lock_file
from .run_list import RECIPE, RESUMED_BY, QueuedRun

# In the folder of a run: what its process says, and what keeps others away.
LOG, _LOCK = "train.log", ".queue-lock"
# Seconds after which a lock is not that of somebody who only looks.
_PATIENCE = 0.5
# How a process ends that was asked to stop: it has saved; by SIGINT; before it listened to signals.
_STOPPED = (0, INTERRUPTED, -signal.SIGTERM, -signal.SIGINT)


@dataclass(frozen=True)
class ProcessOptions:
    """How the processes of runs are started.

    Args:
        nice: how much lower their priority is, from 0.
        threads: with which each computes; None for as many as torch likes.

    Raises:
        ValueError: a number is out of its range.
    """

    nice: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.nice <= 19:
            raise ValueError(f"nice={self.nice} is not a number from 0 to 19")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads={self.threads} is less than 1")


def is_locked(run: QueuedRun) -> bool:
    """Returns whether a process is training a run of a list now, of a queue or started by hand."""
    return any(is_file_locked(run.output_dir / name) for name in (_LOCK, TRAINING_LOCK))


def lock_run(run: QueuedRun) -> int | None:
    """Keeps other queues from training a run.

    Whoever has the descriptor open holds the lock. A process that inherits it does too: the run stays locked where its
    queue was killed and its process was not.

    Args:
        run: of a list; its folder is made.

    Returns:
        The descriptor, to be closed; None if another has the lock, or trains the run without a queue.

    Raises:
        OSError: the folder cannot be written.
    """
    run.output_dir.mkdir(parents=True, exist_ok=True)
    lock = lock_file(run.output_dir / _LOCK, _PATIENCE)
    if lock is not None and is_file_locked(run.output_dir / TRAINING_LOCK):
        os.close(lock)
        return None
    return lock


class Stopping:
    """Passes the first SIGTERM, SIGINT or SIGHUP on to the process of a run, which then saves and ends.

    `heard` says which one it was, or is None. A SIGINT after it interrupts the process at once. Signals that are
    ignored when the block begins, as by nohup, stay so.

    Args:
        say: told that the process is being waited for.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.heard: int | None = None
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is threading.main_thread():  # Python allows it there only
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *error: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    @contextlib.contextmanager
    def passed_on_to(self, process: "subprocess.Popen[bytes]") -> Iterator[None]:
        """Passes signals on to a process, also one that came before."""
        self._process = process
        try:
            if self.heard is not None:
                process.terminate()
            yield
        finally:
            self._process = None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        is_first, self.heard = self.heard is None, self.heard or number
        if self._process is None:
            if not is_first and number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self._process.send_signal(signal.SIGTERM if is_first or number != signal.SIGINT else signal.SIGINT)
        if is_first:
            self._say("Stopping: the run ends its update, saves, and ends. Ctrl-C again interrupts it before that")


@dataclass(frozen=True)
class ProcessEnd:
    """How the process of a run ended.

    Args:
        was_stopped: whether it was asked to stop; if not, and the run has no results, it has failed.
        error: what it said last; None where it ended as it should.
    """

    was_stopped: bool
    error: str | None


def train_in_process(run: QueuedRun, lock: int, options: ProcessOptions, stopping: Stopping) -> ProcessEnd:
    """Trains a run, or goes on with it, and waits for its end.

    Args:
        run: of a list.
        lock: as `lock_run` returns it.
        options: how its process is started.
        stopping: passes signals on.

    Returns:
        How it ended.

    Raises:
        OSError: the folder cannot be written, or the process not be started.
    """
    recipe, log = run.output_dir / RECIPE, run.output_dir / LOG
    with open_output(recipe) as file:
        file.write(f"# {run.name}{RESUMED_BY}{recipe} --resume_from_checkpoint auto`\n")
        yaml.safe_dump(run.values, file, sort_keys=False, allow_unicode=True)
    command = _command(recipe)
    if options.nice:
        command = ["nice", "-n", str(options.nice), *command]
    environment = dict(os.environ)
    if options.threads is not None:
        environment["OMP_NUM_THREADS"] = str(options.threads)
    with open(log, "ab") as output:
        output.write(f"\n{datetime.now():%Y-%m-%d %H:%M:%S} {' '.join(command)}\n".encode())
        output.flush()
        beginning = output.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[lock],
            start_new_session=True,  # a terminal would send it Ctrl-C too, and a second one interrupts it
        )
        with stopping.passed_on_to(process):
            status = process.wait()
    if status in _STOPPED:
        return ProcessEnd(True, None)
    return ProcessEnd(False, f"{_last_words(log, beginning, status)} (all of it: {log})")


def _command(recipe: Path) -> list[str]:
    command = [sys.executable, "-m", __package__.partition(".")[0], "pretrain", str(recipe)]
    return [*command, "--resume_from_checkpoint", "auto", "--disable_tqdm", "true"]


def _last_words(log: Path, beginning: int, status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    with open(log, "rb") as file:
        file.seek(max(beginning, log.stat().st_size - 10_000))
        lines = file.read().decode("utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].rpartition(": error: ")[2][:1000] if said else f"it ended with status {status} and said nothing"
