"""Runs that are released together: finished, of one recipe, and with different seeds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..decoding_config import PAPER_DECODING
from .public_recipe import PublicPaths, public_arguments
from .results_schema import FORMAT, Run

_NEEDED = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "results.json", "curves.png")
_ALPHA = "gnmt_length_penalty"
# Arguments that name trained models. (The vocabulary of a checkpoint is its own: whoever has it has that.)
_MODELS = ("model_name_or_path", "init_encoder_from", "init_decoder_from", "distill_from")


@dataclass(frozen=True)
class FinishedRun:
    """What a run left.

    Args:
        folder: its `output_dir`.
        arguments: what it was told, with paths that others can use, and what was chosen for its decoding afterwards.
        metrics: what came of it.
        history: its log.
        environment: what it was computed on; None for runs that do not say so.
    """

    folder: Path
    arguments: dict[str, Any]
    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    environment: dict[str, Any] | None

    @property
    def seed(self) -> int:
        """The seed of weights, dropout and the order of batches."""
        return int(self.arguments["seed"])

    def described(self) -> Run:
        """Returns what results.json of the released checkpoint says about it."""
        return {
            "seed": self.seed,
            "updates": self.metrics["updates"],
            "minutes": wall_clock_minutes(self.history),
            "final_weights": self.metrics["final_weights"],
            "environment": self.environment,
        }


def read_runs(folders: Sequence[str | Path], paths: PublicPaths) -> list[FinishedRun]:
    """Reads the runs that are to be released together.

    Args:
        folders: their output.
        paths: what folders of this machine are called.

    Returns:
        The runs.

    Raises:
        FileNotFoundError: a run is not finished.
        ValueError: two runs differ in more than their seed, or do not differ in it; or as `public_arguments`.
    """
    runs = [_read_run(Path(folder), paths) for folder in folders]
    for run in runs[1:]:
        first = {name: value for name, value in runs[0].arguments.items() if name != "seed"}
        other = {name: value for name, value in run.arguments.items() if name != "seed"}
        for name in sorted(first.keys() | other.keys()):
            if first.get(name) != other.get(name):
                raise ValueError(
                    f"{runs[0].folder} and {run.folder} are not runs of one recipe: {name} is {_said(first, name)} and "
                    f"{_said(other, name)}; release them by themselves"
                )
    seeds = {run.seed: run.folder for run in reversed(runs)}
    for run in runs:
        if seeds[run.seed] != run.folder:
            raise ValueError(f"{seeds[run.seed]} and {run.folder} have one seed, {run.seed}; runs need different ones")
    return runs


def unshared_models(run: FinishedRun) -> list[str]:
    """Finds what a run began with, or learned from, that others do not have: models of this machine, not released.

    Args:
        run: one that has ended.

    Returns:
        Arguments, as `name=value`.
    """
    given = {name: run.arguments.get(name) or [] for name in _MODELS}
    places = [(name, place) for name, each in given.items() for place in ([each] if isinstance(each, str) else each)]
    return [f"{name}={place}" for name, place in places if Path(place).is_dir() and not _is_released(Path(place))]


def _is_released(folder: Path) -> bool:
    try:
        return json.loads((folder / "results.json").read_text(encoding="utf-8")).get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        return False


def wall_clock_minutes(history: Sequence[Mapping[str, Any]]) -> float:
    """Finds how long a run took by its log.

    Args:
        history: its log, in which each entry has the minutes of all starts; in logs of early versions, of which some
            are still there, they begin anew with each start.

    Returns:
        Minutes by the clock. Work that was lost to a kill, since the last checkpoint, is not in the log.
    """
    total = last = 0.0
    for entry in history:
        now = entry.get("minutes", last)
        total += now - last if now >= last else now
        last = now
    return total


def _read_run(folder: Path, paths: PublicPaths) -> FinishedRun:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no run {folder}")
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} is not the output of a finished run: it has no {' and no '.join(missing)}; a run that was "
            "stopped goes on with --resume_from_checkpoint last"
        )
    path = folder / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        parts = [results[name] for name in ("arguments", "metrics", "history")]
        arguments, metrics, history = parts
        metrics["updates"], metrics["final_weights"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not that of a run: {type(error).__name__}: {error}") from error
    decoding = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    public = public_arguments({**arguments, **_chosen_decoding(arguments, decoding)}, paths)
    return FinishedRun(folder, public, metrics, history, results.get("environment"))


def _chosen_decoding(arguments: Mapping[str, Any], decoding: Mapping[str, Any]) -> dict[str, Any]:
    """What `vanilla-transformer tune` has put into a generation_config, as arguments of a run."""
    chosen: dict[str, Any] = {}
    beams, alpha = decoding.get("num_beams") or 1, decoding.get(_ALPHA)
    is_new = arguments.get("model_name_or_path") is None
    if is_new and beams != (arguments.get("generation_num_beams", PAPER_DECODING["num_beams"]) or 1):
        chosen["generation_num_beams"] = beams
    # A new model has the paper's, unless the run says another; one that is trained further has that of its base.
    known = PAPER_DECODING[_ALPHA] if is_new and arguments.get(_ALPHA) is None else arguments.get(_ALPHA)
    if alpha is not None and alpha != known:
        chosen[_ALPHA] = alpha
    return chosen


def _said(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "the default"
