"""The command `demo`: its options, what it says without its packages, and that nothing else imports Gradio."""

import ast
import asyncio
import importlib.metadata
import os
import re
import signal
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from commanding import run, save_translator

import hf_vanilla_transformer
from hf_vanilla_transformer.commands import demo as command
from hf_vanilla_transformer.demo import server
from hf_vanilla_transformer.demo.limits import Limits
from hf_vanilla_transformer.demo.pending_answers import PendingAnswers

PACKAGE = Path(hf_vanilla_transformer.__file__).parent


def pretend_gradio(monkeypatch, number):
    """Has the installed Gradio be of a version; None for none at all."""
    real = importlib.metadata.version

    def version(name):
        if name == "gradio" and number is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return number if name == "gradio" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.fixture
def served(monkeypatch):
    """What the command would have served, in place of serving it."""
    calls = []
    pretend_gradio(monkeypatch, "6.31.0")
    monkeypatch.setattr(server, "make_server", lambda models: models)
    monkeypatch.setattr(server, "serve", lambda models, host, port: calls.append((models, host, port)))
    return calls


def test_options_become_what_is_served(served, tmp_path):
    for name in ("x", "y"):
        save_translator(tmp_path / name)
    words = ["--model", tmp_path / "x", f"{tmp_path / 'y'}/", "--port", 0, "--max_tokens", 9, "--device", "cpu"]
    assert run(command.main, *words).returncode == 0
    ((models, host, port),) = served
    assert list(models) == ["x", "y"]
    assert (host, port) == ("127.0.0.1", 0)
    assert all(each.limits == Limits(max_tokens=9) for each in models.values())


def test_without_a_model_the_shipped_checkpoints_are_shown(served, monkeypatch, tmp_path):
    save_translator(tmp_path)
    monkeypatch.setattr(server, "shipped_checkpoints", lambda: {"g2p-15-languages": tmp_path, "other": tmp_path})
    assert server.default_models() == ["g2p-15-languages"]
    monkeypatch.setattr(server, "shipped_checkpoints", dict)
    assert "no model was named, and this copy of the package has none" in run(command.main).error


@pytest.mark.parametrize(("number", "lack"), [(None, "and there is none"), ("6.9.1", "and here is 6.9.1")])
def test_without_its_packages_it_says_what_to_install(monkeypatch, number, lack):
    pretend_gradio(monkeypatch, number)
    error = run(command.main).error
    assert error.startswith(f"this verb needs gradio>=6.31, {lack}: pip install 'hf-vanilla-transformer[demo]'")


def test_the_gradio_that_is_needed_is_that_of_the_extra():
    project = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    (extra,) = re.findall(r"^demo = \[(.*)\]$", project, re.MULTILINE)
    assert f'"{command._GRADIO}"' in extra


def test_what_cannot_be_shown_is_one_line(served, tmp_path):
    save_translator(tmp_path / "x")
    assert "there is no folder no/such" in run(command.main, "--model", "no/such").error
    assert "two models are called x" in run(command.main, "--model", tmp_path / "x", tmp_path / "x").error
    assert "`max_beams`=0 is not allowed" in run(command.main, "--model", tmp_path / "x", "--max_beams", 0).error
    for port in (-1, 65536):
        error = run(command.main, "--model", tmp_path / "x", "--port", port).error
        assert error.startswith(f"--port {port} is no port; allowed: 1 to 65535")


def test_a_port_that_is_taken_is_one_line():
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(OSError, match=r"127\.0\.0\.1:\d+ cannot be listened at: Address already in use"),
    ):
        server.serve(None, "127.0.0.1", other.getsockname()[1])


class StubbedServer:
    """What `serve` uses of a `gradio.Server`, without one. It is sent SIGTERM while it serves."""

    def __init__(self):
        self._queue = SimpleNamespace(max_size=None, pending_messages_per_session={})
        self.is_ended = False

    def launch(self, app_kwargs, **options):
        async def start_listening():
            async with app_kwargs["lifespan"](self):
                self.listens_with = vars(self._queue).copy()

        asyncio.run(start_listening())
        return None, "http://127.0.0.1:1/", None

    def get_blocks(self):
        return self

    def block_thread(self):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except KeyboardInterrupt:  # as Gradio does
            self.is_ended = True


def test_sigterm_ends_it_in_order_and_answers_that_nobody_fetches_do_not_pile_up(capsys):
    before, stub = signal.getsignal(signal.SIGTERM), StubbedServer()
    assert server.serve(stub) == "http://127.0.0.1:1/"
    assert stub.is_ended
    assert signal.getsignal(signal.SIGTERM) == before
    assert 0 < stub.listens_with["max_size"] <= 64
    assert isinstance(stub.listens_with["pending_messages_per_session"], PendingAnswers)
    assert "the page is at http://127.0.0.1:1/" in capsys.readouterr().err


def test_only_files_of_the_page_are_served(monkeypatch, tmp_path):
    for name in ("page.js", "index.html", ".page.js.swp", "page.js~", ".DS_Store"):
        (tmp_path / name).write_text("x")
    (tmp_path / "__pycache__").mkdir()
    monkeypatch.setattr(server, "_PAGE", tmp_path)
    assert server._page_files() == {"index.html": (b"x", "text/html"), "page.js": (b"x", "text/javascript")}


def test_each_limit_is_an_option_with_a_line_of_help():
    shown = run(command.main, "--help").stdout
    for name in Limits.__dataclass_fields__:
        assert re.search(rf"--{name} N\s+\w", shown)


def test_gradio_is_imported_only_where_the_page_is_served():
    naming = [path for path in sorted(PACKAGE.rglob("*.py")) if "gradio" in path.read_text(encoding="utf-8")]
    for path in naming:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            if any(name.split(".")[0] == "gradio" for name in names):
                assert path == PACKAGE / "demo" / "server.py"
                assert node.col_offset > 0  # inside the function that needs it
