"""What a program in a pipe owes its neighbours: one line for what is wrong, and no traceback when it is cut off."""

import io
import os
import sys
from collections.abc import Callable

# What a shell says of programs that end by these signals.
_INTERRUPTED = 128 + 2
_PIPE_CLOSED = 128 + 13


def run_as_filter(work: Callable[[], None], program: str) -> int:
    r"""Does the work of a program, and turns whatever stops it into an exit status.

    Args:
        work: reads, and prints to standard output, which is UTF-8 with "\n" as the end of a line on every system.
        program: what to call it in messages.

    Returns:
        0; 2 after an error in what was given, which is said on standard error; 130 after Ctrl-C; 141 where whoever
        reads the output has gone.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    try:
        try:
            work()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more on its way out; then into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except (OSError, ValueError) as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    return 0
