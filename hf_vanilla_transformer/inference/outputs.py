"""Files that are written whole or not at all: an earlier file stays until the new one is complete."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from transformers.utils import logging

from .pipes import write_plain_lines

logger = logging.get_logger(__name__)

# What is written has this at the end of its name until it is complete.
_PARTIAL = ".partial"


@contextmanager
def open_output(path: str | Path | None) -> Iterator[TextIO]:
    r"""Opens a file to write, or standard output, as UTF-8 with "\n" as the end of a line.

    A file is written as `PATH.partial` beside the one it is to replace, and renamed when the block ends. If the block
    raises, an earlier file stays as it was, and `PATH.partial` is kept if anything has been written to it; the log says
    so. What is not a regular file, such as a named pipe or `/dev/null`, is opened and written as it is.

    Args:
        path: the file; None for standard output. The target of a symbolic link is replaced, and not the link.

    Yields:
        The stream. A file is closed afterwards.

    Raises:
        OSError: the file cannot be written.
    """
    if path is None:
        write_plain_lines()
        yield sys.stdout
    elif Path(path).exists() and not Path(path).is_file():
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            yield file
    else:
        target = Path(path).resolve()
        partial = target.with_name(target.name + _PARTIAL)
        partial_file = open(partial, "w", encoding="utf-8", newline="\n")  # noqa: SIM115  # closed by the block below
        try:
            with partial_file:
                yield partial_file
            if target.exists():
                shutil.copymode(target, partial)
            os.replace(partial, target)
        except BaseException:
            _keep_or_remove(partial, path)
            raise


def _keep_or_remove(partial: Path, path: str | Path) -> None:
    if partial.is_file() and partial.stat().st_size:
        logger.warning(f"{path} was not replaced; what was written before the error is in {partial}")
    else:
        partial.unlink(missing_ok=True)
