"""Translate a column of a dataset by `datasets.map`, in several processes of one machine.

    python scripts/cluster/map_dataset.py --model runs/en-de --file mono.en --output mono.de --workers 2

A dataset of the Hub is translated by the same `dataset.map(translate_rows, batched=True, ...)`. Batches depend on the
number of processes, and so may the choice between two translations that are equally good up to rounding; that of
`vanilla-transformer translate` does not.
"""

import argparse
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from datasets import Dataset

from hf_vanilla_transformer.data.text_files import hash_file, read_lines
from hf_vanilla_transformer.inference import Translator, open_output


@cache
def translator_of(model: str, engine: str, threads: int) -> Translator:
    """One translator for each process, loaded when it has its first rows."""
    torch.set_num_threads(threads)  # which engines take theirs from
    return Translator(model, engine)


def translate_rows(rows: dict[str, Any], model: str, engine: str, threads: int, batch_size: int) -> dict[str, Any]:
    """Adds translations to rows of lines."""
    return {"translation": list(translator_of(model, engine, threads).translate(rows["line"], batch_size=batch_size))}


def rows_of(path: str, content: str) -> Iterator[dict[str, str]]:
    """Reads lines as all of the package does. The cache of `datasets` knows a file by its content, which is given."""
    yield from ({"line": line} for line in read_lines(path, allow_nul=True))


def main() -> None:
    """Reads the options, and writes the translations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", required=True, help="text, a sentence a line")
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    if next(read_lines(args.file, allow_nul=True), None) is None:  # `datasets` makes no dataset of nothing
        with open_output(args.output):
            return
    # The workers share the cores, or OMP_NUM_THREADS of them.
    threads = max(1, torch.get_num_threads() // args.workers)
    dataset = Dataset.from_generator(rows_of, gen_kwargs={"path": args.file, "content": hash_file(args.file)})
    translated = dataset.map(
        translate_rows,
        batched=True,
        batch_size=32 * args.batch_size,  # what a translator sorts by length together
        num_proc=args.workers,
        fn_kwargs={"model": args.model, "engine": args.engine, "threads": threads, "batch_size": args.batch_size},
        load_from_cache_file=False,  # the model may have been trained again since
    )
    with open_output(args.output) as output:
        output.writelines(f"{row['translation']}\n" for row in translated)


if __name__ == "__main__":
    main()
