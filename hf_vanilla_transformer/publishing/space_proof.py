"""The proof that the folder of a Space works: its `app.py`, run as a Space runs it, answers as the models do here."""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from .proof import environment_of_proof

# Seconds until it answers: it imports torch and Gradio, and loads its models.
TIME_LIMIT = 600


def prove_space(folder: str | Path, expected: Mapping[str, tuple[str, str]], is_offline: bool = True) -> None:
    """Runs a Space in a process of its own, and asks each of its models for a translation.

    Args:
        folder: of the Space.
        expected: by the name of a model on the page, a text and its translation.
        is_offline: whether all its models are in the folder, so that it has to work without the Hub. If not, it has to
            load the others as anybody can: without what is logged in or cached here.

    Raises:
        ValueError: it does not start, or answers otherwise. The message is one line.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    environment = environment_of_proof("GRADIO_")
    environment.update(GRADIO_SERVER_NAME="127.0.0.1", GRADIO_SERVER_PORT=str(port))
    environment.update(SYSTEM="spaces", SPACE_ID="owner/name")  # by which Gradio knows that it is in a Space
    # What is expected was computed on the CPU.
    environment.update(CUDA_VISIBLE_DEVICES="", HF_HUB_DISABLE_IMPLICIT_TOKEN="1")
    with tempfile.TemporaryDirectory() as scratch, open(Path(scratch) / "log", "w+b") as log:
        environment["HF_HOME"] = str(Path(scratch) / "home")
        if is_offline:
            environment["HF_HUB_OFFLINE"] = "1"
        # -B: no compiled files in the folder. -s: no packages of the user.
        process = subprocess.Popen(
            [sys.executable, "-B", "-s", "app.py"], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log,
            stderr=log,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(address, process, Path(scratch) / "log")
            for model, (text, translation) in expected.items():
                answer = _ask(address, "search", [model, text, "", None, None, []])
                best = answer.get("error") or answer["hypotheses"][0]["text"]
                if best.split() != translation.split():
                    raise ValueError(f"the Space answers {text!r} by {best!r}, but here {model} says {translation!r}")
        except (OSError, HTTPException) as error:
            raise ValueError(f"the Space does not answer: {type(error).__name__}: {error}") from error
        finally:
            process.kill()
            process.wait()


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + TIME_LIMIT
    while time.monotonic() < end:
        if process.poll() is not None:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["without a message"]
            raise ValueError(f"app.py of the Space ends with status {process.returncode}: {lines[-1][:500]}")
        try:
            _get(f"{address}/")
        except HTTPError:
            raise
        except (OSError, HTTPException):
            time.sleep(0.2)
            continue
        return
    raise ValueError(f"app.py of the Space does not answer after {TIME_LIMIT} seconds")


def _ask(address: str, name: str, arguments: list[Any]) -> dict[str, Any]:
    """Calls a function of Gradio's API."""
    place = f"{address}/gradio_api/call/{name}"
    event = json.loads(_get(place, json.dumps({"data": arguments}).encode()))["event_id"]
    text = _get(f"{place}/{event}")
    for block in text.split("\n\n"):
        if block.startswith("event: complete\ndata: "):
            return json.loads(block.partition("\ndata: ")[2])[0]
    raise ValueError(f"the Space gives no answer to /{name}: {' '.join(text.split())[:300]}")


def _get(address: str, body: bytes | None = None) -> str:
    request = Request(address, body, {"Content-Type": "application/json"})
    with build_opener(ProxyHandler({})).open(request, timeout=TIME_LIMIT) as response:
        return response.read().decode()


__all__ = ["prove_space"]
