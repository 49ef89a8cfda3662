"""Programs in a pipe: errors in one line, exit statuses as shells expect them, no traceback when a reader leaves."""

import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

# Exit statuses by which shells report programs that were ended by SIGINT and SIGPIPE.
INTERRUPTED = 128 + 2
PIPE_CLOSED = 128 + 13


def run_as_filter(work: Callable[[], None], program: str) -> int:
    r"""Runs a program, and turns whatever stops it into an exit status.

    Args:
        work: reads, and prints to standard output, which is UTF-8 with "\n" as the end of a line on every system.
        program: its name in messages.

    Returns:
        0; 2 after an error in options or input, which is written to standard error; 130 after Ctrl-C; 141 if the reader
        of the output has closed it.
    """
    write_plain_lines()
    try:
        try:
            work()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        send_to_nobody(sys.stdout)
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (OSError, ValueError) as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    return 0


def write_plain_lines() -> None:
    r"""Makes standard output UTF-8 with "\n" as the end of a line, on every system."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")


def send_to_nobody(stream: TextIO) -> None:
    """Redirects a stream that nobody reads any more to the null device: Python flushes it once more when it exits.

    Args:
        stream: has a file descriptor.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
