"""One run at a time trains in a folder: a lock that ends with the process that holds it, however that ends."""

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from accelerate import PartialState
from transformers.utils import logging

from .checkpoints import clear_leftovers
from .ranks import by_main_process

logger = logging.get_logger(__name__)

# In the folder of a run while a process trains there; says which one.
TRAINING_LOCK = ".training-lock"
# Seconds after which a lock is not that of somebody who only looks.
_PATIENCE = 0.5
# What file systems say that have no locks, some of those on a network.
_UNKNOWN_TO_IT = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
# The folders that this process has locked, each with the descriptor of its lock.
_HELD: dict[Path, int | None] = {}


def lock_file(path: Path, patience: float) -> int | None:
    """Locks a file, which is made if there is none.

    Whoever has the descriptor open holds the lock. A process that inherits it does too. (filelock cannot hand a lock
    on.)

    Args:
        path: of the file; its folder is there.
        patience: seconds to try for.

    Returns:
        The descriptor, to be closed; None if another has the lock.

    Raises:
        OSError: the file cannot be made, or its file system has no locks.
    """
    deadline = time.monotonic() + patience
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had the lock may have removed the file meanwhile; then this locks nothing.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), path.stat()):
                    return lock
        except BlockingIOError:
            pass
        except OSError:
            os.close(lock)
            raise
        os.close(lock)
        if time.monotonic() > deadline:
            return None
        time.sleep(patience / 10)


def is_file_locked(path: Path) -> bool:
    """Returns whether a process has locked a file; looking changes nothing.

    Args:
        path: of the file; need not exist.
    """
    try:
        lock = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


@contextlib.contextmanager
def training_folder(output_dir: str | Path) -> Iterator[None]:
    """Keeps the runs of other processes out of a folder, and clears what a killed one left there half-written.

    The processes of one run hold one lock together, by their first; blocks of one process may be nested.

    Args:
        output_dir: folder of the run; made if it is not there.

    Raises:
        ValueError: another process has it; the message says which, and what to do.
        OSError: it cannot be written.
    """
    folder = Path(output_dir).resolve()
    is_outermost = by_main_process(lambda: _take(folder))
    try:
        yield
    finally:
        if is_outermost and PartialState().is_main_process and folder in _HELD:
            lock = _HELD.pop(folder)
            with contextlib.suppress(OSError):  # what is left of it locks nothing
                (folder / TRAINING_LOCK).unlink()  # before others can have it
            if lock is not None:
                os.close(lock)


def _take(folder: Path) -> bool:
    """Locks a folder, unless this process has; returns whether it has now."""
    if folder in _HELD:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    path, lock = folder / TRAINING_LOCK, None
    try:
        lock = lock_file(path, _PATIENCE)
        if lock is None:
            raise ValueError(
                f"output_dir={folder} is in use: {_holder(path)} trains there. Wait until it ends, or stop it with "
                "SIGTERM, which has it save first, and go on with --resume_from_checkpoint last; or choose another "
                "output_dir"
            )
        with contextlib.suppress(OSError):  # who has it is said for information only
            os.ftruncate(lock, 0)
            who = f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now():%F %T},"
            os.pwrite(lock, who.encode(), 0)
    except OSError as error:
        if error.errno not in _UNKNOWN_TO_IT:
            raise
        logger.warning(
            f"output_dir={folder} is on a file system without locks ({error.strerror}): see to it yourself that no "
            "other process trains there"
        )
    _HELD[folder] = lock
    clear_leftovers(folder)
    return True


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace") or "another process"
    return "another process"


def _forget() -> None:
    """Lets go of all locks in a child, such as a worker of a loader, which may outlive a process that is killed."""
    for lock in _HELD.values():
        if lock is not None:
            os.close(lock)
    _HELD.clear()


os.register_at_fork(after_in_child=_forget)


__all__ = ["TRAINING_LOCK", "is_file_locked", "lock_file", "training_folder"]
