"""What a program in a pipe owes its neighbours: one line for what is wrong, and no traceback when it is cut off."""

import os
import sys
from collections.abc import Callable

# What a shell says of programs that end by these signals.
_INTERRUPTED = 128 + 2
_PIPE_CLOSED = 128 + 13


def run_as_filter(work: Callable[[], None], program: str) -> int:
    """Does the work of a program, and turns whatever stops it into an exit status.

    Args:
        work: reads, and prints to standard output.
        program: what to call it in messages.

    Returns:
        0; 2 after an error in what was given, which is said on standard error; 130 after Ctrl-C; 141 where whoever
        reads the output has gone.
    """
    try:
        work()
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more on its way out; then into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except (OSError, ValueError) as error:
        sys.stdout.flush()
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    return 0
