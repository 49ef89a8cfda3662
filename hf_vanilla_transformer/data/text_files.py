"""Reading text files line by line, plain or gzip, so that whatever is wrong with them is found and named."""

import errno
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_GZIP_MAGIC = b"\x1f\x8b"
_UTF8_BOM = "\ufeff"

# What is to become of a line that is no text: its number, from 1, and what is wrong. It raises, or the line is read as
# an empty one.
OnError = Callable[[int, ValueError], None]


def read_lines(path: str | Path, allow_nul: bool = False, on_error: OnError | None = None) -> Iterator[str]:
    r"""Reads the lines of a UTF-8 text file one at a time, in memory for one line.

    A line ends at "\n" or "\r\n" and nowhere else. Python's own text mode also ends one at a lone "\r", and
    `str.splitlines` at U+2028, U+0085, form feeds and more; either would move the lines of one file of a parallel
    corpus against those of the other. The file is opened when the first line is asked for.

    Args:
        path: the file. Whether it is gzip is told by its first bytes, not by its name.
        allow_nul: whether NUL bytes are text like any other, and not a sign of something else.
        on_error: called for each line that is not UTF-8 or has a NUL byte that is not allowed; if it returns, the line
            is read as an empty one. None raises the error. Damaged gzip data are always an error.

    Yields:
        Each line without its end, and the first without a byte order mark.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a directory.
        ValueError: a line is not UTF-8 or has a NUL byte that is not allowed, or gzip data are damaged or cut short;
            the message names the file and the line, the first being 1, and the byte in the line, the first being 0.
    """
    require_text_file(path)
    with open(path, "rb") as file:
        is_gzip = file.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC)
        stream = io.BufferedReader(gzip.GzipFile(fileobj=file)) if is_gzip else file
        count = 0
        try:
            for line in decode_lines(stream, str(path), allow_nul, on_error):
                count += 1
                yield line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}, after line {count}: damaged or truncated gzip data ({error})") from error


def count_lines(path: str | Path, allow_nul: bool = False, on_error: OnError | None = None) -> int | None:
    """Counts the lines that `read_lines` would read, or returns None for what can only be read once, such as a pipe.

    Args:
        path: the file.
        allow_nul: as in `read_lines`.
        on_error: likewise.

    Returns:
        The number of lines.

    Raises:
        FileNotFoundError: as in `read_lines`.
        IsADirectoryError: likewise.
        ValueError: likewise.
    """
    require_text_file(path)
    return sum(1 for _ in read_lines(path, allow_nul, on_error)) if Path(path).is_file() else None


def decode_lines(
    raw_lines: Iterable[bytes], name: str, allow_nul: bool = False, on_error: OnError | None = None
) -> Iterator[str]:
    r"""Decodes the lines of a binary stream, such as `sys.stdin.buffer`, as `read_lines` those of a file.

    Args:
        raw_lines: each with its "\n", but for the last.
        name: what to call the stream in messages.
        allow_nul: as in `read_lines`.
        on_error: likewise.

    Yields:
        Each line without its end, and the first without a byte order mark.

    Raises:
        ValueError: a line is not UTF-8 or has a NUL byte that is not allowed; the message names stream, line and byte.
    """
    for number, raw_line in enumerate(raw_lines, start=1):
        try:
            line = _decode(raw_line, f"{name}, line {number}", allow_nul)
        except ValueError as error:
            if on_error is None:
                raise
            on_error(number, error)
            line = ""
        if number == 1 and line.startswith(_UTF8_BOM):
            line = line[1:]
            if not line:  # a file of nothing but the mark has no line
                return
        yield line.removesuffix("\n").removesuffix("\r") if line.endswith("\n") else line


def read_aligned(paths: Iterable[str]) -> dict[str, list[str]]:
    """Reads whole files of which lines with one number belong together.

    Args:
        paths: the files, as for `read_lines`.

    Returns:
        The lines of each file, by its path.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no text, or the files have not one number of lines; the message names them.
    """
    texts = {path: list(read_lines(path)) for path in paths}
    if len({len(lines) for lines in texts.values()}) > 1:
        counts = ", ".join(f"{path} has {len(lines)} lines" for path, lines in texts.items())
        raise ValueError(f"{counts}; line N of each must belong to line N of the others")
    return texts


def require_text_file(path: str | Path) -> None:
    """Refuses a path at which there is nothing to read.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a directory.
    """
    if not Path(path).exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if Path(path).is_dir():
        raise IsADirectoryError(errno.EISDIR, "a directory, not a text file", str(path))


def hash_file(path: str | Path) -> str:
    """Hashes the content of a file of any size, in memory for a block of it.

    Args:
        path: the file.

    Returns:
        Its SHA-256, in hexadecimal.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _decode(raw_line: bytes, where: str, allow_nul: bool) -> str:
    if not allow_nul and (position := raw_line.find(0)) >= 0:
        raise ValueError(f"{where}: NUL byte at byte {position}; looks like a binary file, or text that is not UTF-8")
    try:
        return raw_line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: not UTF-8 at byte {error.start} ({error.reason}: 0x{raw_line[error.start]:02x})"
        ) from error


__all__ = ["OnError", "count_lines", "decode_lines", "hash_file", "read_aligned", "read_lines", "require_text_file"]
