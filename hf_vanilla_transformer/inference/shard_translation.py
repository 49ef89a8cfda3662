"""What each of several processes does about a file: it translates its shards, and the last to finish joins all."""

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..translation_batches import TorchEngine
from .checkpoint_fingerprints import checkpoint_fingerprint
from .engine_ctranslate2 import CTranslate2Engine
from .files import translated_lines, write_lines
from .processes import Process
from .shards import ShardedFile, ShardFolder
from .translator import Translator


def translate_shards(
    translator: Translator,
    models: Sequence[str | Path],
    file: ShardedFile,
    output: str | Path,
    process: Process,
    seed: int | None = None,
    quiet: bool = False,
    **options: Any,
) -> int:
    """Translates the shards of a file whose turn it is, and joins all shards if none is missing then.

    Shard N is the work of process N modulo their count. What is sealed already is not translated again. The output has
    the bytes of the file that is translated at once, whatever the number of processes, if they have the same number of
    threads; only draws at random (`do_sample`) depend on where shards begin.

    Args:
        translator: of the models.
        models: folders or names, as `load_translator` takes them.
        file: what to translate.
        output: the file to write; shards are in a folder beside it.
        process: this one.
        seed: of draws at random, for each shard another that follows from it; None for none.
        quiet: whether to say nothing on standard error.
        **options: of `translated_lines`.

    Returns:
        The exit status, as of `write_lines`.

    Raises:
        OSError: a file cannot be read or written; or all shards are there, but cannot be joined, or this is the only
            process, and some are missing. The message says what to do.
        ValueError: an option is not allowed, a line cannot be used, the file changes meanwhile, or the shards that are
            there were begun otherwise.
    """
    start, who = time.perf_counter(), f"process {process.rank} of {process.count}: " if process.count > 1 else ""

    def say(words: str) -> None:
        if not quiet:
            print(f"{who}{words}", file=sys.stderr, flush=True)

    # Of no lines, it refuses options that are not allowed.
    list(translated_lines(translator, [], **options))
    plan = make_plan(translator, models, file, seed=seed, **options)
    folder = ShardFolder(output, plan)
    count, sealed, translated = plan["shards"], 0, 0

    def translate(is_wanted: Callable[[int], bool]) -> int:
        nonlocal sealed, translated
        for shard in file.shards_as_planned(plan):
            if not is_wanted(shard.number):
                continue
            if folder.is_done(shard.number):
                sealed += 1
                continue
            if seed is not None:
                torch.manual_seed(_seed_of_shard(seed, shard.number))
            begun, lines = time.perf_counter(), translated_lines(translator, shard.lines, first=shard.first, **options)
            if status := folder.write(shard.number, partial(write_lines, lines, quiet=True)):
                say("interrupted; the same command goes on after the last sealed shard")
                return status
            translated += len(shard.lines)
            rate = len(shard.lines) / (time.perf_counter() - begun)
            say(f"shard {shard.number + 1} of {count}: {len(shard.lines):,} lines ({rate:,.1f} sentences/s)")
        return 0

    status = translate(lambda number: number % process.count == process.rank)
    # The last to finish looks through all: a shard that was damaged after its process had seen it is nobody's.
    if not status and process.count > 1 and (damaged := folder.damaged()):
        status = translate(damaged.__contains__)
    if status:
        return status
    if sealed:
        say(f"{sealed} shard{'' if sealed == 1 else 's'} had been translated before")
    seconds = time.perf_counter() - start
    say(f"{translated:,} sentences translated in {seconds:,.1f} s ({translated / seconds:,.1f} sentences/s)")
    if folder.join():
        say(f"{output} has all {plan['lines']:,} lines; {folder.path} may be removed")
    elif process.count == 1:
        raise OSError(f"shards have been removed from {folder.path} meanwhile; the same command translates them again")
    else:
        say(
            f"the process that is the last to finish joins the shards to {output}; if one fails or it is not there in "
            "the end, the same command by one process alone does what is missing"
        )
    return 0


def make_plan(
    translator: Translator, models: Sequence[str | Path], file: ShardedFile, **options: Any
) -> dict[str, Any]:
    """Names all that the bytes of translations depend on, so that shards made otherwise are never joined.

    Args:
        translator: of the models.
        models: as in `translate_shards`.
        file: what to translate; it is read once.
        **options: of the translation.

    Returns:
        The plan, ready for JSON: the content of the file and of the models, the engine, where and in how many threads
        it computes, versions, and options.

    Raises:
        OSError: as `translate_shards`.
        ValueError: likewise.
    """
    of_translation = {name: value for name, value in options.items() if name != "seed"}
    engine = translator.engine_for(of_translation)
    plan = {**file.content(), "shard_lines": file.shard_lines, **options, "engine": engine.name}
    device = "cpu"
    if isinstance(engine, TorchEngine):
        device = engine.model.device.type
        if device == "cuda":
            plan["GPU"] = torch.cuda.get_device_name(engine.model.device)
        plan |= {"device": device, "dtype": str(engine.model.dtype).removeprefix("torch.")}
    elif isinstance(engine, CTranslate2Engine):
        plan |= {"quantization": engine.quantization, "ctranslate2": version("ctranslate2")}
    if device == "cpu":
        # Sums may be rounded otherwise by other numbers of threads; CTranslate2 divides batches among them.
        plan["threads (OMP_NUM_THREADS)"] = torch.get_num_threads()
    plan["models"] = [checkpoint_fingerprint(model) for model in models]
    versions = {name: version(name) for name in ("transformers", "tokenizers")}
    return plan | {"torch": torch.__version__, **versions, "hf_vanilla_transformer": __version__}


def _seed_of_shard(seed: int, number: int) -> int:
    """A seed whose draws have nothing to do with those of other shards or seeds."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:7], "big")


__all__ = ["make_plan", "translate_shards"]
