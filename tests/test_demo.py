"""The command `demo`: its options, what it says without its packages, and that nothing else imports Gradio."""

import ast
import re
import socket
from pathlib import Path

import pytest
from commanding import run, save_translator

import hf_vanilla_transformer
from hf_vanilla_transformer.commands import demo as command
from hf_vanilla_transformer.demo import server
from hf_vanilla_transformer.demo.limits import Limits

PACKAGE = Path(hf_vanilla_transformer.__file__).parent


@pytest.fixture
def served(monkeypatch):
    """What the command would have served, in place of serving it."""
    calls = []
    monkeypatch.setattr(command, "find_spec", lambda name: name)
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


def test_without_its_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert "pip install 'hf-vanilla-transformer[demo]'" in run(command.main).error


def test_what_cannot_be_shown_is_one_line(served, tmp_path):
    save_translator(tmp_path / "x")
    assert "there is no folder no/such" in run(command.main, "--model", "no/such").error
    assert "two models are called x" in run(command.main, "--model", tmp_path / "x", tmp_path / "x").error
    assert "`max_beams`=0 is not allowed" in run(command.main, "--model", tmp_path / "x", "--max_beams", 0).error


def test_a_port_that_is_taken_is_one_line():
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(OSError, match=r"127\.0\.0\.1:\d+ cannot be listened at: Address already in use"),
    ):
        server.serve(None, "127.0.0.1", other.getsockname()[1])


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
