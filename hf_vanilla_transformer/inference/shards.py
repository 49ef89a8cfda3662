"""A file translated in shards: by several processes, and again and again until all of it is done.

Beside the output lies a folder, `OUTPUT.shards`, with one sealed folder for each shard that is done, and one for the
plan, which names all that the translations depend on. Each appears whole, by a rename, or not at all; so processes need
no connection, and one that is killed loses the shard that it was at. What it leaves is removed when all is joined.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from transformers.utils import logging

from ..data.seals import find_damage, sync, write_seal
from ..data.text_files import OnError, hash_file, read_lines, require_text_file
from .translation import windows

logger = logging.get_logger(__name__)

# Lines of a shard: a minute or so of a small model on one core, and hundreds of shards of millions of lines.
SHARD_LINES = 10_000

_FOLDER_END = ".shards"
_PLAN, _PLAN_FILE, _LINES = "plan", "plan.json", "lines.txt"
# What is not finished yet, folders of shards or of the plan, and outputs; and shards that are being removed.
_WRITING, _JOINING, _DAMAGED = ".writing-", ".joining-", ".damaged-"


@dataclass(frozen=True)
class Shard:
    """Some consecutive lines of the input.

    Args:
        number: of the shard, from 0.
        first: number of its first line, from 0.
        lines: them.
    """

    number: int
    first: int
    lines: list[str]

    def digest(self) -> str:
        """Identifies the lines by their content: 16 hexadecimal digits of a SHA-256."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ShardedFile:
    """How a file is divided: by its lines and the options of batches alone, and not by who translates it.

    Shards are cut between windows (`windows`), so that all batches are those of the file that is translated at once.

    Args:
        path: of the text; plain or gzip.
        shard_lines: lines of a shard, at least; it ends with the window that brings it to so many.
        batching: `batch_size`, `batch_tokens` and `read_ahead`, as `windows` takes them.
        on_error: as in `read_lines`.
    """

    path: Path
    shard_lines: int
    batching: dict[str, Any]
    on_error: OnError | None = None

    def __post_init__(self) -> None:
        require_text_file(self.path)
        if not self.path.is_file():
            raise ValueError(f"{self.path} can be read only once, and shards need a file that can be read again")
        if self.shard_lines < 1:
            raise ValueError(f"`shard_lines`={self.shard_lines} is not allowed; allowed: an integer of at least 1")

    def shards(self) -> Iterator[Shard]:
        """Reads the shards, one in memory at a time.

        Yields:
            Each, in order.

        Raises:
            OSError: the file cannot be read.
            ValueError: as `read_lines`.
        """
        number, first, lines = 0, 0, []
        for window in windows(read_lines(self.path, True, self.on_error), **self.batching):
            lines += window
            if len(lines) >= self.shard_lines:
                yield Shard(number, first, lines)
                number, first, lines = number + 1, first + len(lines), []
        if lines:
            yield Shard(number, first, lines)

    def content(self) -> dict[str, Any]:
        """Reads the whole file, which finds lines that cannot be used before any is translated.

        Returns:
            `input` (the SHA-256 of the file), `lines` and `shards` (how many there are), and `digests` of all shards:
            part of a plan.

        Raises:
            OSError: the file cannot be read.
            ValueError: as `read_lines`.
        """
        counts, digests = [], []
        for shard in self.shards():
            counts.append(len(shard.lines))
            digests.append(shard.digest())
        return {"input": hash_file(self.path), "lines": sum(counts), "shards": len(counts), "digests": digests}

    def shards_as_planned(self, content: dict[str, Any]) -> Iterator[Shard]:
        """Reads the shards again, and sees that they are still those of a plan.

        Args:
            content: what `content` returned.

        Yields:
            Each, in order.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file has changed since; or as `read_lines`.
        """
        digests = iter(content["digests"])
        for shard in self.shards():
            if next(digests, None) != shard.digest():
                raise ValueError(f"{self._changed()}: from line {shard.first + 1} on, there is other text than before")
            yield shard
        if next(digests, None) is not None:
            raise ValueError(f"{self._changed()}: it is shorter than the {content['lines']:,} lines that it had")

    def _changed(self) -> str:
        return f"{self.path} has changed while it was translated; what is sealed is of the text before"


class ShardFolder:
    """The shards of an output.

    Args:
        output: the file that they will be.
        plan: all that translations depend on, ready for JSON; `shards` is how many there are.

    Attributes:
        path: of the folder.

    Raises:
        OSError: the folder cannot be written.
        ValueError: the folder was begun by another plan, or its plan is damaged; the message names what differs.
    """

    def __init__(self, output: str | Path, plan: dict[str, Any]) -> None:
        self._output, self._count = Path(output).resolve(), plan["shards"]
        # In the names of its shards: who began by another plan, and still runs, cannot write among them.
        self._key = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:8]
        if self._output.exists() and not self._output.is_file():
            raise ValueError(f"{output} is no regular file, and shards are joined to one")
        self.path = self._output.with_name(self._output.name + _FOLDER_END)
        self.path.mkdir(exist_ok=True)
        if not (self.path / _PLAN).exists():
            self._publish(_PLAN, _PLAN_FILE, lambda file: file.writelines([json.dumps(plan, indent=1), "\n"]))
        if (damage := find_damage(self.path / _PLAN)) is not None:
            raise ValueError(f"{self.path / _PLAN} is damaged: {damage}; to begin anew, remove {self.path}")
        begun = json.loads((self.path / _PLAN / _PLAN_FILE).read_text(encoding="utf-8"))
        if differences := list(_differences(begun, json.loads(json.dumps(plan)))):
            raise ValueError(
                f"{self.path} was begun with another input, model or option: {'; '.join(differences)}. Do as before, "
                f"or remove that folder to begin anew"
            )

    def is_done(self, number: int) -> bool:
        """Whether a shard is there and is as it was written; one that is damaged is taken away.

        Args:
            number: of the shard.
        """
        shard = self.path / self._name(number)
        if not shard.exists():
            return False
        if (damage := _find_damage(shard)) is None:
            return True
        away = self.path / f"{_DAMAGED}{uuid.uuid4().hex}"
        try:
            os.rename(shard, away)
        except FileNotFoundError:  # another process did
            return False
        logger.warning(f"{shard} is damaged and translated again: {damage}")
        shutil.rmtree(away, ignore_errors=True)
        return False

    def damaged(self) -> list[int]:
        """The shards that are damaged, whosever they are, if all are there; they are taken away."""
        return [number for number in range(self._count) if not self.is_done(number)] if self._is_complete() else []

    def write(self, number: int, write: Callable[[TextIO], int]) -> int:
        """Writes a shard, and seals it.

        Args:
            number: of the shard.
            write: is given the open file; returns an exit status, as `write_lines` does.

        Returns:
            The status. Unless it is 0, there is no shard.

        Raises:
            OSError: it cannot be written; or what `write` raises.
        """
        return self._publish(self._name(number), _LINES, write)

    def join(self) -> bool:
        """Makes the output of the shards, if all are there. Processes that do so at the same time do no harm.

        What others are still writing then is a duplicate, or was left by processes that were killed: it is removed.

        Returns:
            Whether all were there. A shard that another process takes away, that process translates again.

        Raises:
            OSError: the output cannot be written; or a shard is damaged, and the message says what to do.
        """
        if not self._is_complete():
            return False
        joining = self.path / f"{_JOINING}{uuid.uuid4().hex}"
        joining.touch()
        try:
            with open(joining, "wb") as file:
                for name in self._names():
                    self._copy(self.path / name, file)
            sync(joining)
            if self._output.exists():
                shutil.copymode(self._output, joining)
            os.replace(joining, self._output)
        except OSError as error:
            if not joining.exists() and (self.path / _PLAN).exists():
                return True  # another process has joined all meanwhile, and removed this
            if isinstance(error, FileNotFoundError):  # another process has taken a damaged shard away
                return False
            raise
        finally:
            joining.unlink(missing_ok=True)
        sync(self._output.parent)
        self._remove_unfinished()
        return True

    def _copy(self, shard: Path, file: BinaryIO) -> None:
        """Appends a shard to a file."""
        if (damage := _find_damage(shard)) is not None:
            kind = OSError if shard.exists() else FileNotFoundError
            raise kind(f"{shard} cannot be joined: {damage}; the same command translates it again")
        with open(shard / _LINES, "rb") as part:
            shutil.copyfileobj(part, file)

    def _remove_unfinished(self) -> None:
        for left in (each for each in self.path.iterdir() if each.name.startswith((_WRITING, _JOINING, _DAMAGED))):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

    def _name(self, number: int) -> str:
        return f"shard-{number:06}-{self._key}"

    def _names(self) -> list[str]:
        return [self._name(number) for number in range(self._count)]

    def _is_complete(self) -> bool:
        # A listing: a network file system may still remember that a shard was not there when it was last asked for.
        return {*self._names()} <= {*os.listdir(self.path)}

    def _publish(self, name: str, file_name: str, write: Callable[[TextIO], int | None]) -> int:
        """Writes a folder with one file out of sight, seals it and renames it; one that is there already stays."""
        writing = self.path / f"{_WRITING}{name}-{uuid.uuid4().hex}"
        writing.mkdir()
        try:
            with open(writing / file_name, "w", encoding="utf-8", newline="\n") as file:
                status = write(file)
            if status:
                return status
            write_seal(writing)
            os.rename(writing, self.path / name)
        except OSError:
            # Else another process was faster: the name is taken; or all are joined by now, and `writing` was removed.
            if not (self.path / name).exists():
                raise
        finally:
            shutil.rmtree(writing, ignore_errors=True)
        sync(self.path)
        return 0


def _find_damage(shard: Path) -> str | None:
    """As `find_damage`, where another process may take the shard away meanwhile."""
    try:
        return find_damage(shard)
    except FileNotFoundError:
        return "it was taken away"


def _differences(begun: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What differs, by name."""
    for name in sorted({*begun, *now}):
        before, after = begun.get(name), now.get(name)
        if before != after:
            yield f"{name} was {_shortened(before)} and is {_shortened(after)}"


def _shortened(value: Any) -> str:
    words = "not given" if value is None else json.dumps(value, ensure_ascii=False)
    return words if len(words) <= 40 else f"{words[:12]}..."


__all__ = ["SHARD_LINES", "Shard", "ShardFolder", "ShardedFile"]
