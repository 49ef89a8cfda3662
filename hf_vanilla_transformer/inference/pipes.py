"""What a program in a pipe owes its neighbours: one line for what is wrong, and no traceback when it is cut off."""

import io
import os
import sys
from collections.abc import Callable
from typing import TextIO

# What a shell says of programs that end by these signals.
INTERRUPTED = 128 + 2
PIPE_CLOSED = 128 + 13


def run_as_filter(work: Callable[[], None], program: str) -> int:
    r"""Does the work of a program, and turns whatever stops it into an exit status.

    Args:
        work: reads, and prints to standard output, which is UTF-8 with "\n" as the end of a line on every system.
        program: what to call it in messages.

    Returns:
        0; 2 after an error in what was given, which is said on standard error; 130 after Ctrl-C; 141 where whoever
        reads the output has gone.
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
    """Sends to nobody what is still to come where nobody reads any more: Python flushes once more on its way out.

    Args:
        stream: has a file descriptor.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
