"""Environments with another transformers and without this package, to prove a folder in."""

import hashlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from ..modeling_compatibility import NEWEST_TESTED_TRANSFORMERS, OLDEST_TRANSFORMERS

NAMED_VERSIONS = {
    name: ".".join(map(str, version))
    for name, version in (("oldest", OLDEST_TRANSFORMERS), ("newest", NEWEST_TESTED_TRANSFORMERS))
}


def transformers_version(version: str) -> str:
    """Reads a version of transformers as a user gives it.

    Args:
        version: "oldest" or "newest" of the tested range, or a number such as "5.18" or "5.18.0".

    Returns:
        The number.

    Raises:
        ValueError: it is none of these.
    """
    number = NAMED_VERSIONS.get(version, version)
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?", number):
        allowed = ", ".join(f"{name} ({value})" for name, value in NAMED_VERSIONS.items())
        raise ValueError(f"{version!r} is not a version of transformers; allowed: {allowed}, or one such as 5.18")
    return number


def python_with_transformers(version: str, folder: str | Path, constraint: str | Path | None = None) -> Path:
    """Makes an environment with torch, a given transformers, and nothing of this package.

    Args:
        version: as `transformers_version` returns it; of a minor version the newest release is taken.
        folder: where environments are; one that is there and complete is used again.
        constraint: pip's file of constraints, for torch above all: without it, pip chooses, which may be a build for
            GPUs of several gigabytes.

    Returns:
        Its interpreter.

    Raises:
        ValueError: it cannot be made; the message is one line.
    """
    release = f"transformers=={version}" + ("" if version.count(".") == 2 else ".*")
    content = Path(constraint).read_bytes() if constraint else b""
    of_constraint = f"-{hashlib.sha256(content).hexdigest()[:8]}" if constraint else ""
    minor = ".".join(platform.python_version_tuple()[:2])
    environment = Path(folder).resolve() / f"transformers-{version}-python{minor}{of_constraint}"
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    is_complete = environment / "is_complete"
    if not is_complete.exists():
        _run([sys.executable, "-m", "venv", "--clear", str(environment)], environment)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if constraint:
            install += ["--constraint", str(Path(constraint).resolve())]
        _run([*install, "torch", release], environment)
        is_complete.touch()
    return python


def _run(command: list[str], environment: Path) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()] or ["no message"]
        raise ValueError(f"no environment could be made in {environment}: {' '.join(command[1:4])} says: {lines[-1]}")
