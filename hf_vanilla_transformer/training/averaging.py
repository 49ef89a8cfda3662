"""§6.1 averaged checkpoints: the mean of the last ones of a run."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import SAFE_WEIGHTS_NAME, logging

from .checkpoints import find_damage, is_in_between, list_checkpoints
from .resuming import RunIdentity

logger = logging.get_logger(__name__)

# What a model needs besides its weights: everything else in a checkpoint belongs to the run that wrote it.
_MODEL_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def average_checkpoints(checkpoints: Sequence[str | Path], output_dir: str | Path) -> dict[str, torch.Tensor]:
    """§6.1 "averaging the last 5 checkpoints": writes a model whose weights are the mean of those of several.

    Args:
        checkpoints: folders with one model each, of one shape.
        output_dir: where the average is written, with config and tokenizer of the last checkpoint.

    Returns:
        The averaged weights by name.

    Raises:
        ValueError: there is none, they are of different runs, or their weights differ in names or shapes; the message
            says which and where.
    """
    weights = average_weights(checkpoints)
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for name in _MODEL_FILES:
        if (Path(checkpoints[-1]) / name).exists():
            shutil.copyfile(Path(checkpoints[-1]) / name, folder / name)
    save_file(weights, folder / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})
    return weights


def average_weights(checkpoints: Sequence[str | Path]) -> dict[str, torch.Tensor]:
    """Computes the mean of the weights of several checkpoints, in float64 and in memory for two of them.

    Args:
        checkpoints: folders with a `model.safetensors` each.

    Returns:
        The mean by name, in the type of the last checkpoint.

    Raises:
        ValueError: as `average_checkpoints`.
    """
    if not checkpoints:
        raise ValueError("there is no checkpoint to average")
    runs = [RunIdentity.read(Path(checkpoint)) for checkpoint in checkpoints]
    if len({run.run_id if run else None for run in runs}) > 1:
        names = ", ".join(str(checkpoint) for checkpoint in checkpoints)
        raise ValueError(f"these checkpoints are not all of one run, so their average means nothing: {names}")
    sums: dict[str, torch.Tensor] = {}
    for checkpoint in checkpoints:
        last = load_file(Path(checkpoint) / SAFE_WEIGHTS_NAME)
        for name in sums.keys() ^ last.keys() if sums else ():
            raise ValueError(f"{checkpoint} and {checkpoints[0]} do not both have {name}")
        for name, weight in last.items():
            if name in sums and sums[name].shape != weight.shape:
                raise ValueError(f"{checkpoint}: {name} is {tuple(weight.shape)}, before {tuple(sums[name].shape)}")
            sums[name] = sums[name] + weight.double() if name in sums else weight.double()
    return {name: (total / len(checkpoints)).to(last[name].dtype) for name, total in sums.items()}


def last_checkpoints(output_dir: str | Path, count: int, by: Literal["step", "epoch"] = "step") -> list[Path]:
    """Finds the last checkpoints of a run, without those at which it was stopped and would have had none otherwise.

    Args:
        output_dir: folder of the run.
        count: how many.
        by: "step" takes any, "epoch" those that were written at the end of an epoch.

    Returns:
        Folders, the oldest first. They are fewer, with a warning, if there are no more, or if one of them is damaged:
        an older one in its place, such as an old best one, would not be one of the last.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there is no checkpoint, or none are asked for.
    """
    if count < 1:
        raise ValueError(f"{count} checkpoints have no average; take at least 1")
    all_of_them = list_checkpoints(output_dir)
    found = [path for path in all_of_them if not is_in_between(path)]
    found = [path for path in found if by == "step" or _epoch(path).is_integer()]
    checkpoints = []
    for checkpoint in found[-count:]:
        damage = find_damage(checkpoint)
        if damage is None:
            checkpoints.append(checkpoint)
        else:
            logger.warning(f"{checkpoint} is damaged and left out of the average: {damage}")
    if not checkpoints:
        if not Path(output_dir).is_dir():
            raise FileNotFoundError(f"there is no folder {output_dir}; name that of a run, which has checkpoints")
        kind = " that was written at the end of an epoch" if by == "epoch" else ""
        only = "; those at which the run was stopped do not count" if any(map(is_in_between, all_of_them)) else ""
        raise ValueError(f"{output_dir} has no checkpoint{kind} to average{only}")
    if len(checkpoints) < count:
        logger.warning(
            f"{output_dir} has {len(checkpoints)} of the {count} checkpoints to average; only these are averaged"
        )
    return checkpoints


def _epoch(checkpoint: Path) -> float:
    try:
        state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
        return float(state["epoch"])
    except (OSError, ValueError, LookupError, TypeError):
        return math.nan  # at the end of no epoch that is known
