"""The pages of a service."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse, ServerSentEvent
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ..translation_batches import Translation
from .access import is_token, no_token
from .docs_page import docs_page
from .errors import Refusal
from .forms import FormsToo
from .limits import Limits
from .schemas import (
    AnyTranslateRequest,
    Candidate,
    ErrorResponse,
    Language,
    LibreTranslateRequest,
    LibreTranslateResponse,
    ModelDescription,
    PairScore,
    ScoreRequest,
    ScoreResponse,
    StreamRequest,
    TranslateRequest,
    TranslateResponse,
)
from .served_model import ScoreOptions, TranslateOptions
from .text_stream import TextStream

_Result = TypeVar("_Result")

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "the body cannot be read"},
    413: {"model": ErrorResponse, "description": "over a limit of the service"},
    422: {"model": ErrorResponse, "description": "not what is expected, or not what the model has"},
    429: {"model": ErrorResponse, "description": "the queue is full; Retry-After says when to come again"},
}

router = APIRouter(route_class=FormsToo)


@router.post("/translate", responses=_ERRORS, response_model_exclude_unset=True)
async def translate(request: Request, body: AnyTranslateRequest) -> TranslateResponse | LibreTranslateResponse:
    """Translates texts. They are decoded together with those of other requests, whose answers do not change by it."""
    state = request.app.state
    _check_key(request, body)
    ours = body if isinstance(body, TranslateRequest) else body.as_ours()
    texts = _limited(ours.text, state.limits)
    for name, value in (("nbest" if ours is body else "alternatives", ours.nbest), ("num_beams", ours.num_beams or 1)):
        if value > state.limits.max_beams:
            raise Refusal(413, "too_many_beams", f"`{name}` asks for more than the {state.limits.max_beams} beams of "
                "this service")  # fmt: skip
    if ours.num_beams is not None and ours.nbest > ours.num_beams:
        raise Refusal(422, "invalid", f"{ours.nbest} translations of each text need as many beams, and `num_beams` is "
            f"{ours.num_beams}")  # fmt: skip
    model = state.models.choose(ours.model, ours.source_lang, ours.target_lang)
    tag = model.tag_for(ours.source_lang, ours.target_lang, ours.tag)
    options = TranslateOptions(ours.nbest, ours.num_beams, ours.scores, ours.alignments, tag)
    found = await _until_left(request, model.translate(texts, options))
    if isinstance(body, LibreTranslateRequest):
        return _as_libretranslate(found, isinstance(body.q, list), body.alternatives)
    translations = [[_candidate(each, ours.scores, ours.alignments) for each in row] for row in found]
    return TranslateResponse(model=model.name, translations=translations)


async def _open_stream(request: Request, body: StreamRequest) -> AsyncIterator[TextStream]:
    state = request.app.state
    (text,) = _limited(body.text, state.limits)
    model = state.models.choose(body.model, body.source_lang, body.target_lang)
    tag = model.tag_for(body.source_lang, body.target_lang, body.tag)
    async with state.streams.open(model, text, tag) as stream:
        yield stream


@router.post("/translate/stream", responses=_ERRORS, response_class=EventSourceResponse)
async def translate_stream(stream: Annotated[TextStream, Depends(_open_stream)]) -> AsyncIterator[ServerSentEvent]:
    """Translates one text by greedy search, and sends it as it grows: events `text`, and `done` with all of it."""
    try:
        async for part in stream.parts():
            yield ServerSentEvent(event="text", data={"text": part})
    except Refusal as error:
        yield ServerSentEvent(event="error", data={"error": str(error), "code": error.code})
    else:
        yield ServerSentEvent(event="done", data={"text": stream.whole})


@router.post("/score", responses=_ERRORS, response_model_exclude_unset=True)
async def score(request: Request, body: ScoreRequest) -> ScoreResponse:
    """Says how probable a model finds given translations. The first request loads the model of torch, if need be."""
    state = request.app.state
    sources, targets = _limited(body.source, state.limits), _limited(body.target, state.limits)
    if len(sources) != len(targets):
        raise Refusal(422, "invalid", f"`source` has {len(sources)} texts, and `target` {len(targets)}")
    model = state.models.choose(body.model, body.source_lang, body.target_lang)
    tag = model.tag_for(body.source_lang, body.target_lang, body.tag)
    pairs = list(zip(sources, targets, strict=True))
    scores = []
    for found in await _until_left(request, model.score(pairs, ScoreOptions(tag))):
        fields = {name: getattr(found, name) for name in ("log_prob", "num_tokens", "nats_per_token")}
        if body.per_token:
            fields |= {"tokens": list(found.tokens), "token_log_probs": list(found.token_log_probs)}
        scores.append(PairScore(**fields))
    return ScoreResponse(model=model.name, scores=scores)


@router.get("/models")
async def models(request: Request) -> list[ModelDescription]:
    """Lists the models of this service; the first is used where a request names none."""
    return [
        ModelDescription(
            name=model.name,
            engine=model.translator.engine.name,
            is_default=place == 0,
            tags=list(model.languages.tags),
            source_languages=list(model.languages.sources),
            target_languages=list(model.languages.targets),
        )
        for place, model in enumerate(request.app.state.models)
    ]


@router.get("/languages")
async def languages(request: Request) -> list[Language]:
    """Lists the languages that can be translated from, and into which, as LibreTranslate does; the name is the code."""
    found: dict[str, dict[str, None]] = {}
    for model in request.app.state.models:
        for source in model.languages.sources:
            found.setdefault(source, {}).update(dict.fromkeys(model.languages.targets))
    return [Language(code=code, name=code, targets=list(targets)) for code, targets in found.items()]


@router.get("/health")
async def health() -> dict[str, str]:
    """Says that the service answers, which it does once all models are loaded."""
    return {"status": "ok"}


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Shows the pages of this service, without a script and without the network."""
    return HTMLResponse(docs_page(request.app.openapi()), headers={"Content-Security-Policy": "default-src 'none'; "
        "style-src 'unsafe-inline'"})  # fmt: skip


def _check_key(request: Request, body: TranslateRequest | LibreTranslateRequest) -> None:
    """Refuses a request whose token is neither in its header nor, as `api_key`, in its body."""
    if not request.scope.get("vanilla_transformer.is_known", True):
        key = body.api_key if isinstance(body, LibreTranslateRequest) else None
        if not is_token(key, request.app.state.token):
            raise no_token()


def _limited(texts: str | list[str], limits: Limits) -> list[str]:
    """The texts of a request as a list, if they are within the limits."""
    texts = [texts] if isinstance(texts, str) else texts
    if not texts:
        raise Refusal(422, "invalid", "the list of texts is empty")
    if len(texts) > limits.max_texts:
        sentence = f"{len(texts)} texts are more than the {limits.max_texts} of one request; send several requests"
        raise Refusal(413, "too_many_texts", sentence)
    if (longest := max(map(len, texts))) > limits.max_characters:
        sentence = f"a text of {longest} characters is longer than the {limits.max_characters} that this service takes"
        raise Refusal(413, "text_too_long", sentence)
    return texts


async def _until_left(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Does the work of a request, and cancels it when its client leaves."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Refusal(499, "client_left", "the client has left")  # for the metrics; nobody reads it
        return working.result()
    finally:
        for each in (working, leaving):
            each.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _candidate(found: Translation, scores: bool, alignments: bool) -> Candidate:
    fields: dict[str, Any] = {"text": found.text}
    if scores:
        fields |= {"score": found.score, "log_prob": found.log_prob}
    if alignments:
        fields |= {name: list(getattr(found, name) or ()) for name in ("source_tokens", "tokens", "alignment")}
    return Candidate(**fields)


def _as_libretranslate(
    found: Sequence[Sequence[Translation]], is_list: bool, alternatives: int
) -> LibreTranslateResponse:
    best = [row[0].text for row in found]
    others = [[each.text for each in row[1:]] for row in found]
    more: dict[str, Any] = {"alternatives": others if is_list else others[0]} if alternatives else {}
    return LibreTranslateResponse(translatedText=best if is_list else best[0], **more)


PATHS = {route.path for route in router.routes if isinstance(route, APIRoute)}

__all__ = ["PATHS", "router"]
