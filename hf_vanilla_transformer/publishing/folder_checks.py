"""Looks through a folder before it leaves: nothing that could run, no remains of training, no leaks, a valid card."""

import pickletools
import zipfile
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .card_checks import check_card
from .leaks import find_leaks, names_of_this_machine

# A file of the Hub should not be larger, in bytes.
LARGEST_FILE = 5 * 10**9
# More than this in all is worth a remark, in bytes: the models that this package ships are smaller.
LARGE_TOTAL = 15 * 10**6

# What training leaves besides a model, and what editors and systems leave anywhere.
STRAY = (
    *("checkpoint-*/*", "last-checkpoint/*", ".uploading/*", ".writing/*", "optimizer*", "scheduler*", "scaler*"),
    *("rng_state*", "trainer_state*", "training_args*", "seal.json", "*.log", "*.partial", "*.tmp", "*.lock", "*.swp"),
    *("*tfevents*", ".git/*", ".cache/*", "*__pycache__*", "*.pyc", "*.DS_Store", "*.ipynb_checkpoints*"),
    *(".ctranslate2/*", "*/.ctranslate2/*"),
)

# Pickles by name, whatever is in them.
_PICKLE_NAMES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz", ".h5", ".keras")
# Files that hold others, which would have to be looked through too, and numpy's, which may hold pickles.
_CONTAINERS = {
    b"PK\x03\x04": "an archive (zip, or what torch.save writes)",
    b"PK\x05\x06": "an archive (zip)",
    b"\x1f\x8b": "an archive (gzip)",
    b"BZh": "an archive (bzip2)",
    b"\xfd7zXZ\x00": "an archive (xz)",
    b"7z\xbc\xaf'\x1c": "an archive (7z)",
    b"(\xb5/\xfd": "an archive (zstandard)",
    b"\x93NUMPY": "an array of numpy, which may hold pickles",
    b"\x89HDF\r\n\x1a\n": "HDF5, which may hold pickles",
    b"\x7fELF": "a program",
}
# Opcodes by which a pickle gets at code; without one it has nothing to call. ("R. Smith" would call and stop.)
_IMPORTS = {"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"}
# Where an archive of tar says that it is one.
_TAR = slice(257, 262)


def check_folder(
    folder: str | Path, public: str = "", allowed: Sequence[str] = (), is_model: bool = True
) -> tuple[list[str], list[str]]:
    """Looks through every file of a folder that is to be published.

    Args:
        folder: with the model, its code and its card.
        public: owner and name of the repository, which may be the names of the user.
        allowed: texts that look like leaks and are meant to be there.
        is_model: whether its card has to be that of a model.

    Returns:
        What forbids publishing it, and what is only worth knowing; a line each, which names the file.
    """
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = names_of_this_machine(public)
    findings, remarks = [], []
    for path in files:
        name = path.relative_to(folder).as_posix()
        findings += [f"{name}: left over from training or editing"] * any(fnmatchcase(name, each) for each in STRAY)
        if path.stat().st_size > LARGEST_FILE:
            findings.append(f"{name}: {path.stat().st_size / 1e9:.1f} GB, more than {LARGEST_FILE / 1e9:.0f} GB")
        danger = find_danger(path)
        if danger is not None:
            findings.append(f"{name}: {danger}")
        else:
            findings += find_leaks(path, name, names, allowed)
    total = sum(path.stat().st_size for path in files)
    if total > LARGE_TOTAL:
        remarks.append(f"{total / 1e6:.1f} MB in all")
    of_card, remarks_of_card = check_card(folder, public) if is_model else ([], [])
    return findings + of_card, remarks + remarks_of_card


def find_danger(path: Path) -> str | None:
    """Finds what may run code where it is opened, by its name and by its content.

    Args:
        path: the file.

    Returns:
        What it is; None for a file that can be opened without fear.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt"):
                return None
        except SafetensorError as error:
            return f"not a file of safetensors ({error})"
    if path.suffix.lower() in _PICKLE_NAMES:
        return f"may hold pickles, by its name ({path.suffix}); models are published as safetensors"
    with open(path, "rb") as file:
        beginning = file.read(_TAR.stop)
    for magic, kind in _CONTAINERS.items():
        if beginning.startswith(magic):
            return kind
    if beginning[_TAR] == b"ustar":
        return "an archive (tar)"
    if (beginning[:1] == b"\x80" and beginning[1:2] <= b"\x05") or _imports_something(path):
        return "a pickle"
    # Its directory is at the end: a picture may have one behind it.
    return "an archive (zip) behind something else" if zipfile.is_zipfile(path) else None


def _imports_something(path: Path) -> bool:
    """Whether a file is a pickle of the oldest kind, which begins like a text, and gets at code."""
    try:
        with open(path, "rb") as file:
            operations = list(pickletools.genops(file.read(10**7)))  # up to the end, without which it is none
    except (ValueError, OverflowError):
        return False
    return any(operation.name in _IMPORTS for operation, _, _ in operations)
