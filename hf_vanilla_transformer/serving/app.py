"""The application: models, limits and pages put together, for any ASGI server."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI

from .access import AllowHosts, CountRequests, LimitBody, RequireToken
from .access_token import checked_token
from .errors import add_error_handlers
from .limits import Limits
from .metrics import Metrics
from .routes import PATHS, router
from .served_model import ModelTable, ServedModel
from .text_stream import Streams

_DESCRIPTION = (
    "Translates and scores by models of hf_vanilla_transformer. It speaks the language of LibreTranslate too."
)


def create_app(
    models: Sequence[ServedModel],
    limits: Limits,
    metrics: Metrics,
    token: str | None = None,
    allowed_hosts: Sequence[str] | None = None,
) -> FastAPI:
    """Makes the application.

    Args:
        models: what it serves; made with the same limits and metrics. The first is the default.
        limits: of requests.
        metrics: what it shows at /metrics.
        token: what a request needs in its header; None for none.
        allowed_hosts: names under which the service may be asked for, so that no page of the web can have a browser
            ask it under another; None for any.

    Returns:
        The application. It decodes between startup and shutdown of its lifespan, and shutdown finishes what waits.

    Raises:
        ValueError: as `ModelTable` and `checked_token`.
    """
    token = None if token is None else checked_token(token)
    table, streams = ModelTable(models), Streams(limits, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for model in table:
            model.start()
        yield
        await streams.close()
        for model in table:
            await model.close()

    app = FastAPI(
        title="vanilla-transformer",
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # these two load scripts from elsewhere; /docs is ours
        redoc_url=None,
    )
    app.state.models, app.state.limits, app.state.metrics = table, limits, metrics
    app.state.streams, app.state.token = streams, token
    app.include_router(router)
    add_error_handlers(app)
    app.add_middleware(LimitBody, max_body=limits.max_body)
    # The last is the outermost: refusals of the others are counted too.
    if token is not None:
        app.add_middleware(RequireToken, token=token)
    if allowed_hosts is not None:
        app.add_middleware(AllowHosts, hosts=allowed_hosts)
    app.add_middleware(CountRequests, metrics=metrics, routes={"/openapi.json", *PATHS})
    return app


__all__ = ["create_app"]
