"""The command `serve`: its options, and a whole service in a process of its own, ended amid its work."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("fastapi")
import httpx
from child_processes import start
from commanding import run
from serving import save_tagged_translator, talk
from test_pair_scores import build

from hf_vanilla_transformer.commands import serve as command
from hf_vanilla_transformer.inference.conversions import conversion_of
from hf_vanilla_transformer.serving import process
from hf_vanilla_transformer.serving.limits import Limits
from hf_vanilla_transformer.serving.load_test import run_load_test
from hf_vanilla_transformer.serving.process import Service


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tagged_translator(folder, build)
    return folder


def test_options_become_what_is_served(monkeypatch, tmp_path):
    served = []
    monkeypatch.setattr(process, "serve", served.append)
    (tmp_path / "token").write_text("secret\n")
    words = ["--model", "runs/en-de", "fr=runs/en-fr/", "--languages", "en-de=en:de", "--port", 0, "--max_queue", 99]
    words += ["--token_file", tmp_path / "token", "--engine", "torch", "--max_wait", 0.5]
    assert run(command.main, *words).returncode == 0
    (service,) = served
    assert service.folders == {"en-de": "runs/en-de", "fr": "runs/en-fr/"}
    assert service.languages == {"en-de": "en:de"}
    assert (service.host, service.port, service.token) == ("127.0.0.1", 0, "secret")
    assert service.limits == Limits(max_queue=99, max_wait=0.5)
    assert service.translator == {"engine": "torch", "device": "auto", "dtype": "auto", "quantization": "float32"}


def test_a_model_in_the_folder_where_one_stands_has_its_name(monkeypatch, tmp_path):
    served = []
    monkeypatch.setattr(process, "serve", served.append)
    (tmp_path / "runs" / "en-de").mkdir(parents=True)
    for place, folder in (("runs/en-de", "."), ("runs", "en-de/."), ("runs/en-de", "../en-de/")):
        monkeypatch.chdir(tmp_path / place)
        assert run(command.main, "--model", folder).returncode == 0
        assert served.pop().folders == {"en-de": folder}


def test_the_token_may_be_in_the_environment(monkeypatch):
    served = []
    monkeypatch.setattr(process, "serve", served.append)
    monkeypatch.setenv(command.TOKEN_VARIABLE, "secret")
    assert run(command.main, "--model", "x").returncode == 0
    assert served[0].token == "secret"


def test_a_token_of_the_environment_that_nobody_could_send_is_refused_at_the_start(monkeypatch):
    monkeypatch.setattr(process, "serve", None)
    monkeypatch.setenv(command.TOKEN_VARIABLE, "sécret")
    assert f"the variable {command.TOKEN_VARIABLE} is to have one token" in run(command.main, "--model", "x").error


def test_sigterm_ends_it_while_models_load_and_while_it_serves(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    reached = []

    def load(service):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        reached.append("loaded")

    monkeypatch.setattr(process, "load_app", load)
    assert run(command.main, "--model", "x", "--port", 0).returncode == 0
    assert not reached

    async def app(scope, receive, send):
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await receive())["type"] == "lifespan.shutdown"
        reached.append("ended in order")
        await send({"type": "lifespan.shutdown.complete"})

    monkeypatch.setattr(process, "load_app", lambda service: app)
    done = run(command.main, "--model", "x", "--port", 0)
    assert (done.returncode, reached) == (0, ["ended in order"])
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_request_has_to_wait_for_a_conversion(folder, monkeypatch):
    """The longest that is accepted, with its tag and all that its translation may have more than it."""
    pytest.importorskip("ctranslate2")
    from hf_vanilla_transformer.inference import engine_ctranslate2, translator

    monkeypatch.setattr(engine_ctranslate2, "_POSITIONS", 16)
    made = []
    monkeypatch.setattr(translator, "conversion_of", lambda *args, **_: made.append(args) or conversion_of(*args))
    options = {"engine": "ctranslate2", "device": "cpu"}
    app = process.load_app(Service({"m": str(folder)}, {}, limits=Limits(max_batch_tokens=64), translator=options))
    assert [args[2] for args in made] == [128]  # 64 and 4 more, rounded up

    async def conversation(client):
        async def accepts(words):
            body = {"text": "c " * words, "tag": "bt", "num_beams": 1}
            return (await client.post("/translate", json=body)).status_code == 200

        accepted = [words for words in range(26, 40) if await accepts(words)]
        assert accepted == list(range(26, accepted[-1] + 1))
        assert accepted[-1] < 39

    talk(app, conversation)
    assert len(made) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "a/x", "b/x"], "--model has two of the name x"),
        (["--model", "a/x", "b/../x/."], "--model has two of the name x"),
        (["--model", "x", "--port", "-1"], "--port -1 is no port; allowed: 1 to 65535"),
        (["--model", "x", "--port", "70000"], "--port 70000 is no port; allowed: 1 to 65535, or 0 for any"),
        (["--model", "=x"], "--model =x is not of the form NAME=VALUE"),
        (["--model", "x", "--languages", "en:de"], "--languages en:de is not of the form NAME=VALUE"),
        (["--model", "x", "--languages", "y=en:de"], "languages are given for 'y', and the models are x"),
        (["--model", "x", "--languages", "x=en"], "languages='en' is not of the form SOURCE:TARGET"),
        (["--model", "x", "--max_queue", "0"], "`max_queue`=0 is not allowed"),
        (["--model", "x", "--quantization", "int8"], "--quantization int8 is for --engine ctranslate2"),
        (["--model", "x", "--token_file", "/dev/null"], "/dev/null is to have one token"),
        (["--model", "no/such", "--port", "0"], "there is no folder no/such"),
    ],
)
def test_what_cannot_be_served_is_one_line(words, message):
    assert message in run(command.main, *words).error.splitlines()[-1]


def test_without_its_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert "pip install 'hf-vanilla-transformer[serve]'" in run(command.main, "--model", "x").error


def test_a_port_that_is_taken_is_one_line_before_any_model_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as other:
        error = run(command.main, "--model", "no/such", "--port", other.getsockname()[1]).error
    assert re.fullmatch(r"127\.0\.0\.1:\d+ cannot be listened at: Address already in use", error)


def test_each_limit_is_an_option_with_a_line_of_help():
    shown = run(command.main, "--help").stdout
    for name in Limits.__dataclass_fields__:
        assert f"--{name} N" in shown
    for page in ("translate", "translate/stream", "score", "models"):
        assert f"curl http://127.0.0.1:8000/{page}" in shown.replace("curl -N", "curl")


@pytest.mark.slow
def test_sigterm_in_the_middle_answers_all_that_was_accepted(folder):
    """Half a minute on a quiet machine: a service with uvicorn, 40 clients, and SIGTERM while most of them wait."""
    command_line = [sys.executable, "-m", "hf_vanilla_transformer", "serve", "--model", f"m={folder}", "--port", "0"]
    command_line += ["--engine", "torch", "--max_batch_tokens", "16", "--device", "cpu"]
    with start(command_line, seconds=1800, stderr=subprocess.PIPE, text=True) as service:
        said = ""
        while not (match := re.search(r"at (http://127\.0\.0\.1:\d+)$", said.strip())):
            said = service.stderr.readline()
            assert said, "the service ended"
        texts = [" ".join("abc"[(index + place) % 3] for place in range(1 + index % 5)) for index in range(80)]

        async def conversation():
            options = {"base_url": match[1], "timeout": 600}
            async with httpx.AsyncClient(**options) as client, httpx.AsyncClient(**options) as watcher:

                async def waiting():
                    return float(re.search(r'queue_texts\{model="m"\} (\S+)', (await watcher.get("/metrics")).text)[1])

                bodies = [{"text": text, "num_beams": 4} for text in texts]
                work = [asyncio.ensure_future(client.post("/translate", json=body)) for body in bodies]
                while (accepted := await waiting()) < 20:
                    assert not all(each.done() for each in work), "too fast for this test"
                    await asyncio.sleep(0.001)
                service.send_signal(signal.SIGTERM)
                return accepted, await asyncio.gather(*work, return_exceptions=True)

        accepted, answers = asyncio.run(conversation())
        assert service.wait(600) == 0
        assert "Traceback" not in service.stderr.read()
    answered = [answer for answer in answers if isinstance(answer, httpx.Response)]
    assert len(answered) >= accepted >= 20
    assert {answer.status_code for answer in answered} == {200}
    from hf_vanilla_transformer.inference import Translator

    expected = list(Translator(folder, engine="torch", device="cpu").translate(texts, num_beams=4))
    for answer, text in zip(answers, expected, strict=True):
        if isinstance(answer, httpx.Response):
            assert answer.json()["translations"] == [[{"text": text}]]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "ctranslate2"])
def test_under_load_no_answer_is_lost_or_swapped(folder, engine):
    """A minute on a quiet machine, most of it to start: a service asked by 20 clients, and ended by SIGTERM."""
    texts = [" ".join("abc"[(index + place) % 3] for place in range(1 + index % 7)) for index in range(21)]
    done = run_load_test(str(folder), texts, clients=20, requests=300, alone=20, engine=engine)
    assert done.is_right, "\n".join(done.lines())
    assert (done.engine, len(done.alone.seconds), len(done.together.seconds)) == (engine, 20, 300)
    assert done.together.memory
