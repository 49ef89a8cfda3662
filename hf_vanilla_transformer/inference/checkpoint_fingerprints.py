"""By what a checkpoint is known: the content of the files that translating with it reads."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from ..data.text_files import hash_file
from .loading import ADAPTER_CONFIG, LOADED_FILES, SEALED_FILES, load_config
from .shipped import place_of_model


def hashes_of_files(folder: str | Path, patterns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Hashes some of the files of a folder.

    Args:
        folder: it.
        patterns: of their names.

    Yields:
        The name and the SHA-256 of each, by name.
    """
    for path in sorted(Path(folder).iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in patterns):
            yield path.name, hash_file(path)


def checkpoint_fingerprint(folder: str | Path, decoding: bool = True) -> str:
    """Identifies a checkpoint by its content, wherever it lies: weights, configurations, tokenizer.

    Args:
        folder: of the checkpoint, or of an adapter, whose base is part of it; or a name, as `load_translator` takes it.
            One on the Hub is identified by its name and revision.
        decoding: whether how it decodes is part of it (generation_config.json), which is nothing that another model
            learns from it.

    Returns:
        16 hexadecimal digits.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: it is damaged.
    """
    folder = Path(place := place_of_model(folder))
    if not folder.is_dir():
        content = [[str(place), str(load_config(place)._commit_hash)]]
    else:
        files = SEALED_FILES if decoding else (ADAPTER_CONFIG, *LOADED_FILES)
        content = [list(each) for each in hashes_of_files(folder, files)]
        if (adapter := folder / ADAPTER_CONFIG).exists():
            base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
            content.append(["base", checkpoint_fingerprint(base, decoding)])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


__all__ = ["checkpoint_fingerprint", "hashes_of_files"]
