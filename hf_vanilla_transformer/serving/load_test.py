"""A bounded load test of a service: many clients at a time, and each answer compared with offline decoding."""

import asyncio
import re
import signal
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx
from transformers.utils import logging

from ..inference.translator import Translator
from ..translation_batches import Translation

logger = logging.get_logger(__name__)

# Two translations of a source whose scores differ by less, in nats, are equally good: which one is found is rounding.
_EQUALLY_GOOD = 1e-3
_MEMORY = re.compile(r"^process_resident_memory_bytes (\S+)$", re.MULTILINE)
_MEMORY_READINGS = 50
_SECONDS_TO_ANSWER = 120.0


@dataclass(frozen=True)
class Load:
    """What is asked of a service.

    Args:
        texts: sentences; request N asks for the one at the place N modulo their number.
        expected: the translation of each by offline decoding, with its score.
        num_beams: of the search; None for the model's own.
    """

    texts: Sequence[str]
    expected: Sequence[Translation]
    num_beams: int | None = None


@dataclass
class LoadResult:
    """What came of it.

    Args:
        clients: how many asked at a time.
        seconds: that each answered request took, its retries included.
        total: seconds of all together.
        ties: answers that differ from the expected one, and are as good.
        wrong: the number of each request whose answer is another's, or just another one.
        lost: the number of each request without an answer.
        retries: times that a request was told to come again.
        memory: bytes of the service's process from time to time.
    """

    clients: int
    seconds: list[float] = field(default_factory=list)
    total: float = 0.0
    ties: int = 0
    wrong: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    retries: int = 0
    memory: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return len(self.seconds) / self.total

    def row(self) -> str:
        """A row of the table of `lines`."""
        cuts = statistics.quantiles(self.seconds, n=20) if len(self.seconds) > 1 else [float("nan")] * 19
        p50, p95 = (f"{cuts[place] * 1e3:,.0f} ms" for place in (9, 18))
        return f"| {self.clients} | {len(self.seconds):,} | {self.rate:,.1f} | {p50} | {p95} |"


@dataclass(frozen=True)
class LoadComparison:
    """One client after the other, and many at a time.

    Args:
        engine: of the service.
        alone: one client, whose next request follows the last answer.
        together: many clients.
        status: with which the service ended after SIGTERM.
    """

    engine: str
    alone: LoadResult
    together: LoadResult
    status: int | None = None

    @property
    def is_right(self) -> bool:
        """Whether no answer was lost or wrong, and the service ended in order."""
        results = (self.alone, self.together)
        return not any(each.wrong or each.lost for each in results) and self.status in (None, 0)

    def lines(self) -> list[str]:
        """The comparison as a table, and what is to be said about answers and memory."""
        both = self.together
        lines = [
            f"engine {self.engine}",
            "| clients | requests | a second | p50 | p95 |",
            "|---|---|---|---|---|",
            self.alone.row(),
            both.row(),
            f"ratio of rates: {both.rate / self.alone.rate:.2f}x",
        ]
        for each in (self.alone, both):
            right = len(each.seconds) - len(each.wrong) - each.ties
            lines.append(
                f"{each.clients} clients: {right:,} answers are those of offline decoding, {each.ties} others as "
                f"good, {len(each.wrong)} are wrong, {len(each.lost)} are lost; {each.retries} times 429"
            )
            lines += [
                f"  {name}: requests {found[:10]}" for name in ("wrong", "lost") if (found := getattr(each, name))
            ]
        if len(both.memory) > 1:
            tenth = both.memory[len(both.memory) // 10]
            readings = (both.memory[0], tenth, both.memory[-1], max(both.memory))
            first, early, last, most = (f"{value / 2**20:,.1f}" for value in readings)
            lines.append(
                f"memory: {first} MiB first, {early} after a tenth of the requests, {last} last, {most} at most"
            )
        if self.status is not None:
            lines.append(f"exit status after SIGTERM: {self.status}")
        return lines


def run_load_test(
    folder: str,
    texts: Sequence[str],
    clients: int,
    requests: int,
    alone: int,
    num_beams: int | None = None,
    engine: str = "auto",
    url: str | None = None,
) -> LoadComparison:
    """Asks a service, which it starts on this machine and ends by SIGTERM, or one that is running.

    Args:
        folder: of the model.
        texts: sentences.
        clients: how many ask at a time.
        requests: of all of them together.
        alone: requests of one client before.
        num_beams: of the search; None for the model's own.
        engine: as `Translator` takes it, of the service and of offline decoding.
        url: of a service that is running, and serves this model first; None to start one.

    Returns:
        Both results.

    Raises:
        OSError: the service did not start, or does not answer.
    """
    translator = Translator(folder, engine=engine)
    options: dict[str, Any] = {} if num_beams is None else {"num_beams": num_beams}
    rows = translator.translate_with_details(texts, alignments=False, **options)
    load = Load(texts, [row[0] for row in rows], num_beams)
    words = ["--engine", engine, "--max_connections", str(clients + 100), "--max_queue", str(max(1024, 2 * clients))]
    with _started_service(folder, words) if url is None else nullcontext((None, url)) as (process, address):

        @asynccontextmanager
        async def connect() -> AsyncIterator[httpx.AsyncClient]:
            # One context for all: making one takes longer than a request, and there is no TLS.
            async with httpx.AsyncClient(base_url=address, timeout=_SECONDS_TO_ANSWER, verify=no_tls) as client:
                yield client

        no_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            first = asyncio.run(put_load(connect, load, 1, alone))
            second = asyncio.run(put_load(connect, load, clients, requests))
        except httpx.HTTPError as error:  # before the first request, or after the last
            raise OSError(f"{address} does not answer: {type(error).__name__} {error}") from error
        status = None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            status = _status(process, _SECONDS_TO_ANSWER)
    return LoadComparison(translator.engine.name, first, second, status)


async def put_load(connect: Callable[[], Any], load: Load, clients: int, requests: int) -> LoadResult:
    """Sends requests, each client the next one when it has its answer.

    Args:
        connect: opens a client of its own, as a context.
        load: what to ask.
        clients: how many ask at a time.
        requests: of all of them.

    Returns:
        What came of it.
    """
    result, numbers = LoadResult(clients), count()
    every = max(1, requests // _MEMORY_READINGS)

    async def ask() -> None:
        async with connect() as client:
            while (number := next(numbers)) < requests:
                if number % every == 0:
                    result.memory += await _memory(client)
                await _ask_once(client, load, number, result)

    async with connect() as client:
        await client.get("/health")
        started = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(clients)))
        result.total = time.perf_counter() - started
        result.memory += await _memory(client)
    return result


async def _ask_once(client: httpx.AsyncClient, load: Load, number: int, result: LoadResult) -> None:
    place = number % len(load.texts)
    body: dict[str, Any] = {"text": load.texts[place], "scores": True}
    if load.num_beams is not None:
        body["num_beams"] = load.num_beams
    started = time.perf_counter()
    try:
        while (answer := await client.post("/translate", json=body)).status_code == 429:
            result.retries += 1
            await asyncio.sleep(int(answer.headers["retry-after"]))
        found = answer.json()["translations"][0][0]
    except (httpx.HTTPError, KeyError, ValueError):
        result.lost.append(number)
        return
    result.seconds.append(time.perf_counter() - started)
    expected = load.expected[place]
    if found["text"] != expected.text:
        if expected.score is not None and abs(found["score"] - expected.score) < _EQUALLY_GOOD:
            result.ties += 1
        else:
            result.wrong.append(number)


async def _memory(client: httpx.AsyncClient) -> list[float]:
    match = _MEMORY.search((await client.get("/metrics")).text)
    return [float(match[1])] if match else []


def _status(process: subprocess.Popen[str], seconds: float) -> int:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        logger.warning(f"the service had not ended {seconds:g} seconds after SIGTERM, and is killed")
        process.kill()
        return process.wait()


@contextmanager
def _started_service(folder: str, words: Sequence[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service in a process of its own at a free port, and its address; killed if it is still there at the end."""
    command = [sys.executable, "-m", "hf_vanilla_transformer", "serve", "--model", folder, "--port", "0", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        # What it warns of is passed on: a pipe that nobody reads fills up, and then it waits.
        passing_on = threading.Thread(target=sys.stderr.writelines, args=[process.stderr])
        try:
            said = []
            for line in process.stderr:
                said.append(line.strip())
                if match := re.search(r" at (http://\S+)$", line.strip()):
                    passing_on.start()
                    yield process, match[1]
                    return
            raise OSError(f"the service did not start: {said[-1] if said else 'it said nothing'}")
        finally:
            process.kill()
            if passing_on.is_alive():
                passing_on.join()


__all__ = ["Load", "LoadComparison", "LoadResult", "put_load", "run_load_test"]
