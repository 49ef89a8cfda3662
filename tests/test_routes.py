"""The pages of a service, asked in this process: answers against offline decoding, and refusals in a sentence."""

import asyncio
import json
import math

import pytest

pytest.importorskip("fastapi")
from serving import SlowTranslator, get, make_app, metric, post, save_tagged_translator, sentence, talk
from test_pair_scores import build

from hf_vanilla_transformer.evaluation import score_pairs

TEXTS = ["a b c", "c", "", "b a a b c a", "c c", "a </s> b"]


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    return save_tagged_translator(tmp_path_factory.mktemp("model"), build)


@pytest.fixture
def app(translator):
    return make_app({"one": translator}, languages={"one": ":de"})


def offline(translator, texts, **options):
    return list(translator.translate_with_details(texts, **{"alignments": False, **options}))


def test_many_clients_get_the_answers_of_offline_decoding(translator, app):
    expected = [row[0].text for row in offline(translator, TEXTS)]
    assert len(set(expected)) > 2

    async def conversation(client):
        async def ask(index):
            chosen = [(index + place) % len(TEXTS) for place in range(1 + index % 3)]
            answer = await client.post("/translate", json={"text": [TEXTS[each] for each in chosen]})
            assert [row[0]["text"] for row in answer.json()["translations"]] == [expected[each] for each in chosen]

        await asyncio.gather(*map(ask, range(24)))

    talk(app, conversation)
    assert metric(app, "requests_total", route="/translate", status="200") == 24
    assert metric(app, "texts_total", model="one") == sum(1 + index % 3 for index in range(24))


def test_one_text_with_all_there_is_to_know(translator, app):
    body = {"text": "a b", "nbest": 2, "num_beams": 3, "scores": True, "alignments": True, "source_lang": "en"}
    answer = post(app, "/translate", body).json()
    ((first, second),) = offline(translator, ["a b"], nbest=2, num_beams=3, alignments=True, tag="en")
    for found, expected in zip(answer["translations"][0], (first, second), strict=True):
        assert found["text"] == expected.text
        assert found["score"] == pytest.approx(expected.score, abs=1e-5)
        assert found["log_prob"] == pytest.approx(expected.log_prob, abs=1e-5)
        assert found["source_tokens"] == list(expected.source_tokens)
        assert found["tokens"] == list(expected.tokens)
        assert found["alignment"] == [list(pair) for pair in expected.alignment]
    assert answer["model"] == "one"
    assert set(post(make_app({"one": translator}), "/translate", {"text": "a"}).json()["translations"][0][0]) == {
        "text"
    }


def test_languages_and_tags_are_put_before_the_text(translator):
    def ask(**fields):
        app = make_app({"one": translator}, languages={"one": "en,xx:de,yy"})
        return post(app, "/translate", {"text": "a b", "scores": True, **fields}).json()["translations"][0][0]["score"]

    def alone(tag):
        return pytest.approx(offline(translator, ["a b"], tag=tag)[0][0].score, abs=1e-5)

    assert ask() == alone(None)
    assert ask(source_lang="en") == alone("<en>") != alone(None)
    assert ask(source_lang="en", target_lang="de", tag="bt") == alone("<en> <2de> <bt>")
    assert ask(source_lang="xx", target_lang="yy") == alone(None)  # languages without a tag


@pytest.mark.parametrize("as_form", [False, True])
def test_clients_of_libretranslate_are_understood(translator, as_form):
    def ask(fields):
        app = make_app({"one": translator}, languages={"one": ":de"})
        return post(app, "/translate", **({"data": fields} if as_form else {"body": fields}))

    one = {"q": "a b", "source": "en", "target": "de", "format": "text", "api_key": ""}
    expected = [each.text for each in offline(translator, ["a b"], nbest=3, tag="<en> <2de>")[0]]
    assert ask(one).json() == {"translatedText": offline(translator, ["a b"], tag="<en> <2de>")[0][0].text}
    assert ask({**one, "alternatives": 2}).json() == {"translatedText": expected[0], "alternatives": expected[1:]}
    several = [each[0].text for each in offline(translator, ["a b", "c"], tag="<2de>")]
    assert ask({"q": ["a b", "c"], "source": "auto", "target": "de"}).json() == {"translatedText": several}


def test_the_languages_are_those_of_the_tags_or_declared(translator):
    app = make_app({"one": translator, "two": translator}, languages={"two": "en:it"})
    found = {each["code"]: each["targets"] for each in get(app, "/languages").json()}
    assert found == {"en": ["de", "it"], "fr": ["de"], "bt": ["de"]}


def test_several_models_are_told_apart_by_name_or_language(translator):
    slow = SlowTranslator()
    slow.may_answer.set()
    languages = {"one": "en:de", "two": "en:it"}

    def ask(**fields):
        return post(make_app({"one": translator, "two": slow}, languages=languages), "/translate", fields).json()

    assert ask(text="a b")["model"] == "one"
    assert ask(text="a b", model="two") == {"model": "two", "translations": [[{"text": "A B"}]]}
    assert ask(q="a b", source="en", target="it") == {"translatedText": "A B"}
    listed = get(make_app({"one": translator, "two": slow}, languages=languages), "/models").json()
    assert [(each["name"], each["is_default"], each["target_languages"]) for each in listed] == [
        ("one", True, ["de"]),
        ("two", False, ["it"]),
    ]


def test_names_of_models_are_looked_up_and_nothing_else(app, monkeypatch):
    async def conversation(client):
        monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("a file was opened"))
        for name in ("../one", "/etc/passwd", "one/", "One", "http://127.0.0.1/", "file:///etc/passwd", "x" * 200):
            message = sentence(await client.post("/translate", json={"text": "a", "model": name}), 404, "unknown_model")
            assert message.endswith("; there is one")

    talk(app, conversation)


def test_scores_are_those_of_score_pairs(translator, app):
    pairs = [("a b", "A B"), ("c", ""), ("", "C C C")]
    body = {"source": [source for source, _ in pairs], "target": [target for _, target in pairs], "per_token": True}
    answer = post(app, "/score", body).json()
    expected = list(score_pairs(translator.model, translator.tokenizer, pairs))
    for found, each in zip(answer["scores"], expected, strict=True):
        assert found["log_prob"] == pytest.approx(each.log_prob, abs=1e-4)
        assert found["tokens"] == list(each.tokens)
        assert math.fsum(found["token_log_probs"]) == pytest.approx(found["log_prob"], abs=1e-4)
    message = sentence(post(app_again(translator), "/score", {"source": ["a"], "target": ["b", "c"]}), 422, "invalid")
    assert message == "`source` has 1 texts, and `target` 2"


def app_again(translator, **options):
    return make_app({"one": translator}, **options)


DEEP = "[" * 100_000 + "]" * 100_000
HOSTILE = {
    "nothing": (b"", 422, "invalid", "JSON object"),
    "not JSON": (b"text=a", 400, "not_json", "the body is not JSON"),
    "cut off": (b'{"text": "a', 400, "not_json", "the body is not JSON"),
    "a list": (b"[]", 422, "invalid", "JSON object"),
    "null": (b"null", 422, "invalid", "JSON object"),
    "no text": (b"{}", 422, "invalid", "`text`"),
    "a number for a text": (b'{"text": 3}', 422, "invalid", "a text is a string, and this is a number"),
    "null for a text": (b'{"text": null}', 422, "invalid", "this is null"),
    "an object in a list": (b'{"text": ["a", {}]}', 422, "invalid", "this is an object"),
    "a list in a list": (b'{"text": [["a"]]}', 422, "invalid", "this is a list"),
    "no texts": (b'{"text": []}', 422, "invalid", "the list of texts is empty"),
    "unknown field": (b'{"text": "a", "beams": 3}', 422, "invalid", "`beams`"),
    "both kinds": (b'{"text": "a", "q": "a"}', 422, "invalid", "`text`"),
    "NaN": (b'{"text": "a", "nbest": NaN}', 422, "invalid", "`nbest`"),
    "Infinity": (b'{"text": "a", "num_beams": Infinity}', 422, "invalid", "`num_beams`"),
    "true for a number": (b'{"text": "a", "nbest": true}', 422, "invalid", "`nbest`"),
    "a word for a number": (b'{"text": "a", "nbest": "2"}', 422, "invalid", "`nbest`"),
    "a huge number": (b'{"text": "a", "nbest": 1' + b"0" * 6000 + b"}", 400, "http_400", "UTF-8"),
    "zero beams": (b'{"text": "a", "num_beams": 0}', 422, "invalid", "`num_beams`"),
    "more than the beams": (b'{"text": "a", "num_beams": 1, "nbest": 2}', 422, "invalid", "need as many beams"),
    "too many beams": (b'{"text": "a", "num_beams": 10000}', 413, "too_many_beams", "`num_beams`"),
    "too many translations": (b'{"text": "a", "nbest": 10000}', 413, "too_many_beams", "`nbest`"),
    "html": (b'{"q": "a", "format": "html"}', 422, "invalid", "`format`"),
    "invalid UTF-8": (b'{"text": "\xff\xfe"}', 400, "http_400", "UTF-8"),
    "UTF-16": ('{"text": "a"}'.encode("utf-16"), 200, None, None),  # which JSON readers may know
    "raw control character": (b'{"text": "a\x00b"}', 400, "not_json", "control character"),
    "escaped NUL": (rb'{"text": "a\u0000b"}', 422, "invalid", "control character (U+0000)"),
    "escape": (rb'{"text": "\u001b[2J"}', 422, "invalid", "control character (U+001B)"),
    "C1": (rb'{"text": "\u009b"}', 422, "invalid", "control character (U+009B)"),
    "lone surrogate": (rb'{"text": "\ud800"}', 422, "invalid", "half a surrogate pair (U+D800)"),
    "surrogate in a name": (rb'{"text": "a", "model": "\udfff"}', 422, "invalid", "half a surrogate pair"),
    "surrogate in a key": (rb'{"text": "a", "\ud800": 1}', 422, "invalid", "unicode string"),
    "line break in a name": (rb'{"text": "a", "tag": "\u0085"}', 422, "invalid", "control character (U+0085)"),
    "long name": (b'{"text": "a", "tag": "' + b"x" * 1000 + b'"}', 422, "invalid", "`tag`"),
    "unknown tag": (b'{"text": "a", "tag": "2xx"}', 422, "unknown_language", "'<2xx>' is not a tag"),
    "unknown language": (b'{"text": "a", "target_lang": "xx"}', 422, "unknown_language", "it does into de"),
    "deep nesting": (DEEP.encode(), 400, "http_400", "could not be read"),
    "deep nesting in a text": (b'{"text": ' + DEEP.encode() + b"}", 400, "http_400", "could not be read"),
    "a long text": (b'{"text": "' + b"a" * 2001 + b'"}', 413, "text_too_long", "a text of 2001 characters"),
    "few characters, many tokens": (
        ('{"text": "' + "\U0001f600" * 1000 + '"}').encode(),
        413,
        "text_too_long",
        "tokens",
    ),
    "many texts": (json.dumps({"text": ["a"] * 65}).encode(), 413, "too_many_texts", "65 texts are more than the 64"),
    "10 MB": (b'{"text": "' + b"a" * 10_000_000 + b'"}', 413, "http_413", "larger than this service accepts"),
}


def test_hostile_bodies_get_a_sentence(app):
    async def conversation(client):
        answers = {}
        for path in ("/translate", "/translate/stream", "/score"):
            for name, (body, *_) in HOSTILE.items():
                answers[path, name] = await client.post(
                    path, content=body, headers={"content-type": "application/json"}
                )
        return answers

    for (path, name), answer in talk(app, conversation).items():
        _, status, code, words = HOSTILE[name]
        if code is None:
            assert answer.status_code in {status, 422}, (path, name)
        elif path == "/translate":
            message = sentence(answer, status, code)
            assert words in message, name
        else:  # some of whose fields are unknown there
            sentence(answer, answer.status_code, answer.json()["code"])
            assert answer.status_code in {400, 413, 422}, (path, name)


FORM = {"content-type": "application/x-www-form-urlencoded"}
OTHER_BODIES = [
    ({}, b'{"text": "a"}', 422),
    ({"content-type": "text/plain"}, b'{"text": "a"}', 422),
    ({"content-type": "multipart/form-data; boundary=x"}, b"--x--", 422),
    (FORM, b"text=a&q=%ff", 400),
    (FORM, b"&".join([b"q=a"] * 300), 400),
    (FORM, b"q=" + b"a" * 2_000_000, 413),
    (FORM, b"q=a&alternatives=" + b"9" * 5000, 422),
    ({**FORM, "origin": "http://evil.example"}, b"q=a", 403),
    ({"content-type": "application/json", "content-length": "nonsense"}, b'{"text": 3}', 422),
    ({"content-type": "application/json", "content-length": "9" * 5000}, b'{"text": 3}', 413),
    ({"content-type": "application/json\xff"}, b'{"text": 3}', 422),
]


def test_other_kinds_of_bodies_get_a_sentence_too(app):
    async def conversation(client):
        for headers, body, status in OTHER_BODIES:
            coded = [(name, value.encode("latin-1")) for name, value in headers.items()]
            answer = await client.post("/translate", content=body, headers=coded)
            sentence(answer, status, answer.json()["code"])

    talk(app, conversation)


def test_a_body_in_parts_is_limited_as_a_whole(app):
    async def conversation(client):
        async def parts():
            for _ in range(40):
                yield b"a" * 2**16

        return await client.post("/translate", content=parts(), headers={"content-type": "application/json"})

    sentence(talk(app, conversation), 413, "http_413")


def test_unknown_pages_and_methods_get_a_sentence_and_one_name_in_the_metrics(app):
    async def conversation(client):
        for number in range(5):
            sentence(await client.get(f"/{number}/../../etc/passwd"), 404, "http_404")
        sentence(await client.get("/translate"), 405, "http_405")
        return await client.get("/metrics")

    text = talk(app, conversation).text
    assert 'vanilla_transformer_requests_total{route="other",status="404"} 5.0' in text
    assert "passwd" not in text


def test_an_error_of_the_model_is_a_sentence_and_a_line_in_the_log(package_log):
    translator = SlowTranslator()
    translator.translate_with_details = lambda texts, **options: 1 / 0
    answer = post(make_app({"m": translator}), "/translate", {"text": "a secret"})
    assert "error of the service" in sentence(answer, 500, "internal")
    assert "ZeroDivisionError" in package_log.text
    assert "secret" not in package_log.text


def test_a_full_queue_is_429_with_retry_after():
    translator = SlowTranslator()
    app = make_app({"m": translator}, max_queue=2, max_texts=2)

    async def conversation(client):
        first = asyncio.ensure_future(client.post("/translate", json={"text": "a"}))
        while not translator.has_begun.is_set():
            await asyncio.sleep(0.001)
        waiting = asyncio.ensure_future(client.post("/translate", json={"text": ["b", "c"]}))
        while metric(app, "queue_texts", model="m") != 2:
            await asyncio.sleep(0.001)
        refused = await client.post("/translate", json={"text": "d"})
        translator.may_answer.set()
        assert [(await each).status_code for each in (first, waiting)] == [200, 200]
        return refused

    answer = talk(app, conversation)
    assert "2 texts wait for this model already" in sentence(answer, 429, "queue_full")
    assert answer.headers["retry-after"] == str(answer.json()["retry_after"])


def test_what_a_client_left_is_not_decoded():
    translator = SlowTranslator()
    app = make_app({"m": translator})
    sent = []

    async def conversation(client):
        first = asyncio.ensure_future(client.post("/translate", json={"text": "a"}))
        while not translator.has_begun.is_set():
            await asyncio.sleep(0.001)
        has_left, body = asyncio.Event(), json.dumps({"text": ["b", "c"]}).encode()
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive():
            if (message := next(messages, None)) is not None:
                return message
            await has_left.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        headers = [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")]
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": "/translate",
            "raw_path": b"/translate",
        }
        scope |= {"query_string": b"", "headers": headers, "scheme": "http", "server": ("127.0.0.1", 80)}
        leaving = asyncio.ensure_future(app(scope, receive, send))
        while metric(app, "queue_texts", model="m") != 2:
            await asyncio.sleep(0.001)
        has_left.set()
        await leaving
        assert metric(app, "queue_texts", model="m") == 0
        translator.may_answer.set()
        return (await first).json()

    assert talk(app, conversation)["translations"] == [[{"text": "A"}]]
    assert translator.batches == [["a"]]
    assert metric(app, "dropped_texts_total", model="m") == 2
    assert metric(app, "requests_total", route="/translate", status="499") == 1


def test_the_description_is_a_page_that_needs_no_network(app):
    async def conversation(client):
        return await client.get("/docs"), await client.get("/openapi.json")

    page, described = talk(app, conversation)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert "src=" not in page.text.replace("default-src", "")
    for path, operations in described.json()["paths"].items():
        for method in operations:
            assert f"{method.upper()} {path}" in page.text
    assert "alternatives" in page.text
    assert page.headers["x-content-type-options"] == "nosniff"


def test_health_says_that_it_answers(app):
    assert get(app, "/health").json() == {"status": "ok"}
