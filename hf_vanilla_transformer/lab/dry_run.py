"""A run before the run: a few updates at full size on made-up text, to see whether it fits and how long it takes."""

import contextlib
import copy
import math
import shutil
import statistics
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..training import VanillaTransformerTrainingArguments, prepare, train
from ..training.checkpoints import list_checkpoints
from ..training.ranks import by_main_process, require_shared
from .benchmarks import peak_memory_of_this_process
from .planning import format_duration

FOLDER = "dry-run"
# Made-up sentences have as many words as those of WMT 2014 in English, and as unequal ones; at most 100.
_WORDS, _SPREAD, _MOST_WORDS = 26, 0.6, 100
# Words of text for each token of the vocabulary that is to be learned from it.
_WORDS_A_TOKEN = 16
_MOST_PAIRS, _VALIDATION_PAIRS = 200_000, 16


@dataclass(frozen=True)
class DryRun:
    """What a dry run took.

    Args:
        arguments: of the run that it stands for.
        parameters: of the model.
        vocabulary: tokens of the tokenizer.
        seconds: of each update, in order, with reading its batches.
        peak_memory: bytes, of the process or device that took most: on a GPU what torch reserved, else the resident
            memory of the process.
        checkpoint: bytes of one checkpoint; 0 where none is saved.
        devices: processes that trained together.
        was_stopped: whether a signal ended it before its last update.
    """

    arguments: VanillaTransformerTrainingArguments
    parameters: int
    vocabulary: int
    seconds: list[float]
    peak_memory: int
    checkpoint: int
    devices: int
    was_stopped: bool = False

    @property
    def seconds_per_update(self) -> float:
        """The median, without the first update, which starts everything."""
        return statistics.median(self.seconds[1:] or self.seconds)

    def lines(self) -> list[str]:
        """Says in four lines what was done, and what a run of this kind takes."""
        args = self.arguments
        batches = f"{args.max_tokens:,} tokens a side"
        if args.gradient_accumulation_steps > 1:
            batches = f"{args.gradient_accumulation_steps} x {batches}"
        if args.batching == "random":
            batches += " of random pairs"
        precision = "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32"
        lines = [
            f"Dry run: {len(self.seconds)} of {args.dry_run} updates on made-up text, {self.parameters:,} parameters, "
            f"{self.vocabulary:,} tokens, {batches} on each of {self.devices} {args.device.type} in {precision}"
            + ("; stopped" if self.was_stopped else ""),
            f"Time: {self.seconds_per_update:.3g} seconds per update"
            + (
                f", {format_duration(self.seconds_per_update * args.max_steps)} for {args.max_steps:,} updates"
                if args.max_steps > 0
                else ""
            ),
            f"Peak memory: {self.peak_memory / 1e9:.2f} GB"
            + (" on the fullest device" if args.device.type == "cuda" else " of the largest process"),
        ]
        if self.checkpoint:
            kept = f"{args.save_total_limit} of which are kept" if args.save_total_limit else "all of which are kept"
            lines.append(f"Disk: {self.checkpoint / 1e9:.2f} GB per checkpoint, {kept}")
        return lines


def dry_run(args: VanillaTransformerTrainingArguments) -> DryRun:
    """Does in few updates what a run does: learns a vocabulary, trains, evaluates, saves, averages.

    The text is made up. All is written to a folder inside `output_dir`, and removed in the end.

    Args:
        args: the run, whose `dry_run` says how many updates.

    Returns:
        What it took.

    Raises:
        ValueError: as `prepare`.
        OSError: likewise; the disk has no room, for one.
        FloatingPointError: a loss is not finite.
    """
    output_dir = Path(str(args.output_dir))
    folder, is_new = output_dir / FOLDER, not output_dir.exists()
    try:
        by_main_process(lambda: _make_text(folder, args))
        require_shared(folder)
        short = _shortened(args, folder)
        _forget_peak_memory(args.device)
        run = prepare(short)
        result = train(run, short)
        minutes = [0.0, *(entry["minutes"] for entry in result.history if "loss" in entry)]
        device = args.device
        peaks = gather_object([_peak_memory(device)]) if args.world_size > 1 else [_peak_memory(device)]
        checkpoint = by_main_process(lambda: _size_of_checkpoint(folder))
    finally:
        if args.process_index == 0:
            shutil.rmtree(folder, ignore_errors=True)
            if is_new:
                with contextlib.suppress(OSError):  # something else is in it now, such as the run itself
                    output_dir.rmdir()
    return DryRun(
        args,
        sum(weight.numel() for weight in run.model.parameters()),
        len(run.text.tokenizer),
        [60 * (after - before) for before, after in pairwise(minutes)],
        max(peaks),
        checkpoint,
        args.world_size,
        result.interrupted_by is not None,
    )


def _shortened(args: VanillaTransformerTrainingArguments, folder: Path) -> VanillaTransformerTrainingArguments:
    """The same run on made-up text, with one evaluation and one checkpoint at its end."""
    changes: dict[str, Any] = {
        "dry_run": 0,
        "output_dir": str(folder / "run"),
        "data_cache_dir": str(folder / "cache"),
        "train_data": [_corpus(folder, "train", args)],
        "validation_data": [_corpus(folder, "validation", args)] if args.validation_data else [],
        "max_steps": args.dry_run,
        "logging_strategy": IntervalStrategy.STEPS,
        "logging_steps": 1,
        "save_steps": args.dry_run,
        "resume_from_checkpoint": None,
        "overwrite_output_dir": False,
        "push_to_hub": False,
        "report_to": [],
        "disable_tqdm": True,
    }
    if args.validation_data and args.eval_strategy != IntervalStrategy.NO:
        changes |= {"eval_strategy": IntervalStrategy.STEPS, "eval_steps": args.dry_run}
    if args.save_strategy != SaveStrategy.NO:
        changes["save_strategy"] = SaveStrategy.STEPS
    short = copy.copy(args)
    for name, value in changes.items():
        setattr(short, name, value)
    return short


def _corpus(folder: Path, part: str, args: VanillaTransformerTrainingArguments) -> str:
    if args.objective != "translation":
        return str(folder / f"{part}.source")
    return f"source={folder / part}.source,target={folder / part}.target"


def _make_text(folder: Path, args: VanillaTransformerTrainingArguments) -> None:
    """Writes as much text as the updates read, and as a vocabulary of that size is learned from."""
    shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
    folder.mkdir(parents=True)
    tokens = args.dry_run * args.max_tokens * args.gradient_accumulation_steps * args.world_size
    words = max(tokens, _WORDS_A_TOKEN * args.vocab_size)
    pairs = min(math.ceil(words / _WORDS), _MOST_PAIRS)
    generator = np.random.default_rng(args.seed)
    for part, count in (("train", pairs), ("validation", _VALIDATION_PAIRS)):
        lengths = np.clip(generator.lognormal(math.log(_WORDS) - _SPREAD**2 / 2, _SPREAD, count), 1, _MOST_WORDS)
        lengths = lengths.round().astype(int)
        vocabulary = _made_up_words(np.random.default_rng(args.seed), args.vocab_size)
        for side in ("source", "target"):
            lines = _made_up_lines(generator, vocabulary, lengths)
            (folder / f"{part}.{side}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _made_up_words(generator: np.random.Generator, count: int) -> np.ndarray:
    """Draws words of 2 to 9 letters."""
    letters = generator.integers(ord("a"), ord("z") + 1, (count, 9))
    lengths = generator.integers(2, 10, count)
    return np.array(["".join(map(chr, row[:length])) for row, length in zip(letters, lengths, strict=True)])


def _made_up_lines(generator: np.random.Generator, vocabulary: np.ndarray, lengths: np.ndarray) -> list[str]:
    """Draws sentences whose words are as unequally frequent as those of a language."""
    frequencies = 1 / np.arange(10, len(vocabulary) + 10)
    drawn = generator.choice(vocabulary, lengths.sum(), p=frequencies / frequencies.sum())
    return [" ".join(words) for words in np.split(drawn, np.cumsum(lengths)[:-1])]


def _size_of_checkpoint(folder: Path) -> int:
    saved = list_checkpoints(folder / "run")
    return sum(path.stat().st_size for path in saved[-1].rglob("*") if path.is_file()) if saved else 0


def _forget_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory(device: torch.device) -> int:
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_memory_of_this_process()


__all__ = ["DryRun", "dry_run"]
