"""The process of a service: it loads models, serves, and ends in order."""

import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from transformers.utils import logging

from ..inference.translator import Translator
from .app import create_app
from .connections import PromptHTTPProtocol
from .languages import Languages, declared_languages
from .limits import Limits
from .metrics import Metrics
from .served_model import ServedModel

logger = logging.get_logger(__name__)

# Names of this machine for itself, and how to ask for it.
_LOCAL = ("127.0.0.1", "localhost", "[::1]", "::1")


@dataclass(frozen=True)
class Service:
    """What `serve` starts.

    Args:
        folders: of the models, by name.
        languages: of some of them, by name, as `Languages.of` takes them.
        host: address to listen at.
        port: to listen at; 0 for any that is free.
        token: what requests need; None for none.
        allowed_hosts: names under which the service may be asked for; None for those of this machine if it listens to
            this machine only, and for any name otherwise.
        shutdown_seconds: after SIGTERM, when requests that still wait are given up; None for never. The batch that is
            being decoded is finished.
        access_log: whether each request is logged.
        limits: of requests.
        translator: arguments of `Translator`, such as `engine`.
    """

    folders: Mapping[str, str]
    languages: Mapping[str, str]
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    allowed_hosts: Sequence[str] | None = None
    shutdown_seconds: int | None = None
    access_log: bool = False
    limits: Limits = field(default_factory=Limits)
    translator: Mapping[str, Any] | None = None


def serve(service: Service) -> None:
    """Serves until SIGTERM or Ctrl-C. The port is taken first, and answers when all models are loaded.

    Args:
        service: what to serve.

    Raises:
        OSError: the port is taken, or there is no such model.
        ValueError: languages are given for a model that is not there, or an argument is not allowed.
        KeyboardInterrupt: after Ctrl-C, when all that was accepted is answered.
    """
    _check_languages(service)
    listener = _bound_socket(service.host, service.port)
    # As process 1 of a container, which no signal ends by itself, it is to end while it loads models, too. uvicorn has
    # handlers of its own while it serves, and repeats the signal for this one when it has ended in order.
    before = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        _serve(service, listener)
    except _Terminated:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


class _Terminated(BaseException):
    """SIGTERM has come."""


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _serve(service: Service, listener: socket.socket) -> None:
    with listener:
        config = uvicorn.Config(
            load_app(service),
            http=PromptHTTPProtocol,
            access_log=service.access_log,
            log_level="info" if service.access_log else "warning",
            limit_concurrency=service.limits.max_connections,
            timeout_graceful_shutdown=service.shutdown_seconds,
            proxy_headers=False,  # nobody says who he is by a header
            server_header=False,
            ws="none",
        )
        place = f"[{service.host}]" if ":" in service.host else service.host
        address = f"http://{place}:{listener.getsockname()[1]}"
        _AnnouncedServer(config, f"serving {', '.join(service.folders)} at {address}").run(sockets=[listener])


def load_app(service: Service) -> FastAPI:
    """Loads the models of a service, for a server of whatever kind.

    Args:
        service: what to serve; its port and how it ends are the server's business.

    Returns:
        The application.

    Raises:
        OSError: there is no such model.
        ValueError: as `serve`.
    """
    _check_languages(service)
    metrics = Metrics()
    models = [
        _load(name, folder, service.languages.get(name), service, metrics) for name, folder in service.folders.items()
    ]
    hosts = service.allowed_hosts
    if hosts is None and service.host in _LOCAL:
        hosts = _LOCAL
    return create_app(models, service.limits, metrics, service.token, hosts)


class _AnnouncedServer(uvicorn.Server):
    """A server that says so once it answers.

    Args:
        config: of the server.
        words: what it says.
    """

    def __init__(self, config: uvicorn.Config, words: str) -> None:
        super().__init__(config)
        self._words = words

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen, and speaks."""
        await super().startup(sockets)
        print(self._words, file=sys.stderr, flush=True)


def _check_languages(service: Service) -> None:
    """Refuses languages that cannot be meant, before models are loaded."""
    if unknown := sorted(set(service.languages) - set(service.folders)):
        raise ValueError(f"languages are given for {unknown[0]!r}, and the models are {', '.join(service.folders)}")
    for declared in service.languages.values():
        declared_languages(declared)


def _load(name: str, folder: str, languages: str | None, service: Service, metrics: Metrics) -> ServedModel:
    # What no text may exceed, so that no request has to wait for another conversion.
    translator = Translator(folder, longest_source=service.limits.max_batch_tokens, **(service.translator or {}))
    print(f"{name}: engine {translator.reason}", file=sys.stderr)
    found = Languages.of(translator.tokenizer, languages)
    return ServedModel(name, translator, found, service.limits, metrics)


def _bound_socket(host: str, port: int) -> socket.socket:
    """Takes a port without listening yet."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise OSError(f"{host}:{port} cannot be listened at: {error.strerror or error}") from error
    return listener


__all__ = ["Service", "load_app", "serve"]
