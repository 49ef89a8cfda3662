"""Connections on which nothing is asked: they are closed, so that they do not take the places of others."""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol


class PromptHTTPProtocol(AutoHTTPProtocol):  # type: ignore[valid-type, misc]
    """uvicorn's protocol with a deadline for the head of each request.

    By itself, uvicorn closes a connection that is idle after an answer, but waits for ever for a first request, and for
    the rest of a head. How long a body may take is `LimitBody`'s business.

    Args:
        *args: as of uvicorn's.
        **kwargs: likewise.
    """

    seconds = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expects a request."""
        super().connection_made(transport)
        self._note_progress()

    def data_received(self, data: bytes) -> None:
        """Takes a part of a request; after its head, there is no deadline until the next one begins."""
        super().data_received(data)
        self._note_progress()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expects nothing any more."""
        super().connection_lost(exc)
        self._unset_deadline()

    def _note_progress(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering or self.transport.is_closing():
            self._unset_deadline()
        elif self._deadline is None:  # each further byte does not make it later
            self._deadline = self.loop.call_later(self.seconds, self.transport.close)

    def _unset_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


__all__ = ["PromptHTTPProtocol"]
