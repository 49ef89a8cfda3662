"""Converted models for CTranslate2, kept beside the checkpoints that they were made of and known by their content."""

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import cached_assets_path
from transformers.utils import logging

from ..data.seals import find_damage, write_seal
from ..interop.ctranslate2 import export_ctranslate2
from ..interop.output_folder import output_folder
from .checkpoint_fingerprints import hashes_of_files
from .loading import LOADED_FILES, load_translator

logger = logging.get_logger(__name__)

# The folder of a checkpoint that has its conversions; no part of the checkpoint, and may be removed at any time.
CONVERSIONS = ".ctranslate2"

# To be raised when something else is written than before: older conversions are then ignored, and left to whoever
# still has the older version of this package.
_FORMAT = 2
_NAME = re.compile(rf"{_FORMAT}-([0-9a-f]{{16}})-\w+-\d+")


def conversion_name(folder: str | Path, quantization: str, num_positions: int) -> str:
    """Names a conversion by all that it depends on.

    Args:
        folder: of the checkpoint: its weights, configuration and tokenizer are read, whatever their dates.
        quantization: of the converted model.
        num_positions: of it.

    Returns:
        The format, 16 hexadecimal digits of the content, and the other two.
    """
    digest = hashlib.sha256()
    for name, content in hashes_of_files(folder, LOADED_FILES):
        digest.update(f"{name} {content}\n".encode())
    return f"{_FORMAT}-{digest.hexdigest()[:16]}-{quantization}-{num_positions}"


def conversion_of(folder: str | Path, quantization: str, num_positions: int, is_ours: bool = True) -> Path:
    """Finds the conversion of a checkpoint, or makes it.

    It appears whole or not at all, and is sealed: one that is damaged is made again. Processes that make the same one
    at the same time all succeed, and one stays. Where a new one is made, those of earlier weights of this checkpoint
    are removed.

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
        OSError: it could be written nowhere; the message says what to do.
        ValueError: the checkpoint is damaged, or CTranslate2 does not support it.
    """
    name = conversion_name(folder, quantization, num_positions)
    for place in _places(folder, is_ours):
        if _is_sound(place / name):
            return place / name
    model, tokenizer = load_translator([folder], "cpu", "float32")
    failure = None
    for place in _places(folder, is_ours):
        try:
            # Files of a damaged one are replaced, each at a time and whole, so that others may read meanwhile.
            with output_folder(place / name, overwrite=True) as written:
                export_ctranslate2(model, tokenizer, written, quantization, num_positions)
                write_seal(written)
        except OSError as error:
            if not _is_sound(place / name):  # else another process was faster
                failure = failure or error
                continue
        logger.info(f"{folder} was converted for CTranslate2 ({quantization}): {place / name}")
        _remove_earlier(place, name)
        return place / name
    why = "" if failure is None else f" ({failure})"
    raise OSError(
        f"the conversion of {folder} for CTranslate2 can be written nowhere{why}; let HF_HOME name a folder that can "
        "be written, or use the engine torch"
    ) from failure


def _places(folder: str | Path, is_ours: bool) -> Iterator[Path]:
    if is_ours:
        yield Path(folder) / CONVERSIONS
    # The cache has those of many checkpoints. The same path is the same checkpoint.
    checkpoint = hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:16]
    try:
        cache = cached_assets_path("hf_vanilla_transformer", namespace="ctranslate2", subfolder=checkpoint)
    except (OSError, ValueError):  # it cannot be written either
        return
    yield cache


def _is_sound(folder: Path) -> bool:
    try:
        if not folder.exists():
            return False
        damage = find_damage(folder)
    except OSError as error:  # another user's, and not for us to read
        damage = str(error)
    if damage is not None:
        logger.warning(f"the conversion {folder} cannot be used, and is made again: {damage}")
    return damage is None


def _remove_earlier(place: Path, name: str) -> None:
    """Removes conversions of other weights than those that one of this name is of, whatever their other properties."""
    content = name.split("-")[1]
    for path in sorted(place.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match is not None and match[1] != content:
            shutil.rmtree(path, ignore_errors=True)  # what another process has removed meanwhile, or may remove later
            logger.info(f"{path} was of earlier weights, and is removed")


__all__ = ["CONVERSIONS", "conversion_name", "conversion_of"]
