"""Who may ask a service: its token, and the names under which it is asked for."""

import asyncio

import pytest

pytest.importorskip("fastapi")
from serving import SlowTranslator, get, make_app, post, sentence, talk

from hf_vanilla_transformer.serving.access import LimitBody

TOKEN = "correct-horse"


def app(**options):
    translator = SlowTranslator()
    translator.may_answer.set()
    return make_app({"m": translator}, **options)


PAGES, BODIES = ["/models", "/metrics", "/docs", "/nowhere"], ["/translate", "/score", "/translate/stream"]
WRONG = [None, "", TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", "Bearer corr\xe9ct"]


def test_without_the_token_nothing_is_told():
    async def conversation(client):
        async def ask(path, header):
            headers = [] if header is None else [("authorization", header.encode("latin-1"))]
            if path in PAGES:
                return await client.get(path, headers=headers)
            return await client.post(path, json={"text": "a"}, headers=headers)

        for path in (*PAGES, *BODIES):
            for header in WRONG:
                answer = await ask(path, header)
                assert "Authorization: Bearer TOKEN" in sentence(answer, 401, "no_token")
                assert answer.headers["www-authenticate"] == "Bearer"
                assert TOKEN not in answer.text
            for header in (f"Bearer {TOKEN}", f"bearer {TOKEN}"):
                assert (await ask(path, header)).status_code != 401
        return await ask("/translate", f"Bearer {TOKEN}")

    assert talk(app(token=TOKEN), conversation).json()["translations"] == [[{"text": "A"}]]


def test_who_watches_needs_no_token():
    assert get(app(token=TOKEN), "/health").status_code == 200
    assert get(app(token=TOKEN), "/languages").status_code == 200


@pytest.mark.parametrize(("key", "status"), [(TOKEN, 200), ("wrong", 401), ("", 401), (None, 401)])
def test_clients_of_libretranslate_send_the_token_as_their_key(key, status):
    body = {"q": "a", "source": "auto", "api_key": key}
    assert post(app(token=TOKEN), "/translate", body).status_code == status
    assert post(app(token=TOKEN), "/translate", data={"q": "a", "api_key": key or ""}).status_code == status


def test_a_service_without_a_token_takes_any_key():
    assert post(app(), "/translate", {"q": "a", "api_key": "some"}).json() == {"translatedText": "A"}


def test_a_token_that_nobody_could_send_is_refused():
    with pytest.raises(ValueError, match="the token is to have one token .* is empty"):
        app(token=" ")
    with pytest.raises(ValueError, match="ASCII"):
        app(token="corr\xe9ct")


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("localhost:8000", 200), ("evil.example", 400)])
def test_a_page_of_the_web_cannot_have_a_browser_ask_under_its_own_name(host, status):
    answer = get(app(allowed_hosts=["127.0.0.1", "localhost"]), "/health", headers={"host": host})
    assert answer.status_code == status
    if status == 400:
        assert "--allowed_hosts" in sentence(answer, 400, "unknown_host")


def test_a_body_that_does_not_come_to_its_end_is_refused():
    async def conversation(client):
        async def parts():
            yield b'{"text": '
            await asyncio.sleep(30)

        return await client.post("/translate", content=parts(), headers={"content-type": "application/json"})

    service = app()
    (layer,) = [each for each in service.user_middleware if each.cls is LimitBody]
    layer.kwargs["seconds"] = 0.01
    sentence(talk(service, conversation), 408, "http_408")
