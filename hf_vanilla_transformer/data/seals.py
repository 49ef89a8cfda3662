"""Seals: a list, written last into a folder, of what it holds, by which damage is found before the folder is used."""

import errno
import json
import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from .text_files import hash_file

# Names every file of a folder with its size and its hash; written last.
SEAL = "seal.json"


def write_seal(folder: str | Path) -> None:
    """Seals a folder that is written, and makes sure that all of it is on the disk.

    Args:
        folder: with files at any depth.
    """
    folder = Path(folder)
    contents = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        contents[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": hash_file(path)}
        sync(path)
    (folder / SEAL).write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    sync(folder / SEAL)
    sync(folder)


def sync(path: str | Path) -> None:
    """Waits until a file is on the disk, or the names in a folder are.

    Args:
        path: of the file or folder.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and user-space file systems cannot do this, least of all with folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def find_damage(folder: str | Path, names: Sequence[str] = ("*",)) -> str | None:
    """Compares a sealed folder, such as a checkpoint, with its seal.

    Args:
        folder: a folder with a `seal.json`.
        names: patterns of the files to compare, such as `model*.safetensors`; all by default.

    Returns:
        None if all is well; else what is wrong.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return "there is no such folder"
    if not (folder / SEAL).exists():
        return f"it is no checkpoint, or one that is not whole: it has no {SEAL}"
    try:
        seal = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        contents = [(name, each["bytes"], each["sha256"]) for name, each in seal.items()]
    except (OSError, ValueError, AttributeError, LookupError, TypeError) as error:  # no JSON, or JSON of another kind
        return f"its {SEAL} cannot be read ({type(error).__name__}: {error})"
    if not contents:
        return f"its {SEAL} names no file"
    for name, size, digest in contents:
        if not any(fnmatch(name, pattern) for pattern in names):
            continue
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if hash_file(path) != digest:
            return f"{name} has changed since it was written"
    return None
