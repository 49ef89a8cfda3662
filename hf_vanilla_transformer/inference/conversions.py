"""Converted models for CTranslate2, kept beside the checkpoints that they were made of and known by their content."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import cached_assets_path
from transformers.utils import logging

from ..interop.ctranslate2 import export_ctranslate2
from .checkpoint_fingerprints import hashes_of_files
from .loading import LOADED_FILES, load_translator

logger = logging.get_logger(__name__)

# The folder of a checkpoint that has its conversions; no part of the checkpoint, and may be removed at any time.
CONVERSIONS = ".ctranslate2"

# To be raised when `export_ctranslate2` writes something else than before: older conversions are then ignored.
_FORMAT = 1


def conversion_key(folder: str | Path, quantization: str, num_positions: int) -> str:
    """Names a conversion by all that it depends on.

    Args:
        folder: of the checkpoint: its weights, configuration and tokenizer are read, whatever their dates.
        quantization: of the converted model.
        num_positions: of it.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{_FORMAT} {quantization} {num_positions}".encode())
    for name, content in hashes_of_files(folder, LOADED_FILES):
        digest.update(f"\n{name} {content}".encode())
    return digest.hexdigest()[:16]


def conversion_of(folder: str | Path, quantization: str, num_positions: int, is_ours: bool = True) -> Path:
    """Finds the conversion of a checkpoint, or makes it.

    It appears whole or not at all. Processes that make the same one at the same time all succeed, and one stays.

    Args:
        folder: of the checkpoint.
        quantization: "float32" or "int8".
        num_positions: rows of the table of positions.
        is_ours: whether a folder may be made in it. If not, or if it cannot be, the conversion goes to the assets of
            the cache of Hugging Face.

    Returns:
        The folder of the conversion.

    Raises:
        ImportError: ctranslate2 is not installed.
        OSError: it could be written nowhere.
        ValueError: the checkpoint is damaged, or CTranslate2 does not support it.
    """
    key = conversion_key(folder, quantization, num_positions)
    for place in _places(folder, is_ours):
        if _is_there(place / key):
            return place / key
    model, tokenizer = load_translator([folder], "cpu", "float32")
    failure = None
    for place in _places(folder, is_ours):
        try:
            export_ctranslate2(model, tokenizer, place / key, quantization, num_positions)
        except OSError as error:
            if not _is_there(place / key):  # else another process was faster
                failure = error
                continue
        logger.info(f"{folder} was converted for CTranslate2 ({quantization}): {place / key}")
        return place / key
    raise OSError(f"the conversion of {folder} for CTranslate2 can be written nowhere: {failure}") from failure


def _places(folder: str | Path, is_ours: bool) -> Iterator[Path]:
    if is_ours:
        yield Path(folder) / CONVERSIONS
    try:
        cache = cached_assets_path("hf_vanilla_transformer", namespace="ctranslate2")
    except (OSError, ValueError):  # it cannot be written either
        return
    yield cache


def _is_there(folder: Path) -> bool:
    return (folder / "model.bin").is_file()


__all__ = ["CONVERSIONS", "conversion_key", "conversion_of"]
