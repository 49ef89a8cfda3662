"""Measure Table 1 of the paper, and efficient attention: time and memory of layers over the length."""

import argparse
import platform
from collections.abc import Sequence

import torch
from tqdm import tqdm

from ..inference import run_as_filter
from ..inference.one_line_parser import OneLineParser
from ..interop.output_folder import output_folder
from ..lab.charts import new_chart
from ..lab.complexity import LENGTHS, measure_complexity, measured_steps
from ..lab.complexity_layers import LAYER_TYPES, TABLE_1
from ..lab.complexity_report import complexity_summary, write_complexity_report
from ..lab.feature_errors import check_numbers, measure_feature_errors, write_feature_report

EXAMPLES = """
examples:
  vanilla-transformer lab-complexity --output_dir complexity
  vanilla-transformer lab-complexity --output_dir complexity --d_model 128 --num_heads 4 --lengths 64 256 1024
  vanilla-transformer lab-complexity --output_dir long --layers sdpa windowed linear causal \\
      --lengths 512 1024 2048 4096 8192 --random_features 16 32 64 128 256 512

Writes fitted exponents beside those of the paper (complexity.md), a chart (complexity.png) and all numbers
(complexity.json) into a folder that appears when all are complete. Layers run on the CPU, on one sequence in float32.

With --random_features also how far attention by so many random features is from softmax's (features.md, .png, .json).

Close other programs first: timings are noisy. At length 4096, eager attention with 8 heads needs 2 GiB of memory.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads the options, measures, and writes what was measured.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    args = parse_arguments(argv, prog)

    def work() -> None:
        new_chart(1, 1)  # what is not installed is to be said before the long work
        if args.random_features:
            check_numbers(args.random_features)
        with output_folder(args.output_dir, args.overwrite) as folder:
            layers = [name for name, layer in LAYER_TYPES.items() if layer.option in args.layers]
            with tqdm(total=measured_steps(args.lengths, args.memory, layers), unit=" cells", disable=None) as bar:
                measured = measure_complexity(
                    args.d_model, args.num_heads, args.lengths, args.repeats, args.memory, layers, bar.update
                )
            settings = {"repeats": args.repeats, "torch": torch.__version__, "machine": platform.machine()}
            write_complexity_report(measured, settings, folder)
            if args.random_features:
                write_feature_report(measure_feature_errors(args.random_features), folder)
        print(f"{complexity_summary(measured)}; all in {args.output_dir}/complexity.md")

    return run_as_filter(work, args.prog)


def parse_arguments(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Reads the options.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The options, and `prog`.
    """
    parser = OneLineParser(prog=prog, description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--output_dir", metavar="FOLDER", required=True, help="where to write; free or empty")
    parser.add_argument("--overwrite", action="store_true", help="replace files of an earlier measurement there")
    parser.add_argument("--d_model", type=int, default=512, help="width of all layers (default: %(default)s)")
    parser.add_argument("--num_heads", type=int, default=8, help="of the attentions (default: %(default)s)")
    parser.add_argument("--lengths", type=int, nargs="+", metavar="N", default=list(LENGTHS), help="of the sequence, "
        f"ascending, three or more (default: {' '.join(map(str, LENGTHS))})")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=7, help="measured steps of each layer (default: %(default)s)")
    parser.add_argument("--layers", nargs="+", metavar="LAYER", choices=[each.option for each in LAYER_TYPES.values()],
        default=[LAYER_TYPES[name].option for name in TABLE_1], help="what to measure: eager, sdpa, gru, convolution, "
        "which are the default; linear and causal, which is linear attention in encoder and decoder; windowed, which "
        "is compiled first, for minutes, and has no backward pass on a CPU")  # fmt: skip
    parser.add_argument("--random_features", type=int, nargs="+", metavar="M", default=[], help="measure also the "
        "error of so many random features beside softmax attention, two numbers or more")  # fmt: skip
    parser.add_argument("--no_memory", dest="memory", action="store_false", help="measure times only")
    return parser.parse_args(argv, argparse.Namespace(prog=parser.prog))
