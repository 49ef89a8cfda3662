"""Bodies of HTML forms, as some clients of LibreTranslate send them, read as JSON."""

import json
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.routing import APIRoute

from .errors import Refusal

_FORM = "application/x-www-form-urlencoded"
_NUMBERS = ("alternatives", "num_beams")
_MOST_FIELDS = 256


class FormsToo(APIRoute):
    """A route that takes JSON, and forms as well."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, which sees a form as JSON."""
        handle = super().get_route_handler()

        async def with_forms(request: Request) -> Response:
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
                if "origin" in request.headers:  # unlike JSON, any page of the web can have a browser send a form
                    raise Refusal(403, "form_of_a_page", "forms are taken from programs, and not from pages of the web")
                request = _JsonOfForm(request)
            return await handle(request)

        return with_forms


class _JsonOfForm(Request):
    def __init__(self, form: Request) -> None:
        others = [(name, value) for name, value in form.scope["headers"] if name != b"content-type"]
        super().__init__(
            {**form.scope, "headers": [*others, (b"content-type", b"application/json")]}, form.receive, form._send
        )

    async def body(self) -> bytes:
        raw = await super().body()
        try:
            pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
        except ValueError as error:  # of Unicode too
            raise Refusal(
                400, "not_a_form", f"the body is no form in UTF-8 of at most {_MOST_FIELDS} fields"
            ) from error
        fields: dict[str, Any] = {}
        for name, value in pairs:
            if name in fields:  # several texts
                fields[name] = [*(fields[name] if isinstance(fields[name], list) else [fields[name]]), value]
            else:
                fields[name] = int(value) if name in _NUMBERS and value.isdecimal() and len(value) < 9 else value
        return json.dumps(fields).encode()


__all__ = ["FormsToo"]
