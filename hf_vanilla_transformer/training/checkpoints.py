"""Checkpoints that appear whole or not at all: sealed with a list of what they hold, checked before use."""

import os
import re
import shutil
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..data.seals import find_damage, sync, write_seal

logger = logging.get_logger(__name__)

# Folders in which a checkpoint is written, or taken away, out of the sight of whoever looks for checkpoints.
_WRITING, _REMOVING = ".writing", ".removing"
# In a checkpoint that there is only because the run was stopped there: superfluous as soon as the run has gone on.
IN_BETWEEN = "stopped-here"
# In a checkpoint that was written before an evaluation of the same update; it is made when the run is resumed there.
EVALUATION_DUE = "evaluation-due"
# Copies of checkpoints that are on their way to the Hub.
UPLOADING = ".uploading"


def writing_folder(output_dir: str | Path) -> Path:
    """Where checkpoints of a run are written before they are whole.

    Args:
        output_dir: folder of the run.

    Returns:
        A hidden folder inside it, so that a rename is all that is left to do.
    """
    return Path(output_dir) / _WRITING


def publish_checkpoint(written: Path, output_dir: str | Path) -> Path:
    """Seals a checkpoint that is written, makes sure that it is on the disk, and gives it its name in one step.

    Args:
        written: folder inside `writing_folder(output_dir)`, named as the checkpoint will be.
        output_dir: folder of the run.

    Returns:
        The checkpoint.
    """
    write_seal(written)
    checkpoint = Path(output_dir) / written.name
    is_replaced = checkpoint.exists()  # a run that was resumed from an older one, or from this one, comes by here again
    if is_replaced:
        _hide(checkpoint)
    os.rename(written, checkpoint)
    if is_replaced:  # after the rename, since it takes longer: at most an instant is without this checkpoint
        shutil.rmtree(checkpoint.parent / _REMOVING, ignore_errors=True)
    written.parent.rmdir()
    sync(checkpoint.parent)
    return checkpoint


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """Finds the checkpoints of a run.

    Args:
        output_dir: folder of the run; need not exist.

    Returns:
        Folders named `checkpoint-STEP`, by step, damaged ones too.
    """
    pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
    found = [(pattern.fullmatch(path.name), path) for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match and path.is_dir())]


def last_good_checkpoint(output_dir: str | Path) -> Path | None:
    """Finds what a run can go on from, and says which newer checkpoints are damaged.

    Args:
        output_dir: folder of the run; need not exist.

    Returns:
        The newest checkpoint that is as it was written; None if there is none.
    """
    for checkpoint in reversed(list_checkpoints(output_dir)):
        damage = find_damage(checkpoint)
        if damage is None:
            return checkpoint
        logger.warning(f"{checkpoint} is damaged and passed over: {damage}")
    return None


def rotate_checkpoints(published: Path, keep: int | None, best: str | None = None) -> None:
    """Removes the oldest checkpoints of a run, and those at which it was stopped and resumed.

    The latter do not count: a run that was stopped has the checkpoints of one that was not, and the same average. Nor
    do those of later updates, which a run that is resumed leaves in its folder where they are damaged.

    Args:
        published: the checkpoint that has just been written; it stays.
        keep: how many of the newest that do count stay, at least 1; None for all.
        best: one that stays on top of these, if it is not among them.
    """
    checkpoints = list_checkpoints(published.parent)
    earlier = checkpoints[: [checkpoint.name for checkpoint in checkpoints].index(published.name)]
    passed = [checkpoint for checkpoint in earlier if is_in_between(checkpoint)]
    counted = [checkpoint for checkpoint in earlier if not is_in_between(checkpoint)]
    others = len(counted) if keep is None else keep if is_in_between(published) else keep - 1
    oldest = counted[: max(len(counted) - others, 0)]
    kept = None if best is None else Path(best).resolve()
    for checkpoint in [*passed, *(each for each in oldest if each.resolve() != kept)]:
        remove_checkpoint(checkpoint)


def is_in_between(checkpoint: Path) -> bool:
    """Returns whether there is a checkpoint only because the run was stopped there.

    Args:
        checkpoint: its folder.
    """
    return (checkpoint / IN_BETWEEN).exists()


def remove_checkpoint(checkpoint: Path) -> None:
    """Takes a checkpoint away: at once out of sight, then off the disk.

    Args:
        checkpoint: its folder.
    """
    shutil.rmtree(_hide(checkpoint), ignore_errors=True)


def _hide(checkpoint: Path) -> Path:
    """Takes a checkpoint out of sight, and returns the folder to be deleted."""
    removing = checkpoint.parent / _REMOVING
    shutil.rmtree(removing, ignore_errors=True)
    removing.mkdir()
    os.rename(checkpoint, removing / checkpoint.name)
    return removing


def clear_leftovers(output_dir: str | Path) -> None:
    """Clears what a killed run left half-written, half-deleted or half-uploaded.

    What is whole, and has no other of its name beside it, is put back first: the run may have been killed where one
    checkpoint was to take the place of another, or where its name was all that it had not yet.

    Args:
        output_dir: folder of a run that nobody else is training; need not exist.
    """
    for leftover in (_WRITING, _REMOVING):  # the newer one first
        for left in list_checkpoints(Path(output_dir) / leftover):
            checkpoint = Path(output_dir) / left.name
            if not checkpoint.exists() and find_damage(left) is None:
                os.rename(left, checkpoint)
                logger.warning(
                    f"{checkpoint} is put back: the run was killed while it was written, replaced or removed"
                )
    for leftover in (_WRITING, _REMOVING, UPLOADING):
        shutil.rmtree(Path(output_dir) / leftover, ignore_errors=True)


def prepare_folder(output_dir: str | Path, checkpoint_bytes: int = 0, checkpoints: int = 0) -> None:
    """Makes the folder of a run, and finds out whether it can be written.

    Args:
        output_dir: folder of the run.
        checkpoint_bytes: about what one checkpoint takes.
        checkpoints: how many there will be at a time, one more than stay.

    Raises:
        OSError: it cannot be made or written, or the disk has no room; the message says how much is missing.
    """
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"output_dir={output_dir} is a file; name a folder, or a name that is free")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.write_bytes(b"can be written")
        probe.unlink()
    except OSError as error:
        raise OSError(f"output_dir={output_dir} cannot be written: {error}") from error
    present = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed, free = checkpoint_bytes * checkpoints - present, shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"output_dir={output_dir} has {free / 1e9:.2f} GB left, but {checkpoints} checkpoints of "
            f"{checkpoint_bytes / 1e9:.2f} GB need {needed / 1e9:.2f} GB; make room, or lower save_total_limit"
        )
