"""What one of several processes does for all: decisions about folders, hashing, averaging."""

import pickle
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

Result = TypeVar("Result")

# Seconds in which a file of one machine should be seen on another.
_UNTIL_SEEN = 60.0


def by_main_process(work: Callable[[], Result]) -> Result:
    """Has the first process do something, and hands its result, or its error, to all.

    All processes agree on what was found, a folder that all of them see is read once, and none of them waits for one
    that has stopped with an error.

    Args:
        work: done by the first process alone; returns what can be pickled.

    Returns:
        What `work` returned, on every process.

    Raises:
        Exception: `work` raised it, on every process.
    """
    state = PartialState()
    if state.num_processes == 1:
        return work()
    outcome: list[tuple[Result | None, Exception | None]] = [(None, None)]
    if state.is_main_process:
        try:
            outcome = [(work(), None)]
        except Exception as error:  # of whatever kind: the others would wait for ever
            outcome = [(None, _that_can_be_sent(error))]
    result, problem = broadcast_object_list(outcome, from_process=0)[0]
    if problem is not None:
        raise problem
    return result


def require_shared(folder: str | Path) -> None:
    """Refuses a folder that is another one on another machine, where checkpoints would lack what its processes know.

    Args:
        folder: there is one of this path for the first process.

    Raises:
        ValueError: not all processes see it, on every process.
    """
    if PartialState().num_processes == 1:
        return
    mark = Path(folder) / by_main_process(lambda: f".seen-by-all-{uuid.uuid4().hex}")
    by_main_process(mark.touch)
    deadline = time.monotonic() + _UNTIL_SEEN
    while not (is_seen := mark.exists()) and time.monotonic() < deadline:
        time.sleep(0.5)
    everywhere = gather_object([is_seen])
    by_main_process(lambda: mark.unlink(missing_ok=True))
    if not all(everywhere):
        raise ValueError(
            f"output_dir={folder} is not the same folder for all processes: {everywhere.count(False)} of "
            f"{len(everywhere)} do not see what the first writes there; choose one on a disk that all machines share"
        )


def _that_can_be_sent(error: Exception) -> Exception:
    """The error itself, or one that says the same where its class cannot be pickled, as some of clients cannot."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        kind: type[Exception] = next((each for each in (OSError, ValueError) if isinstance(error, each)), RuntimeError)
        return kind(f"{type(error).__name__}: {error}")
    return error


@torch.no_grad()
def broadcast_weights(model: nn.Module) -> None:
    """Gives all processes the weights that the first one has.

    Args:
        model: whole on each process, not divided among them.
    """
    if PartialState().num_processes > 1:
        for weight in [*model.parameters(), *model.buffers()]:
            torch.distributed.broadcast(weight, src=0)


def leave_together() -> None:
    """Ends the connection of several processes, when the last of them is done; to be called at the end of a program.

    A process that exits with an open connection may be aborted by torch; its launcher then stops the others, and the
    first may still be writing results.
    """
    state = PartialState()
    if state.num_processes > 1:
        state.wait_for_everyone()
        state.destroy_process_group()


__all__ = ["broadcast_weights", "by_main_process", "leave_together", "require_shared"]
