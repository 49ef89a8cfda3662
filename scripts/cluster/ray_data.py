"""Translate text files with Ray Data: a translator for each worker, on as many machines as the Ray cluster has.

    python scripts/cluster/ray_data.py --model runs/en-de --output mono.de --workers 8 mono-1.en mono-2.en

Lines come out in the order of the files. Batches depend on the blocks of lines that Ray makes, and so may the choice
between two translations that are equally good up to rounding; that of `vanilla-transformer translate`, which several
processes and machines can share too, does not. `pip install "ray[data]"`.
"""

import argparse
import io
from typing import Any

import ray

from hf_vanilla_transformer.data.text_files import decode_lines
from hf_vanilla_transformer.inference import Translator, open_output


class Translate:
    """What a worker keeps between windows: a translator."""

    def __init__(self, model: str, engine: str, options: dict[str, Any]) -> None:
        self.translator, self.options = Translator(model, engine), options

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Adds translations to rows of lines."""
        return {"translation": list(self.translator.translate(rows["line"].tolist(), **self.options))}


def lines_of(file: dict[str, Any]) -> list[dict[str, str]]:
    """Reads lines as all of the package does: only a line feed ends one."""
    return [{"line": line} for line in decode_lines(io.BytesIO(file["bytes"]), file["path"], allow_nul=True)]


def main() -> None:
    """Reads the options, and writes the translations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="text, a sentence a line; a worker reads a file as a whole")
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cpus", type=float, default=1, help="of a worker, and its threads")
    parser.add_argument("--gpus", type=float, default=0, help="of a worker; 0.5 lets two workers share one")
    args = parser.parse_args()
    ray.init()  # starts a cluster of this machine, or connects to that of RAY_ADDRESS
    cpus = ray.cluster_resources().get("CPU", 0)
    if cpus < args.workers * args.cpus + 1:
        parser.error(f"one CPU has to read, and {args.workers} workers of {args.cpus:g} CPUs leave none of {cpus:g}")
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    window = 32 * args.batch_size  # what a translator sorts by length together
    lines = ray.data.read_binary_files(args.files, include_paths=True).flat_map(lines_of)
    translated = lines.repartition(target_num_rows_per_block=window).map_batches(
        Translate,
        fn_constructor_args=(args.model, args.engine, {"batch_size": args.batch_size}),
        batch_size=window,
        compute=ray.data.ActorPoolStrategy(size=args.workers),
        num_cpus=args.cpus,
        num_gpus=args.gpus,
    )
    with open_output(args.output) as output:
        output.writelines(f"{row['translation']}\n" for row in translated.iter_rows())


if __name__ == "__main__":
    main()
