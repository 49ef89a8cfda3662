"""What one of several processes does for all: decisions about folders, hashing, averaging."""

import pickle
from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import nn

Result = TypeVar("Result")


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


__all__ = ["broadcast_weights", "by_main_process"]
