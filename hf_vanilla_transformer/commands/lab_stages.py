"""Build the Transformer part by part on sequences of zeros and ones, and see what each part is for."""

import time
from collections.abc import Sequence

from ..data.tokenized import usable_cores
from ..inference import run_as_filter
from ..inference.one_line_parser import OneLineParser
from ..lab.planning import format_table
from ..lab.stages import EXPERIMENTS, PLAIN, TOKENS, build, count_parameters, example_of, outcome_row, run_all

EPILOG = """
examples:
  vanilla-transformer lab-stages
  vanilla-transformer lab-stages --seeds 1 --examples

These are the experiments of Kämäräinen (2025), "Introduction to Sequence Modeling with Transformers" (arXiv
2502.19597), with its recipe: one layer a side, one head, d_model 8, pre-norm, Adam with 0.01 and a tenth of that after
1,000 epochs. Each stage adds a part to the one before it. A task is learned if every one of its outputs is exactly the
target. The text lists 0000 -> 1111 among its last tasks, but prints 0000 -> 0000 as a result: both are here.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs all experiments, and prints a table of what was claimed and what came of it.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    parser = OneLineParser(prog, description=__doc__, epilog=EPILOG)
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of each experiment (default: 5)")
    parser.add_argument("--examples", action="store_true", help="show what the first run makes of each source")
    parser.add_argument("--processes", type=int, default=usable_cores(), metavar="N", help="runs at a time, each on a "
        "core (default: all cores)")  # fmt: skip
    args = parser.parse_args(argv)
    for name in ("seeds", "processes"):
        if getattr(args, name) < 1:
            parser.error(f"`{name}`={getattr(args, name)} is not allowed; allowed: an integer of at least 1")

    def work() -> None:
        started = time.perf_counter()
        counts = [count_parameters(build(stage, 0)) for stage in (PLAIN, TOKENS)]
        print(f"parameters: {counts[0]:,} of the plain model, {counts[1]:,} with embeddings")
        rows, examples = [], []
        for experiment, outcomes in run_all(range(args.seeds), EXPERIMENTS, processes=args.processes):
            rows.append(outcome_row(experiment, outcomes))
            examples.append(f"{experiment.stage.name}, {experiment.task}: {example_of(experiment, outcomes)}")
        header = ["stage: the one before and", "task", "claim", "seeds that learned it", "median loss", "agrees"]
        print("\n".join(format_table(header, *rows)))
        if args.examples:
            print("\n".join(["", *examples]))
        print(f"{len(rows)} experiments with {args.seeds} seeds in {time.perf_counter() - started:.0f} s")

    return run_as_filter(work, parser.prog)
