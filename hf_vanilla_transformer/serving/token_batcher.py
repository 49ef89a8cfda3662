"""Dynamic batching: texts of many requests are decoded together, by tokens and with a deadline."""

import asyncio
import math
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from transformers.utils import logging

from .errors import Refusal
from .limits import Limits
from .metrics import Metrics

logger = logging.get_logger(__name__)


@dataclass(eq=False)
class _Item:
    """One text that waits."""

    key: Hashable
    payload: Any
    tokens: int
    beams: int
    arrived: float
    result: asyncio.Future[Any]


class TokenBatcher:
    """A queue in front of one model.

    Only texts with equal options go together. A batch begins with the oldest text and takes others in the order of
    their arrival, as long as their number, and their tokens with padding, stay within limits. It starts when that many
    wait, or when its oldest text has waited for `Limits.max_wait`. While a batch is decoded, the next one collects.
    All work is done by one thread, so what it does needs no locks.

    Args:
        name: of the model, in metrics.
        work: decodes payloads that have the same key, and returns a result for each; runs in the thread.
        limits: of batches and of the queue.
        metrics: what to count in.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Any, list[Any]], Sequence[Any]],
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._name, self._work, self._limits, self._metrics = name, work, limits, metrics
        self._waiting: dict[_Item, None] = {}  # in order, and quick to take from anywhere
        self._waiting_tokens = self._waiting_beam_tokens = 0
        self._tokens_per_second: float | None = None
        self._arrived, self._is_closing = asyncio.Event(), False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"decode {name}")
        self._task: asyncio.Task[None] | None = None
        self._note_queue()  # which lets /metrics show it from the start

    def start(self) -> None:
        """Begins to decode what arrives, in the running event loop."""
        self._task = asyncio.create_task(self._decode_batches())

    async def close(self) -> None:
        """Decodes what waits, and ends."""
        self._is_closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def submit(self, key: Hashable, payloads: Sequence[Any], tokens: Sequence[int], beams: int = 1) -> list[Any]:
        """Waits for the results of some texts. If it is cancelled, those that still wait are not decoded.

        Args:
            key: the options of all of them.
            payloads: what `work` takes.
            tokens: how many source tokens each has.
            beams: of the search of all of them.

        Returns:
            A result for each, in order.

        Raises:
            Refusal: the queue is full (429), or the service is about to end (503).
            Exception: as `work` raises it for these texts; others of the same batch are not concerned.
        """
        if self._is_closing:
            raise Refusal(503, "ending", "this service is about to end", retry_after=1)
        queues = (
            ("texts", len(self._waiting), len(payloads), self._limits.max_queue),
            (
                "source tokens times beams",
                self._waiting_beam_tokens,
                beams * sum(tokens),
                self._limits.max_queue_beam_tokens,
            ),
        )
        for what, waiting, new, most in queues:
            if waiting + new > most:
                self._metrics.refused.labels(self._name).inc(len(payloads))
                sentence = f"{waiting} {what} wait for this model already, and at most {most} may; try again later"
                raise Refusal(429, "queue_full", sentence, self._seconds_of_queue())
        loop = asyncio.get_running_loop()
        now = loop.time()
        items = [
            _Item(key, payload, count, beams, now, loop.create_future())
            for payload, count in zip(payloads, tokens, strict=True)
        ]
        for item in items:
            self._waiting[item] = None
            self._waiting_tokens += item.tokens
            self._waiting_beam_tokens += item.tokens * item.beams
        self._note_queue()
        self._arrived.set()
        try:
            results = [await item.result for item in items]
        finally:
            left = [item for item in items if item in self._waiting]
            self._remove(left)
            self._metrics.dropped.labels(self._name).inc(len(left))
        for result in results:
            if isinstance(result, Exception):
                raise result
        return results

    def _remove(self, items: Sequence[_Item]) -> None:
        for item in items:
            del self._waiting[item]
            self._waiting_tokens -= item.tokens
            self._waiting_beam_tokens -= item.tokens * item.beams
        self._note_queue()

    def _note_queue(self) -> None:
        self._metrics.queue.labels(self._name).set(len(self._waiting))

    def _seconds_of_queue(self) -> int:
        """How long the queue will take, at the speed so far."""
        seconds = 1.0 if self._tokens_per_second is None else self._waiting_tokens / self._tokens_per_second
        return min(60, max(1, math.ceil(seconds)))

    async def _decode_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while await self._wait_for_batch():
            batch = self._take_batch()
            started = loop.time()
            payloads = [item.payload for item in batch]
            results = await loop.run_in_executor(self._thread, self._results, batch[0].key, payloads)
            self._note_batch(batch, loop.time() - started)
            for item, result in zip(batch, results, strict=True):
                if not item.result.done():  # its client may have left meanwhile
                    item.result.set_result(result)

    async def _wait_for_batch(self) -> bool:
        """Waits until the next batch is due. False once there will be none any more."""
        loop = asyncio.get_running_loop()
        while True:
            self._arrived.clear()
            if not self._waiting:
                if self._is_closing:
                    return False
                await self._arrived.wait()
                continue
            due = next(iter(self._waiting)).arrived + self._limits.max_wait / 1000
            remaining = due - loop.time()
            is_full = (
                self._waiting_tokens >= self._limits.max_batch_tokens
                or len(self._waiting) >= self._limits.max_batch_texts
            )
            if remaining <= 0 or self._is_closing or is_full:
                return True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), remaining)

    def _take_batch(self) -> list[_Item]:
        key, longest, batch = next(iter(self._waiting)).key, 0, list[_Item]()
        for item in self._waiting:
            if item.key != key:
                continue
            with_it = max(longest, item.tokens)
            if not batch or with_it * (len(batch) + 1) <= self._limits.max_batch_tokens:
                batch.append(item)
                longest = with_it
                if len(batch) == self._limits.max_batch_texts:
                    break
        self._remove(batch)
        return batch

    def _results(self, key: Any, payloads: list[Any]) -> Sequence[Any]:
        """What `work` returns; where it fails, each alone, so that only the culprit's is the error."""
        try:
            return self._work(key, payloads)
        except Exception as error:  # whatever it is, others are not to suffer from it
            if len(payloads) == 1:
                return [error]
            if not isinstance(error, ValueError):  # which is a text that cannot be translated
                logger.error(f"a batch of {len(payloads)} texts failed; each is decoded alone", exc_info=error)
            return [self._results(key, [payload])[0] for payload in payloads]

    def _note_batch(self, batch: list[_Item], seconds: float) -> None:
        tokens = sum(item.tokens for item in batch)
        self._metrics.texts.labels(self._name).inc(len(batch))
        self._metrics.tokens.labels(self._name).inc(tokens)
        self._metrics.batch_texts.labels(self._name).observe(len(batch))
        self._metrics.batch_seconds.labels(self._name).observe(seconds)
        speed = tokens / max(seconds, 1e-6)
        before = self._tokens_per_second
        self._tokens_per_second = speed if before is None else 0.9 * before + 0.1 * speed


__all__ = ["TokenBatcher"]
