"""Answers of the page that were not fetched yet: kept for whoever waits for them, and not for ever for who has left.

Gradio keeps, for each session, the messages that its reader has not read, and forgets the oldest session when there are
too many, though somebody may wait for it still. Here, who waits is never forgotten, what was fetched is forgotten at
once, and answers that nobody fetches are kept up to an amount of memory.
"""

from asyncio import Queue
from typing import Any, Protocol

# In bytes; the attention of six layers of eight heads, over as many tokens as the page allows, has some 50 MB.
MAX_UNFETCHED = 2**28
# Of a number in a list, as Python keeps it.
_BYTES_OF_NUMBER = 32
# Of a session, whatever was answered: so there are 4,096 at most of which nobody fetches anything.
_BYTES_OF_SESSION = 2**16


class _EventQueue(Protocol):
    """What is used of `gradio.queueing.Queue`."""

    pending_event_ids_session: dict[str, set[str]]
    event_ids_to_events: dict[str, Any]


class PendingAnswers(dict[str, Queue[Any]]):
    """The messages for each session, in place of a Gradio queue's `pending_messages_per_session`.

    With each new session and each message, the others are looked through. A session of which a call waits or is worked
    on stays; the queue bounds their number. One whose answers were all fetched is removed. Of those with answers that
    nobody has fetched so far, the newest stay that have `max_bytes` together, and the newest in any case.

    Args:
        queue: Gradio's queue, which knows the calls.
        max_bytes: of answers that nobody has fetched.
    """

    def __init__(self, queue: _EventQueue, max_bytes: int = MAX_UNFETCHED) -> None:
        super().__init__()
        self._queue, self._max_bytes = queue, max_bytes

    def __setitem__(self, session: str, messages: Queue[Any]) -> None:
        """Adds a session, and removes those that nobody waits for."""
        super().__setitem__(session, messages)
        self._remove_others(session)

    def __getitem__(self, session: str) -> Queue[Any]:
        """The messages of a session, to add one or take one, when those that nobody waits for have been removed."""
        messages = super().__getitem__(session)
        self._remove_others(session)
        return messages

    def _remove_others(self, named: str) -> None:
        calls, unfinished = self._queue.pending_event_ids_session, self._queue.event_ids_to_events.keys()
        total = 0
        for session, messages in reversed(list(self.items())):
            if session == named or not unfinished.isdisjoint(calls.get(session, ())):
                continue
            if not calls.get(session):
                self._remove(session)
            elif not messages.empty():  # else its reader is being sent the last one
                # There is no other way to look at messages without taking them.
                size = _BYTES_OF_SESSION + sum(map(estimated_size, messages._queue))
                if total and total + size > self._max_bytes:
                    self._remove(session)
                else:
                    total += size
        # Of readers that left while they were answered, Gradio keeps the calls.
        for session in [each for each, ids in calls.items() if each not in self and unfinished.isdisjoint(ids)]:
            del calls[session]

    def _remove(self, session: str) -> None:
        del self[session]
        self._queue.pending_event_ids_session.pop(session, None)


def estimated_size(message: Any) -> int:
    """About how many bytes a message has in memory, by the first item of each list: lists of lists are arrays here.

    Args:
        message: of Gradio; what has no `output` is small.

    Returns:
        Bytes.
    """
    return _BYTES_OF_NUMBER * _count(getattr(message, "output", None))


def _count(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_count, value.values()))
    if isinstance(value, list | tuple):
        return len(value) * _count(value[0]) if value else 1
    return 1


__all__ = ["MAX_UNFETCHED", "PendingAnswers", "estimated_size"]
