"""Streams of a service: the text as it grows, its end, and clients that leave."""

import asyncio
import json

import pytest

pytest.importorskip("fastapi")
from serving import make_app, metric, post, save_tagged_translator, sentence, talk
from test_pair_scores import build

from hf_vanilla_transformer.serving.text_stream import TextStream


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    return save_tagged_translator(tmp_path_factory.mktemp("model"), build)


def events(answer):
    """The events of a stream: name and data."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = [dict(line.split(": ", 1) for line in block.splitlines()) for block in answer.text.split("\n\n") if block]
    return [(each["event"], json.loads(each["data"])) for each in found]


@pytest.mark.parametrize("text", ["a b c", "b", "", "a c b b"])
def test_a_stream_is_greedy_search_part_by_part(translator, text):
    *parts, (last, data) = events(
        post(make_app({"one": translator}), "/translate/stream", {"text": text, "tag": "2de"})
    )
    ((whole,),) = translator.translate_with_details([text], num_beams=1, tag="2de")
    assert (last, data) == ("done", {"text": whole.text})
    assert {name for name, _ in parts} <= {"text"}
    assert "".join(" ".join(part["text"].split("\n")) for _, part in parts) == whole.text
    assert all(part["text"] for _, part in parts)


def test_a_text_in_pieces_is_streamed_piece_by_piece(tmp_path):
    def with_few_positions(tokenizer):
        return build(tokenizer, position_encoding="learned", num_learned_positions=8)

    short = save_tagged_translator(tmp_path, with_few_positions)
    text = "a b c. b c a. c a b."
    *_, (last, data) = events(post(make_app({"one": short}), "/translate/stream", {"text": text}))
    assert (last, data["text"]) == ("done", next(short.translate([text], num_beams=1)))


def test_no_more_streams_than_allowed_and_a_place_is_free_again(translator, monkeypatch):
    app = make_app({"one": translator}, max_streams=1)
    opened = asyncio.Event()
    holding = asyncio.Event()
    parts = TextStream.parts

    async def slow_parts(self):
        opened.set()
        await holding.wait()
        async for part in parts(self):
            yield part

    decode, may_end = TextStream.decode, []

    def held(self, model, pieces):
        while not may_end:
            pass
        decode(self, model, pieces)

    monkeypatch.setattr(TextStream, "parts", slow_parts)
    monkeypatch.setattr(TextStream, "decode", held)

    async def conversation(client):
        first = asyncio.ensure_future(client.post("/translate/stream", json={"text": "a"}))
        await opened.wait()
        refused = await client.post("/translate/stream", json={"text": "b"})
        may_end.append(True)
        holding.set()
        assert (await first).status_code == 200
        while metric(app, "streams"):
            await asyncio.sleep(0.001)
        assert (await client.post("/translate/stream", json={"text": "b"})).status_code == 200
        return refused

    answer = talk(app, conversation)
    assert "1 translations are being streamed" in sentence(answer, 429, "streams_full")
    assert answer.headers["retry-after"] == "1"


def test_a_stream_that_nobody_reads_ends_its_search(translator):
    app = make_app({"one": translator})

    async def conversation(client):
        (model,) = app.state.models
        async with app.state.streams.open(model, "a b c", None) as stream:
            async for _ in stream.parts():
                break
            stream.leave()
            steps = len(stream.token_cache)
        while metric(app, "streams"):
            await asyncio.sleep(0.001)
        return steps, stream.whole

    assert talk(app, conversation)[1] in {"", next(translator.translate(["a b c"], num_beams=1))}


def test_leaving_stops_at_the_next_token(translator):
    async def conversation(client):
        stream = TextStream(translator.tokenizer)
        stream.leave()
        (model,) = app.state.models
        await asyncio.to_thread(stream.decode, model, [[4, 5, 2]])
        return stream.token_cache, stream.whole, [part async for part in stream.parts()]

    app = make_app({"one": translator})
    assert talk(app, conversation) == ([], "", [])


def test_an_error_ends_a_stream_with_a_sentence(translator, monkeypatch, package_log):
    monkeypatch.setattr("hf_vanilla_transformer.serving.text_stream.translate_pieces", lambda *_: 1 / 0)
    ((name, data),) = events(post(make_app({"one": translator}), "/translate/stream", {"text": "a"}))
    assert name == "error"
    assert data["code"] == "internal"
    assert "ZeroDivisionError" in package_log.text
