"""The layers around the application: what is counted, how large a body may be, and who may ask."""

import asyncio
import hmac
import time
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import Refusal, http_refusal
from .metrics import Metrics

# Without a token: whoever watches the service, and clients of LibreTranslate, which have their key in the body.
_OPEN, _KEY_IN_BODY = {"/health", "/languages"}, {"/translate"}
_IS_ALLOWED = "vanilla_transformer.is_allowed_host"


class AllowHosts:
    """Refuses requests under another name, as Starlette does, but in JSON as everything is refused here.

    Args:
        app: what is behind it.
        hosts: names under which the service may be asked for; `*.example.org` for those below one.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        async def mark(scope: Scope, receive: Receive, send: Send) -> None:
            scope[_IS_ALLOWED] = True

        self._app, self._look = app, TrustedHostMiddleware(mark, list(hosts), www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it."""

        async def drop(message: Message) -> None:
            """Instead of a refusal in plain text."""

        if scope["type"] == "http":
            await self._look(scope, receive, drop)
            if not scope.pop(_IS_ALLOWED, False):
                sentence = "this service may not be asked for under this name; it is told its names by --allowed_hosts"
                return await Refusal(400, "unknown_host", sentence).response()(scope, receive, send)
        return await self._app(scope, receive, send)


class RequireToken:
    """Refuses requests without the token of the service in `Authorization: Bearer TOKEN`.

    Args:
        app: what is behind it.
        token: it.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it."""
        if scope["type"] == "http" and scope["path"] not in _OPEN:
            kind, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
            is_known = kind.lower() == "bearer" and is_token(given, self._token)
            if not is_known and scope["path"] not in _KEY_IN_BODY:
                return await no_token().response()(scope, receive, send)
            scope["vanilla_transformer.is_known"] = is_known
        return await self._app(scope, receive, send)


def is_token(given: str | None, token: str) -> bool:
    """Compares a token in a time that does not tell where the two differ."""
    return hmac.compare_digest((given or "").encode("utf-8", "replace"), token.encode())


def no_token() -> Refusal:
    """What a request without the token is told."""
    return Refusal(401, "no_token", "this service needs its token, in the header Authorization: Bearer TOKEN")


class LimitBody:
    """Refuses bodies that are too large, or that do not come to their end.

    FastAPI has such a limit, which answers by plain text, and knows no time.

    Args:
        app: what is behind it.
        max_body: bytes of a body.
        seconds: that a body may take.
    """

    def __init__(self, app: ASGIApp, max_body: int, seconds: float = 60.0) -> None:
        self._app, self._max_body, self._seconds = app, max_body, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it before it is read."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and (len(announced) > 18 or int(announced) > self._max_body):
            return await http_refusal(413).response()(scope, receive, send)
        loop = asyncio.get_running_loop()
        size, is_read, due = 0, False, loop.time() + self._seconds

        async def limited() -> Message:
            nonlocal size, is_read
            if is_read:  # and what comes is that the client leaves
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), due - loop.time())
            except TimeoutError:
                raise HTTPException(408) from None
            size += len(message.get("body", b""))
            if size > self._max_body:
                raise HTTPException(413)
            is_read = not message.get("more_body", False)
            return message

        return await self._app(scope, limited, send)


class CountRequests:
    """Counts requests and their time, and forbids browsers to guess what an answer is.

    Args:
        app: what is behind it.
        metrics: what to count in.
        routes: known paths. All others are counted as one, so that nobody can fill the memory with names.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: set[str]) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), 500

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers: list[Any] = [*message.get("headers", []), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": headers}
            await send(message)

        try:
            return await self._app(scope, receive, note)
        finally:
            route = scope["path"] if scope["path"] in self._routes else "other"
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)


__all__ = ["AllowHosts", "CountRequests", "LimitBody", "RequireToken", "is_token", "no_token"]
