"""What the tests of the service share: applications with tiny models, and a client inside this process."""

import asyncio
import threading
from types import SimpleNamespace

import httpx

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.inference import Translation, Translator
from hf_vanilla_transformer.serving.app import create_app
from hf_vanilla_transformer.serving.languages import Languages
from hf_vanilla_transformer.serving.limits import Limits
from hf_vanilla_transformer.serving.metrics import Metrics
from hf_vanilla_transformer.serving.served_model import ServedModel

_SLOW = SimpleNamespace(name="slow", max_source_length=None, generation_config=SimpleNamespace(num_beams=4))
HOST = "http://127.0.0.1"


def tagged_tokenizer():
    return train_tokenizer(texts=["a b c", "A B C"], vocab_size=266, tags=["<en>", "<fr>", "<2de>", "<bt>"])


def save_tagged_translator(folder, build):
    """A tiny untrained model with tags, whose translations are short."""
    tokenizer = tagged_tokenizer()
    model = build(tokenizer)
    model.generation_config.max_extra_tokens = 4
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Translator(folder, engine="torch", device="cpu")


class SlowTranslator:
    """Stands for a translator that says what it was given, once it is allowed to."""

    def __init__(self):
        self.engine, self.tokenizer = _SLOW, tagged_tokenizer()
        self.batches, self.may_answer, self.has_begun = [], threading.Event(), threading.Event()

    def translate_with_details(self, texts, **options):
        self.batches.append(list(texts))
        self.has_begun.set()
        assert self.may_answer.wait(60)
        return [[Translation(text.upper())] for text in texts]


def make_app(translators, token=None, allowed_hosts=None, languages=None, **limits):
    limits, metrics = Limits(**{"max_wait": 0, **limits}), Metrics()
    models = [
        ServedModel(name, each, Languages.of(each.tokenizer, (languages or {}).get(name)), limits, metrics)
        for name, each in translators.items()
    ]
    return create_app(models, limits, metrics, token, allowed_hosts)


def talk(app, conversation, seconds=60):
    """Runs `conversation(client)` with a started application, and returns its result."""

    async def run():
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
                return await conversation(client)

    return asyncio.run(asyncio.wait_for(run(), seconds))


def post(app, path, body=None, **options):
    """Posts one body, and returns the answer."""

    async def conversation(client):
        return await client.post(path, **({"json": body} if body is not None else {}), **options)

    return talk(app, conversation)


def get(app, path, **options):
    """Gets one page."""

    async def conversation(client):
        return await client.get(path, **options)

    return talk(app, conversation)


def sentence(response, status, code):
    """The sentence of a refusal, which is JSON and no traceback."""
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    assert response.headers["content-type"] == "application/json"
    assert set(body) <= {"error", "code", "retry_after"}
    assert "Traceback" not in body["error"]
    assert len(body["error"]) < 600
    return body["error"]


def metric(app, name, **labels):
    """The value of a figure at /metrics."""
    return app.state.metrics.registry.get_sample_value(f"vanilla_transformer_{name}", labels)
