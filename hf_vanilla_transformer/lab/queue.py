"""Working through a list of runs: each is resumed, skipped or noted, and none is trained twice at a time."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..training.checkpoints import list_checkpoints
from .queue_results import (
    Row,
    append_row,
    failure_row,
    finished_results,
    last_row,
    latest_rows,
    read_rows,
    results_table,
    row_of,
    scores_text,
)
from .run_list import QueuedRun, RunList
from .run_process import LOG, ProcessOptions, Stopping, is_locked, lock_run, train_in_process


@dataclass(frozen=True)
class RunState:
    """How far a run of a list is.

    Args:
        kind: what a queue would find.
        update: that of its newest checkpoint; 0 without one.
        row: its line in the file of results, with scores or an error; None where there is none of its settings.
    """

    kind: Literal["waiting", "running", "ended", "diverged", "failed"]
    update: int = 0
    row: Row | None = None

    def describe(self) -> str:
        """Says it in a few words."""
        if self.kind == "ended" and self.row is not None:
            return f"ended in {self.row['minutes']:.1f} min: {scores_text(self.row)}"
        if self.kind == "diverged" and self.row is not None:
            return (
                f"diverged at update {self.row['diverged_at']:,}; to try it again, remove {self.row['output_dir']}, "
                "and change its options in the list or remove its lines from the results"
            )
        if self.kind == "failed" and self.row is not None:
            return f"failed: {self.row['error']}"
        return f"{self.kind}, saved at update {self.update:,}" if self.update else self.kind


@dataclass
class QueueOutcome:
    """What came of a list when a queue ended.

    Args:
        states: of all its runs, by name.
        failed: the errors of those that failed in this queue, by name.
        stopped_by: the signal that stopped the queue before the end of the list; None if it came to that.
    """

    states: dict[str, RunState] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    stopped_by: int | None = None

    def summary(self) -> str:
        """Counts the runs by their states, and names those that did not end."""
        names: dict[str, list[str]] = {}
        for name, state in self.states.items():
            names.setdefault(state.kind, []).append(name)
        parts = [f"{len(names.pop('ended', []))} of {len(self.states)} runs have ended"]
        return "; ".join(parts + [f"{kind}: {', '.join(each)}" for kind, each in names.items()])


def run_states(runs: RunList) -> dict[str, RunState]:
    """Finds out how far the runs of a list are, and changes nothing.

    Args:
        runs: the list.

    Returns:
        States by name, in the order of the list.

    Raises:
        OSError: a file cannot be read.
        ValueError: the results of a run are of other settings, or a file of results is damaged.
    """
    rows = read_rows(runs.results)
    return {run.name: _state(run, last_row(run, rows)) for run in runs.runs}


def _state(run: QueuedRun, row: Row | None) -> RunState:
    if (results := finished_results(run)) is not None:
        return RunState("ended", row=row_of(run, results))
    update = _saved_update(run)
    if is_locked(run):
        return RunState("running", update)
    if row is None or "error" not in row:
        return RunState("waiting", update, row)
    return RunState("diverged" if "diverged_at" in row else "failed", update, row)


def _saved_update(run: QueuedRun) -> int:
    saved = list_checkpoints(run.output_dir)
    return int(saved[-1].name.rpartition("-")[2]) if saved else 0


def table_of_results(runs: RunList) -> str:
    """Writes what came of the runs as a table of Markdown, from the file of results alone.

    Args:
        runs: the list, whose order it has; runs that are no longer in the list come last.

    Returns:
        The table, and below it which runs are left out because all that the file has of them is of other settings than
        the list's; nothing where no run has ended.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged.
    """
    rows = read_rows(runs.results)
    latest, own = latest_rows(rows), {run.name: last_row(run, rows) for run in runs.runs}
    listed = [row for row in own.values() if row is not None]
    table = results_table(listed, [row for name, row in latest.items() if name not in own])
    stale = [name for name, row in own.items() if row is None and name in latest]
    note = f"Left out, since their results are of other settings than the list's: {len(stale)} ({', '.join(stale)})."
    return "\n\n".join(filter(None, [table, note if stale else None]))


def work_through(
    runs: RunList, options: ProcessOptions | None = None, say: Callable[[str], None] = print
) -> QueueOutcome:
    """Trains the runs of a list, one after the other.

    A run that has ended is skipped, one that has a checkpoint is resumed, and one that another queue is training is
    left to that. A run that fails is noted, and the next one is started; the next queue tries it again. One that
    diverges has come to a result: it is tried again only with other options, or if its lines are removed.

    Args:
        runs: the list.
        options: how processes are started; None for the defaults.
        say: told what happens, a line at a time.

    Returns:
        What came of it.

    Raises:
        OSError: results cannot be read or written.
        ValueError: before anything is started: a file is missing, an option is not usable, the results of a run are of
            other settings, or the file of results is damaged.
    """
    for run in runs.runs:
        run.check()
    outcome = QueueOutcome(run_states(runs))
    _note_ended(runs, outcome.states)
    for name, state in outcome.states.items():
        if state.kind in ("ended", "diverged"):
            say(f"{name} has {state.describe()}")
    with Stopping(say) as stopping:
        queue = _Queue(runs, options or ProcessOptions(), say, stopping, outcome)
        # Once more, as long as there is news: a run that another queue was training may be free now.
        while queue.pass_through() and stopping.heard is None:
            pass
    outcome.states, outcome.stopped_by = run_states(runs), stopping.heard
    _note_ended(runs, outcome.states)
    return outcome


def _note_ended(runs: RunList, states: Mapping[str, RunState]) -> None:
    """Has a line for every run that has ended: the queue that trained it may have been killed before it did this."""
    for state in states.values():
        if state.kind == "ended" and state.row is not None:
            append_row(runs.results, state.row)


class _Queue:
    """One process that works through a list, maybe beside others."""

    def __init__(
        self,
        runs: RunList,
        options: ProcessOptions,
        say: Callable[[str], None],
        stopping: Stopping,
        outcome: QueueOutcome,
    ) -> None:
        self._runs, self._options, self._say, self._stopping, self._outcome = runs, options, say, stopping, outcome
        self._tried: set[str] = set()
        self._failed_before = _count_failures(read_rows(runs.results))

    def pass_through(self) -> bool:
        """Trains every run that is not ended, diverged, locked or tried; returns whether there was one."""
        is_news = False
        for number, run in enumerate(self._runs.runs, start=1):
            if self._stopping.heard is not None:
                break
            if run.name not in self._tried and not self._is_given_up(run) and self._try(run, number):
                self._tried.add(run.name)
                is_news = True
        return is_news

    def _try(self, run: QueuedRun, number: int) -> bool:
        """Trains a run; returns False where it has ended or another queue is training it."""

        def say(what: str) -> None:
            self._say(f"{time.strftime('%H:%M:%S')} {number}/{len(self._runs.runs)} {run.name} {what}")

        try:
            if finished_results(run) is not None or (lock := lock_run(run)) is None:
                return False
            try:
                if finished_results(run) is not None:  # by another queue, a moment ago
                    return False
                update = _saved_update(run)
                say(f"{f'resumes at update {update:,}' if update else 'starts'}; log: {run.output_dir / LOG}")
                end = train_in_process(run, lock, self._options, self._stopping)
            finally:
                os.close(lock)
            error, results = end.error, finished_results(run)
        except BrokenPipeError:  # nobody reads what the queue says
            raise
        except (OSError, ValueError) as problem:
            error, results = " ".join(str(problem).split()), None
        if results is not None:
            row = row_of(run, results)
            append_row(self._runs.results, row)
            say(RunState("ended", row=row).describe() + (f", but then: {error}" if error else ""))
        elif error is None:
            say(f"stopped at update {_saved_update(run):,}")
            return True
        else:
            row = failure_row(run, error)
            append_row(self._runs.results, row)
            if "diverged_at" in row:
                say(RunState("diverged", row=row).describe())
                return True
            say(f"failed: {error}")
        if error is not None:
            self._outcome.failed[run.name] = error
        return True

    def _is_given_up(self, run: QueuedRun) -> bool:
        """Whether a run has diverged, or has failed in another queue since this one began."""
        rows = read_rows(self._runs.results)
        row = last_row(run, rows)
        has_diverged = row is not None and "diverged_at" in row
        return has_diverged or _count_failures(rows)[run.name] > self._failed_before[run.name]


def _count_failures(rows: Iterable[Row]) -> Counter[str]:
    return Counter(row["name"] for row in rows if "error" in row)
