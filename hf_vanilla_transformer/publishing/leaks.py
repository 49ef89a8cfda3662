"""What must not leave this machine: secrets, and what tells of the machine itself."""

import codecs
import contextlib
import getpass
import json
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import get_token

# Patterns by which services make their keys known, and places in which people write passwords.
_SECRETS = {
    "token of Hugging Face": r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}",
    "key of OpenAI or Anthropic": r"\bsk-[A-Za-z0-9_-]{20,}",
    "key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "key of Google": r"\bAIza[0-9A-Za-z_-]{35}",
    "token of GitHub": r"\b(?:gh[opsur]_[A-Za-z0-9]{36}|github_pat_\w{22,})",
    "token of GitLab": r"\bglpat-[\w-]{20,}",
    "token of Slack": r"\bxox[abeoprs]-[\w-]{10,}",
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "signed token (JWT)": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
    "password in an address": r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@\"'`<>]+:[^\s/@\"'`<>]+@[\w.-]",
    "password of a request": r"(?i)\bauthorization[\"']?[ \t]*[:=][ \t]*[\"']?(?:bearer|basic)[ \t]+"
    r"(?!your)[\w.~+/=-]{12,}",
    # "eos_token" and the like are no secrets; "<HUB_TOKEN>" is what transformers writes in the place of one.
    "password or key": r"(?i)\b(?:\w+_)?(?:password|passwd|passphrase|secret|(?:(?:secret|private|access|api)[_-]?)+key"
    r"|(?:access|auth|hub|hf|bearer)[_-]?token)"
    r"[\"']?[ \t]*[:=][ \t]*[\"']?(?!null\b|none\b|true\b|false\b|your|<|\$|os\.)[^\s\"',;)}\]]{6,}",
}

SECRETS = {kind: re.compile(pattern) for kind, pattern in _SECRETS.items()}

_FOLDERS = (
    *("work", "workspace", "mnt", "media", "data", "scratch", "srv", "opt", "var", "private", "nfs", "gpfs", "lustre"),
    *("content", "kaggle", "storage", "Volumes"),
)
# The slash that a path begins with follows nothing that would make it a part of an address or of another path.
_START = r"(?:(?<![\w.~/<>)\]*-])|(?<=file://))"
_NAME = r"[\w.+@-]+"
MACHINE_PATH = re.compile(
    rf"{_START}/(?:home|Users)/{_NAME}(?:/{_NAME})*"
    rf"|{_START}/(?:root|tmp)\b(?:/{_NAME})*"
    rf"|{_START}/(?:{'|'.join(_FOLDERS)})(?:/{_NAME})+"
    rf"|\b[A-Za-z]:(?:\\\\|\\|/)Users(?:(?:\\\\|\\|/){_NAME})+"
)

# In JSON and in code, "\n" stands for the end of a line: its letter is no part of what follows.
_ESCAPED = re.compile(r"\\[nrt]")

# Names that many machines have, and that say nothing of this one.
_COMMON_NAMES = {
    *("admin", "administrator", "build", "debian", "default", "dev", "docker", "ec2-user", "guest", "home", "host"),
    *("jovyan", "local", "localhost", "localdomain", "main", "model", "node", "nobody", "root", "runner", "server"),
    *("test", "ubuntu", "user", "users", "vagrant", "vscode", "worker"),
}
# Where a word is most likely natural language: vocabularies, and the text of test sets.
_NOT_NAMES = ("tokenizer.json", "vocab.json", "merges.txt")
_NOT_OF_WORDS = "password or key"  # in a vocabulary, "password" has a number
_DESCRIPTIONS = (".json", ".yaml", ".yml", ".toml", ".cfg")
_PROSE = (".md", ".py")


def find_leaks(path: Path, name: str, known_names: Sequence[str] = (), allowed: Sequence[str] = ()) -> Iterator[str]:
    """Looks in a file for secrets, for paths of this machine, and for the names of the machine and its user.

    Of a file of weights, only what describes the weights is read; any other file is read whole, whatever is in it.

    Args:
        path: the file.
        name: what to call it.
        known_names: of the user and the machine, as of `names_of_this_machine`.
        allowed: findings that are meant to be there.

    Yields:
        For each finding, a line that names the file, the line in it, and what was found; of secrets, the beginning.
    """
    text = _header(path) if path.suffix == ".safetensors" else _decoded(path.read_bytes())
    texts = (text, _ESCAPED.sub("  ", text))  # of one length, so that places in them are the same
    kinds = {kind: each for kind, each in SECRETS.items() if kind != _NOT_OF_WORDS or Path(name).name not in _NOT_NAMES}
    secrets = {
        (found.start(), kind): found.group()
        for one in reversed(texts)  # where both have it, it is what the file says
        for kind, each in kinds.items()
        for found in each.finditer(one)
    }
    own = [re.escape(secret) for secret in {get_token(), os.environ.get("HF_TOKEN")} if secret and len(secret) > 7]
    secrets |= {(found.start(), "token of Hugging Face"): found.group() for found in _any_of(own).finditer(text)}
    places: set[tuple[int, str]] = set()
    for pattern in (MACHINE_PATH, _any_of([re.escape(place) for place in _paths_of_this_machine()])):
        for one in texts:
            places |= {
                (found.start(), found.group()) for found in pattern.finditer(one) if not _is_within(found, places)
            }
    named = _pattern_of_names(known_names, Path(name).name, path.suffix)
    words = {found.start(): found for one in texts for found in named.finditer(one)}.values()
    findings = [(start, secret, f"{kind}: {secret[:6]}...") for (start, kind), secret in secrets.items()]
    findings += [(start, place, f"path of this or another machine: {place}") for start, place in places]
    findings += [
        (found.start(), found.group(), f"name of this machine or its user: {found.group()}")
        for found in words
        if not _is_within(found, places)
    ]
    lines = [(text.count("\n", 0, start) + 1, what) for start, found, what in sorted(findings) if found not in allowed]
    for number, what in dict.fromkeys(lines):
        yield f"{name}:{number}: {what}"


def names_of_this_machine(public: str = "") -> list[str]:
    """The names of the user and of the machine, as far as they say anything.

    Args:
        public: what is known to all anyway, such as the owner and the name of the repository.

    Returns:
        The names; none of those that many machines have.
    """
    found = {socket.gethostname(), socket.gethostname().partition(".")[0]}
    with contextlib.suppress(OSError, KeyError, ImportError):  # a user without an entry, as in some containers
        found.add(getpass.getuser())
    said = {each for each in found if len(each) > 2 and each.lower() not in _COMMON_NAMES}
    return sorted(
        each for each in said if not re.search(rf"(?<![\w-]){re.escape(each)}(?![\w-])", public, re.IGNORECASE)
    )


def _pattern_of_names(names: Sequence[str], file_name: str, suffix: str) -> re.Pattern[str]:
    """Whole words in descriptions; in prose and code, where a name may be a word, only in paths and addresses."""
    if not names or file_name in _NOT_NAMES or suffix not in (*_DESCRIPTIONS, *_PROSE, ".safetensors"):
        return _any_of([])
    either = "|".join(map(re.escape, names))
    if suffix in _PROSE:
        return re.compile(rf"(?<=[/\\@])(?:{either})(?![\w-])|(?<![\w-])(?:{either})(?=@)")
    return re.compile(rf"(?<![\w-])(?:{either})(?![\w-])")


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(patterns) or "(?!)")  # which fits nothing


def _is_within(found: re.Match[str], places: set[tuple[int, str]]) -> bool:
    """Whether a part of a path that was found already is meant."""
    return any(start <= found.start() < start + len(place) for start, place in places)


def _paths_of_this_machine() -> list[str]:
    """Folders that a path in here would begin with, unless they are so short that they say nothing."""
    places = {str(Path.home()), os.getcwd(), sys.prefix, tempfile.gettempdir(), str(Path(__file__).parents[2])}
    return sorted(each for each in places if len(Path(each).parts) > 2 and not each.startswith("/usr/"))


def _decoded(content: bytes) -> str:
    """Text of any file; of one that says so, as Windows writes it: in two bytes a letter."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8", errors="replace")


def _header(path: Path) -> str:
    """What a file of safetensors says besides numbers, one entry a line."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return "\n".join([*(f"{key}: {value}" for key, value in header.pop("__metadata__", {}).items()), *header])
