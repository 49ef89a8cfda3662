"""What is answered to a request that is refused: a status, and a sentence that says what is wrong."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from transformers.utils import logging

logger = logging.get_logger(__name__)

# Not the words of HTTP where they say little, by status.
_SENTENCES = {
    400: "the body could not be read; send JSON in UTF-8",
    404: "there is no such page; GET /docs lists all there are",
    405: "this page has another method; GET /docs lists the methods of each",
    408: "the body did not come to its end in time",
    413: "the body is larger than this service accepts; send fewer or shorter texts",
}


class Refusal(Exception):
    """A request that cannot be served.

    Args:
        status: of HTTP.
        code: one word or several for programs, joined by underscores.
        sentence: for people. It is sent as JSON, never as a header.
        retry_after: seconds after which the same request may succeed; None if it never will.
    """

    def __init__(self, status: int, code: str, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.code, self.retry_after = status, code, retry_after

    def response(self) -> JSONResponse:
        """The answer. Its `error` is a string, as clients of LibreTranslate expect it."""
        headers: dict[str, str] = {}
        content: dict[str, Any] = {"error": str(self), "code": self.code}
        if self.retry_after is not None:
            content["retry_after"] = self.retry_after
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(content, self.status, headers)


def add_error_handlers(app: FastAPI) -> None:
    """Lets an application answer every error by a `Refusal`; what was not foreseen too, and that is logged.

    Args:
        app: it.
    """

    @app.exception_handler(Refusal)
    async def refuse(request: Request, error: Refusal) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def refuse_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return as_refusal(error).response()

    @app.exception_handler(HTTPException)
    async def refuse_http(request: Request, error: HTTPException) -> JSONResponse:
        return http_refusal(error.status_code, str(error.detail)).response()

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> JSONResponse:
        logger.error("a request failed", exc_info=error)
        return Refusal(
            500, "internal", "this request failed by an error of the service, which its log shows"
        ).response()


def http_refusal(status: int, detail: str = "") -> Refusal:
    """Says what a status of HTTP means here.

    Args:
        status: it.
        detail: the sentence, if there is none of ours.

    Returns:
        The refusal.
    """
    return Refusal(status, f"http_{status}", _SENTENCES.get(status, detail))


def as_refusal(error: RequestValidationError) -> Refusal:
    """Says in a sentence what FastAPI finds wrong with a body.

    Values of the request are not repeated: they may be long, and need not be valid JSON (NaN).

    Args:
        error: it.

    Returns:
        400 if there is no JSON, 422 if it is not what is expected.
    """
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        why = first.get("ctx", {}).get("error", "")
        return Refusal(400, "not_json", f"the body is not JSON: {why} at character {first['loc'][-1]}")
    # "body", the kind of the request, and then where in it.
    place = ".".join(str(part) for part in first["loc"][1:] if part not in ("ours", "libretranslate"))
    message = first["msg"].removeprefix("Value error, ")
    if not place:
        return Refusal(422, "invalid", f"the body is to be a JSON object, sent as application/json: {message}")
    return Refusal(422, "invalid", f"`{place:.80}`: {message}")


__all__ = ["Refusal", "add_error_handlers", "as_refusal", "http_refusal"]
