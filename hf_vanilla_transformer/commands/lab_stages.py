"""Build the Transformer part by part on sequences of zeros and ones, and see what each part is for."""

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from ..data.tokenized import usable_cores
from ..inference import open_output, run_as_filter
from ..inference.one_line_parser import OneLineParser
from ..lab.stage_runs import run_all
from ..lab.stage_table import agreement, as_data, report
from ..lab.stages import EXPERIMENTS, STAGES
from .shared_options import first_repeat

EPILOG = """
examples:
  vanilla-transformer lab-stages
  vanilla-transformer lab-stages --stages plain tokens --seeds 1
  vanilla-transformer lab-stages --output stages.md

These are the experiments of Kämäräinen (2025), "Introduction to Sequence Modeling with Transformers" (arXiv
2502.19597), on the model that translates elsewhere in this package. Each stage adds a part to the one before it:

  plain      numbers go straight into encoder and decoder. Of 0000 -> 0000 and 1111 -> 1111, the mean is left: 0.5.
  tokens     each token has a vector, and a head says which comes next. Training shows the decoder the whole target,
             so it learns to look ahead, where there is nothing yet when it decodes: it does not know when to stop.
  causal     a position of the target sees only those before it, in training too. Now 1 -> 000 can be learned. But
             attention takes its keys in any order: it cannot tell 0101 from 1010.
  positions  sinusoids are added to the vectors, and order can be learned.
  padding    short sequences are filled up and the filling is masked: one model learns all tasks, in one batch.

The recipe is the text's: one layer a side, one head, d_model 8 (plain: 1), d_ff 8, pre-norm, dropout 0.1, Adam with
0.01 and a tenth of that after 1,000 updates, 300 to 2,000 updates on 100 samples (200 for all tasks). A task is learned
if each output is exactly its target. The text lists 0000 -> 1111 among its last tasks, but prints 0000 -> 0000 as a
result: both are here. The loss is that of the last update; the table has the median of the seeds.

--output writes the table as Markdown (FILE.md), or every output and loss of every seed as JSON (FILE.json). It is
written as FILE.partial and renamed when it is complete: after an error or Ctrl-C, an earlier FILE stays as it was.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the experiments, and prints a table of what was claimed and what came of it.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    args = parse_arguments(argv, prog)

    def work() -> None:
        started = time.perf_counter()
        seeds = range(args.seeds)
        experiments = [each for each in EXPERIMENTS if each.stage.name in args.stages]
        with ExitStack() as stack:
            # Opened first: a file that cannot be written is to be found before the long work begins.
            file = stack.enter_context(open_output(args.output)) if args.output else None
            with tqdm(total=len(experiments) * len(seeds), unit=" runs", disable=None) as bar:
                results = list(run_all(seeds, experiments, args.processes, bar.update))
            table = report(results, seeds)
            if file is not None:
                is_table = Path(args.output).suffix == ".md"
                file.write(table if is_table else json.dumps(as_data(results, seeds), indent=1))
                file.write("\n")
        print(f"{table}\n")
        agreeing = sum(agreement(*each) == "yes" for each in results)
        runs = f"{len(results) * len(seeds)} runs in {time.perf_counter() - started:.0f} s"
        print(f"{agreeing} of {len(results)} claims hold with all of {len(seeds)} seeds; {runs}")

    return run_as_filter(work, args.prog)


def parse_arguments(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Reads the options, and refuses those that make no sense.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The options, and `prog`.
    """
    parser = OneLineParser(prog, description=__doc__, epilog=EPILOG)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE",
        help=f"of {', '.join(STAGES)} (default: all)")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of each experiment (default: 5)")
    parser.add_argument("--output", metavar="FILE", help="where to write the table (.md) or everything (.json)")
    parser.add_argument("--processes", type=int, default=usable_cores(), metavar="N", help="runs at a time, each on a "
        "core (default: all cores)")  # fmt: skip
    args = parser.parse_args(argv, argparse.Namespace(prog=parser.prog))
    for name in ("seeds", "processes"):
        if getattr(args, name) < 1:
            parser.error(f"`{name}`={getattr(args, name)} is not allowed; allowed: an integer of at least 1")
    if (stage := first_repeat(args.stages)) is not None:
        parser.error(f"--stages has {stage} twice")
    if args.output and Path(args.output).suffix not in (".md", ".json"):
        parser.error(f"--output {args.output} is neither a .md nor a .json, which are what it can be written as")
    return args
