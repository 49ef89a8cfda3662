"""The load test itself: it counts every answer, and finds those that are wrong, lost or told to come again."""

import asyncio
import signal
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi")
import httpx
from serving import HOST, SlowTranslator, make_app

from hf_vanilla_transformer.inference import Translation
from hf_vanilla_transformer.serving import load_test
from hf_vanilla_transformer.serving.load_test import Load, LoadComparison, LoadResult, put_load

TEXTS = [f"a {number}" for number in range(7)]
LOAD = Load(TEXTS, [Translation(text.upper(), score=-1.0) for text in TEXTS])


def run(app, clients, requests, load=LOAD):
    @asynccontextmanager
    async def connect():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HOST) as client:
            yield client

    async def main():
        async with app.router.lifespan_context(app):
            return await put_load(connect, load, clients, requests)

    return asyncio.run(asyncio.wait_for(main(), 60))


def echo(change=lambda text, index: Translation(text.upper(), score=-1.0), **limits):
    """A service whose model answers what `change` says."""
    translator = SlowTranslator()
    seen = iter(range(10**9))
    translator.translate_with_details = lambda texts, **options: [[change(text, next(seen))] for text in texts]
    return make_app({"m": translator}, **limits)


def test_all_answers_are_counted_and_right():
    result = run(echo(max_wait=1), clients=5, requests=60)
    assert (len(result.seconds), result.ties, result.wrong, result.lost, result.retries) == (60, 0, [], [], 0)
    assert result.clients == 5
    assert result.rate == pytest.approx(60 / result.total)
    assert max(result.seconds) <= result.total
    assert len(result.memory) >= 50


def test_an_answer_of_another_request_is_found():
    result = run(echo(lambda text, index: Translation("A 0" if index == 11 else text.upper(), score=-3.0)), 1, 20)
    assert result.wrong == [11]
    comparison = LoadComparison("slow", run(echo(), 1, 3), result)
    assert not comparison.is_right
    assert "  wrong: requests [11]" in comparison.lines()


def test_an_answer_that_is_as_good_is_no_wrong_one():
    result = run(echo(lambda text, index: Translation("x" if index == 3 else text.upper(), score=-1.0 - 1e-4)), 1, 9)
    assert (result.ties, result.wrong) == (1, [])


def test_an_error_of_the_service_is_a_lost_answer():
    def change(text, index):
        if index == 4:
            raise RuntimeError
        return Translation(text.upper(), score=-1.0)

    app = echo(change)
    # What is logged is passed on to the server by Starlette, and here there is none.
    app.build_middleware_stack = lambda stack=app.build_middleware_stack: _swallowing(stack())
    result = run(app, 1, 9)
    assert (result.lost, len(result.seconds)) == ([4], 8)


def _swallowing(app):
    async def asked(scope, receive, send):
        try:
            await app(scope, receive, send)
        except RuntimeError:
            assert scope["path"] == "/translate"

    return asked


def test_who_is_told_to_come_again_does(monkeypatch):
    waits = []

    async def sleep(seconds, sleep=asyncio.sleep):
        waits.append(seconds)
        await sleep(0.005)

    monkeypatch.setattr("hf_vanilla_transformer.serving.load_test.asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))  # fmt: skip  # noqa: E501
    result = run(echo(max_queue=1, max_texts=1, max_wait=20), clients=3, requests=4)
    assert (len(result.seconds), result.lost) == (4, [])
    assert len(waits) == result.retries > 0
    assert set(waits) == {1}


def test_a_service_that_warns_much_is_not_held_up_and_one_that_does_not_end_is_killed(monkeypatch, tmp_path, caplog):
    """A program in its place says where it is, warns of more than a pipe holds, and does not listen to SIGTERM."""
    program = tmp_path / "service"
    program.write_text(
        "#!/bin/sh\ntrap '' TERM\necho serving m at http://127.0.0.1:1 >&2\n"
        f"yes warning | head -n 30000 >&2\ntouch {tmp_path}/written\nexec sleep 100\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(load_test.sys, "executable", str(program))
    with load_test._started_service("m", []) as (process, address):
        assert address == "http://127.0.0.1:1"
        for _ in range(6000):
            if (tmp_path / "written").exists():
                break
            time.sleep(0.01)
        assert (tmp_path / "written").exists()
        process.send_signal(signal.SIGTERM)
        assert load_test._status(process, 0.05) == -signal.SIGKILL
    assert "the service had not ended 0.05 seconds after SIGTERM, and is killed" in caplog.text


def test_the_table_has_quantiles_ratio_and_memory():
    alone = LoadResult(1, [0.1] * 10, total=1.0)
    together = LoadResult(
        4, [0.01 * number for number in range(1, 100)], total=2.0, memory=[2**20, 3 * 2**20, 2 * 2**20]
    )
    lines = LoadComparison("torch", alone, together, status=0).lines()
    assert "| 1 | 10 | 10.0 | 100 ms | 100 ms |" in lines
    assert "| 4 | 99 | 49.5 | 500 ms | 950 ms |" in lines
    assert "ratio of rates: 4.95x" in lines
    assert "memory: 1.0 MiB first, 1.0 after a tenth of the requests, 2.0 last, 3.0 at most" in lines
    assert LoadComparison("torch", alone, together, status=0).is_right
    assert not LoadComparison("torch", alone, together, status=-9).is_right
