"""The page's server: Gradio's queue and API, and around them a page of our own.

It is a `gradio.Server`, which a Space of `sdk: gradio` runs like any other app: `gradio_client` and other programs can
call `/search`, `/attention` and `/positions`, and the calls wait in Gradio's queue, one at a time for each. The page
itself is plain HTML, CSS and JavaScript from the folder `page`, and not made of Gradio's components: a tree to walk
through with the arrow keys, and ribbons that follow the pointer, would be custom HTML in any case. As a document of its
own it loads in a moment, and has a content security policy by which the browser refuses any other host, where Gradio's
own page names a CDN and fonts. Gradio is imported in here only, when there is something to serve.
"""

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from ..inference.shipped import shipped_checkpoints
from .limits import Limits
from .page_model import PageModel
from .pending_answers import PendingAnswers

# What a page shows that was not told of any model; others of the shipped checkpoints by --model.
DEFAULT_MODELS = ("multi30k-de-en-tiny", "g2p-15-languages")

# Questions that may wait.
_WAITING = 32
_PAGE = Path(__file__).with_name("page")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS = {
    # Spaces show their page inside one of the Hub's, so that nothing is said of frames.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def default_models() -> list[str]:
    """The names of the shipped checkpoints that the page shows by default.

    Raises:
        FileNotFoundError: this copy of the package came without them.
    """
    found = [name for name in DEFAULT_MODELS if name in shipped_checkpoints()]
    if not found:
        raise FileNotFoundError(
            "no model was named, and this copy of the package has none: checkpoints are in the folder model_cards of "
            "the source repository, beside the package of a clone (pip install -e .), and not in a wheel"
        )
    return found


def load_models(folders: Sequence[str], limits: Limits | None = None, device: str = "auto") -> dict[str, PageModel]:
    """Loads the models of a page.

    Args:
        folders: of models; or names, as `load_translator` takes them.
        limits: of the page; None for the usual ones.
        device: as of `load_translator`.

    Returns:
        The models by name: that of the folder, or on the Hub.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: a model cannot be loaded, or two have one name.
    """
    found: dict[str, PageModel] = {}
    for folder in folders:
        name = Path(folder).resolve().name if Path(folder).is_dir() else str(folder)
        if name in found:
            raise ValueError(f"two models are called {name}; give folders of different names")
        found[name] = PageModel.load(folder, name, limits or Limits(), device)
    return found


def make_server(models: Mapping[str, PageModel]) -> Any:
    """Makes the application.

    Args:
        models: by name; the first is the one that the page begins with.

    Returns:
        A `gradio.Server`, to be launched; it is a FastAPI application.

    Raises:
        ImportError: there is no Gradio (extra `demo`).
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # it would tell its makers of every launch
    import gradio
    from fastapi.responses import Response

    # FastAPI's pages about the API load their program from a CDN; Gradio describes the API at /gradio_api/info.
    server = gradio.Server(title="vanilla-transformer demo", docs_url=None, redoc_url=None, openapi_url=None)
    files = _page_files()
    described = json.dumps({"models": [model.describe() for model in models.values()]}).encode()
    files["models.json"] = (described, "application/json")

    def respond(name: str) -> Response:
        # Looked up among what was read at the start: no name of a request reaches the file system.
        if name not in files:
            return Response("There is no such page.", 404, _HEADERS, "text/plain; charset=utf-8")
        content, kind = files[name]
        return Response(content, 200, _HEADERS, kind if kind == "application/json" else f"{kind}; charset=utf-8")

    server.add_api_route("/", lambda: respond("index.html"), methods=["GET", "HEAD"])
    server.add_api_route("/page/{name}", respond, methods=["GET", "HEAD"])
    for name, answer in _answers(models).items():
        server.api(answer, name=name, concurrency_limit=1, description=(answer.__doc__ or "").strip())
    return server


def serve(server: Any, host: str | None = None, port: int | None = None, block: bool = True) -> str:
    """Serves the page until Ctrl-C or SIGTERM.

    Args:
        server: of `make_server`.
        host: to listen at; None for what the variable GRADIO_SERVER_NAME says, which a Space sets, or 127.0.0.1.
        port: likewise GRADIO_SERVER_PORT, or the first that is free from 7860 on; 0 takes any.
        block: whether to return only when it has ended.

    Returns:
        The address of the page.

    Raises:
        OSError: the port is taken.
    """
    if port is not None:
        port = _free_port(host or "127.0.0.1", port)
    _, address, _ = server.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        inbrowser=False,
        ssr_mode=False,
        pwa=False,
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        max_file_size="1kb",  # there is nothing to upload
        app_kwargs={"lifespan": _own_queue},
    )
    print(f"the page is at {address}", file=sys.stderr, flush=True)
    if block:
        with _sigterm_as_ctrl_c():
            server.get_blocks().block_thread()
    return address


def launch(folders: Sequence[str], limits: Limits | None = None, device: str = "auto") -> None:
    """Loads models and serves their page: all that `app.py` of a Space has to do.

    Args:
        folders: as of `load_models`.
        limits: of the page; None for the usual ones.
        device: as of `load_translator`.
    """
    serve(make_server(load_models(folders, limits, device)))


def _answers(models: Mapping[str, PageModel]) -> dict[str, Callable[..., dict[str, Any]]]:
    """The functions of the API; Gradio reads their parameters and types."""

    def chosen(name: str) -> PageModel | None:
        return models.get(name) if isinstance(name, str) else None

    def unknown(name: str) -> dict[str, Any]:
        return {"error": f"there is no model {name!r:.80} here; there are {', '.join(models)}"}

    def search(
        model: str,
        text: str,
        tag: str = "",
        num_beams: int | None = None,
        length_penalty: float | None = None,
        prefix_ids: list[int] | None = None,
    ) -> dict[str, Any]:
        """Translates a text, and returns the beam search as a tree of hypotheses."""
        if (found := chosen(model)) is None:
            return unknown(model)
        return found.search(text, tag, num_beams, length_penalty, [] if prefix_ids is None else prefix_ids)

    def attention(model: str, text: str, tag: str, target_ids: list[int]) -> dict[str, Any]:
        """Returns what each head attends to while the model predicts the given tokens."""
        return unknown(model) if (found := chosen(model)) is None else found.attention(text, tag, target_ids)

    def positions(model: str, length: int) -> dict[str, Any]:
        """Returns what is added to the embeddings at each position."""
        return unknown(model) if (found := chosen(model)) is None else found.positions(length)

    return {"search": search, "attention": attention, "positions": positions}


@asynccontextmanager
async def _own_queue(server: Any) -> AsyncIterator[None]:
    """Bounds the queue before the server listens, so that no answer waits where nobody looks for it any more.

    `gradio.Server` has no options for these: it makes its queue while it is launched.
    """
    queue = server.get_blocks()._queue
    queue.max_size, queue.pending_messages_per_session = _WAITING, PendingAnswers(queue)
    yield


def _page_files() -> dict[str, tuple[bytes, str]]:
    """Content and type of each file of the page; what editors and systems leave beside them is none of it."""
    found = [path for path in sorted(_PAGE.iterdir()) if path.suffix in _TYPES]
    return {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in found}


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Has SIGTERM, by which services are ended, do what Ctrl-C does, where Python allows it: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _free_port(host: str, port: int) -> int:
    """Makes sure that a port is free, which Gradio says less plainly, and chooses one in place of 0."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise OSError(f"{host}:{port} cannot be listened at: {error.strerror or error}") from error
        return listener.getsockname()[1]


__all__ = ["DEFAULT_MODELS", "default_models", "launch", "load_models", "make_server", "serve"]
