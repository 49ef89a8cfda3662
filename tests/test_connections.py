"""Clients over real sockets: connections that ask nothing are closed in time, and who hangs up is not served."""

import asyncio
import contextlib
import json
import socket
import time

import pytest

pytest.importorskip("fastapi")
import uvicorn
from serving import SlowTranslator, make_app, metric

from hf_vanilla_transformer.serving.connections import PromptHTTPProtocol

SECONDS = 0.2
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Impatient(PromptHTTPProtocol):
    seconds = SECONDS


async def answer(scope, receive, send):
    """Answers after more than the deadline, which is none for an answer."""
    assert scope["type"] == "http"
    await asyncio.sleep(1.2 * SECONDS)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def served(*conversations, app=answer, http=Impatient, lifespan="off"):
    """Runs conversations with a server, all at a time, and returns their results."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            config = uvicorn.Config(app, http=http, lifespan=lifespan, log_level="error", ws="none")
            server = uvicorn.Server(config)
            server.capture_signals = contextlib.nullcontext  # which are the tests'
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            while not server.started:
                await asyncio.sleep(0.01)
            address = listener.getsockname()
            results = await asyncio.gather(*(talk(address, conversation) for conversation in conversations))
            server.should_exit = True
            await serving
            return results

    async def talk(address, conversation):
        reader, writer = await asyncio.open_connection(*address)
        try:
            return await conversation(reader, writer)
        finally:
            writer.close()

    return asyncio.run(asyncio.wait_for(main(), 60))


async def seconds_to_close(reader):
    started = time.monotonic()
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    return time.monotonic() - started


async def say_nothing(reader, writer):
    return await seconds_to_close(reader)


async def say_a_part(reader, writer):
    writer.write(REQUEST[:-2])
    return await seconds_to_close(reader)


async def say_a_byte_now_and_then(reader, writer):
    async def trickle():
        for byte in REQUEST[:-2]:
            writer.write(bytes([byte]))
            await asyncio.sleep(SECONDS / 4)

    trickling = asyncio.ensure_future(trickle())
    try:
        return await seconds_to_close(reader)
    finally:
        trickling.cancel()


async def ask_and_say_a_part(reader, writer):
    writer.write(REQUEST)
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    writer.write(REQUEST[:-2])
    return await seconds_to_close(reader)


async def ask_twice(reader, writer):
    for _ in range(2):
        writer.write(REQUEST)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    return


def test_a_connection_without_a_request_is_closed_in_time_and_one_that_asks_is_answered():
    *closed, answered = served(say_nothing, say_a_part, say_a_byte_now_and_then, ask_and_say_a_part, ask_twice)
    assert min(closed) > 0.5 * SECONDS
    assert max(closed) < 30  # on a busy machine; without the deadline, it is for ever
    assert answered is None


def test_texts_whose_client_hangs_up_are_not_decoded():
    translator = SlowTranslator()
    app = make_app({"m": translator})

    def ask(writer, texts):
        body = json.dumps({"text": texts}).encode()
        head = "POST /translate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: "
        writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)

    async def waiting_texts(number):
        while metric(app, "queue_texts", model="m") != number:
            await asyncio.sleep(0.005)

    async def stay(reader, writer):
        ask(writer, "a")
        return await reader.readuntil(b"]]}")

    async def hang_up(reader, writer):
        while not translator.has_begun.is_set():
            await asyncio.sleep(0.005)
        ask(writer, ["b", "c"])
        await waiting_texts(2)
        writer.close()
        await waiting_texts(0)
        translator.may_answer.set()

    said, _ = served(stay, hang_up, app=app, http=PromptHTTPProtocol, lifespan="on")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["translations"] == [[{"text": "A"}]]
    assert translator.batches == [["a"]]
    assert metric(app, "dropped_texts_total", model="m") == 2
