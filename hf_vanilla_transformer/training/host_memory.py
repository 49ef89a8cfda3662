"""Memory of a training process on a CPU: what a step frees, the next step needs again."""

import ctypes
import sys

import torch

# Of glibc's malloc.h. mallopt takes an int.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LARGEST, _STEP = 2**31 - 1, 64 * 2**20


def keep_freed_memory() -> bool:
    """Makes glibc keep the memory that is freed, for this process, where training computes on a CPU.

    By default, glibc hands large blocks back to the kernel as soon as they are freed, and gets them again for the next
    tensor of that size: each page of it is then cleared and mapped anew, which takes as long as the arithmetic on it.
    The process holds the most memory that it ever needed, which it would need again in a moment.

    Returns:
        Whether it does so: not beside an accelerator, nor with another C library than glibc.
    """
    if torch.accelerator.is_available() or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # such as musl
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGEST), (_M_TOP_PAD, _STEP))
    done = [mallopt(name, value) for name, value in settings]
    return all(done)


__all__ = ["keep_freed_memory"]
