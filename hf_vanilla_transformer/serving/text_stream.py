"""Translations token by token, as greedy search finds them (§6.1 with one beam)."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from transformers import TextStreamer
from transformers.utils import logging

from ..translation_batches import TorchEngine, translate_pieces
from .errors import Refusal
from .limits import Limits
from .metrics import Metrics
from .served_model import ServedModel

logger = logging.get_logger(__name__)


class _ClientLeft(Exception):
    """Nobody reads the stream any more."""


class TextStream(TextStreamer):
    """Text of one translation, as it grows. Whatever has no visible character yet waits for the next token.

    Args:
        tokenizer: used by the thread that decodes.

    Attributes:
        whole: the translation, once the stream has ended.
    """

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.whole = ""
        self._loop, self._parts = asyncio.get_running_loop(), asyncio.Queue[str | Exception | None]()
        self._is_left = False

    def put(self, value: Any) -> None:
        """Takes the tokens of one step; ends the search if nobody reads any more."""
        if self._is_left:
            raise _ClientLeft
        super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Hands on a part of the text."""
        if text:
            self._send(text)

    def decode(self, model: ServedModel, pieces: list[list[int]]) -> None:
        """Translates, and ends the stream; runs in a thread.

        Args:
            model: decodes by torch, whatever its engine: no other hands on single tokens.
            pieces: of the text.
        """
        end: Exception | None = None
        try:
            engine = TorchEngine(model.translator.model, self.tokenizer)
            options = {"num_beams": 1, "do_sample": False, "num_return_sequences": 1, "streamer": self}
            parts: list[str] = []
            for piece in pieces:
                if parts:
                    self._send(" ")
                ((translation,),) = translate_pieces(engine, [[piece]], lambda lengths: [[0]], options)
                parts.append(translation.text)
            self.whole = " ".join(" ".join(parts).split("\n"))
        except _ClientLeft:
            pass
        except Exception as error:
            logger.error("a stream failed", exc_info=error)
            end = error
        self._send(end)

    async def parts(self) -> AsyncIterator[str]:
        """The text, part by part.

        Yields:
            Parts, none of them empty.

        Raises:
            Refusal: decoding failed.
        """
        while (part := await self._parts.get()) is not None:
            if isinstance(part, Exception):
                raise Refusal(500, "internal", "this stream failed by an error of the service, which its log shows")
            yield part

    def leave(self) -> None:
        """Tells the search that nobody reads any more."""
        self._is_left = True

    def _send(self, part: str | Exception | None) -> None:
        self._loop.call_soon_threadsafe(self._parts.put_nowait, part)


class Streams:
    """The threads that stream, of which there are few.

    Args:
        limits: of the service.
        metrics: of the service.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limit, self._metrics = limits.max_streams, metrics
        self._running = 0
        self._threads = ThreadPoolExecutor(limits.max_streams, thread_name_prefix="stream")

    @asynccontextmanager
    async def open(self, model: ServedModel, text: str, tag: str | None) -> AsyncIterator[TextStream]:
        """Begins to translate one text, and stops it at the end of the block.

        Args:
            model: what translates.
            text: what.
            tag: tags before it.

        Yields:
            The stream.

        Raises:
            Refusal: as many are running as may (429), or the text cannot be translated.
        """
        if self._running >= self._limit:
            sentence = f"{self._limit} translations are being streamed, and no more may be; try again later"
            raise Refusal(429, "streams_full", sentence, retry_after=1)
        self._count(1)
        try:
            stream = TextStream(model.streaming_tokenizer)
            pieces = await model.pieces_of(text, tag)
            decoding = asyncio.get_running_loop().run_in_executor(self._threads, stream.decode, model, pieces)
        except BaseException:
            self._count(-1)
            raise
        # Its place is free when the thread is: a client that leaves does not make room before.
        decoding.add_done_callback(lambda _: self._count(-1))
        try:
            yield stream
        finally:
            stream.leave()

    async def close(self) -> None:
        """Waits for the threads to end."""
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)

    def _count(self, change: int) -> None:
        self._running += change
        self._metrics.streams.set(self._running)


__all__ = ["Streams", "TextStream"]
