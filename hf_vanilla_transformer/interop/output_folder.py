"""Where converted and exported models go: a folder that appears whole or not at all, and replaces nothing unasked."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Where a folder keeps the tokenizer of the target, if that of the source cannot encode it.
TARGET_TOKENIZER = "target_tokenizer"


@contextmanager
def output_folder(output_dir: str | Path, overwrite: bool = False, source: str | Path | None = None) -> Iterator[Path]:
    """Gives a folder to write in, which becomes `output_dir` if all goes well; after an error nothing is left of it.

    Args:
        output_dir: what to make; must be free or an empty folder, unless `overwrite`.
        overwrite: whether files in `output_dir` are replaced by new ones of the same name; others stay.
        source: what the new files are made of; is never written to, whatever `overwrite` says.

    Yields:
        A temporary folder next to `output_dir`.

    Raises:
        OSError: `output_dir` is a file, the source, not empty, or cannot be written.
    """
    target = Path(output_dir)
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is a file; name a folder, or a name that is free")
    if target.exists() and source and Path(source).exists() and target.samefile(source):
        raise FileExistsError(f"{target} is the folder of the model itself, which must stay as it is; name another one")
    present = sorted(path.name for path in target.iterdir()) if target.exists() else []
    if present and not overwrite:
        raise FileExistsError(
            f"{target} is not empty (it has {', '.join(present[:3])}{', ...' if present[3:] else ''}); name another "
            "folder, or allow that files in it are replaced: --overwrite, in Python overwrite=True"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
        written = Path(temporary) / "written"  # with the usual rights, where those of a temporary folder are narrow
        written.mkdir()
        yield written
        if not target.exists():
            os.rename(written, target)
            return
        for path in sorted(path for path in written.rglob("*") if path.is_file()):
            place = target / path.relative_to(written)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
