"""Work through a list of runs in one YAML file: each in a process of its own, resumed, and noted when it has ended.

Runs that have ended are skipped. Ctrl-C or SIGTERM stops the run, which saves; the same command resumes. Several queues
may work through one list, such as one for each core or GPU: none trains a run that another is training. A run that
diverges has come to a result, and is not tried again.
"""

import signal
from collections.abc import Sequence
from functools import partial

from ..inference.one_line_parser import OneLineParser
from ..inference.pipes import INTERRUPTED, run_as_filter
from ..lab.claim_plot import plot_claims
from ..lab.claim_results import claims_table
from ..lab.curve_plot import plot_curves
from ..lab.queue import run_states, table_of_results, work_through
from ..lab.run_list import RunList, read_run_list
from ..lab.run_process import ProcessOptions

EXAMPLES = """
examples:
  vanilla-transformer queue runs.yaml
  vanilla-transformer queue runs.yaml --list
  vanilla-transformer queue runs.yaml --table
  vanilla-transformer queue runs.yaml --plot claims.png
  vanilla-transformer queue runs.yaml --curves minutes.png
  for core in 0 1; do taskset -c $core vanilla-transformer queue runs.yaml --threads 1 --nice 10 & done; wait

a list:
  results: dropout.jsonl               # one line for each run that ends; default: runs.results.jsonl beside runs.yaml
  folder: runs                         # where runs without an output_dir have their folders; default: runs
  defaults:                            # options of all runs, over those of their recipe
    recipe: multi30k-en-de-tiny        # by name or file
    num_train_epochs: 20
  runs:                                # options of a run override all others
    - name: base                       # trains in runs/base, unless output_dir says otherwise
    - name: dropout                    # config_overrides replaces that of the recipe, as on the command line
      config_overrides: {norm_position: pre, dropout: 0.3}
      seeds: [1, 2, 3]                 # three runs: dropout-seed1, dropout-seed2, dropout-seed3
      claim:                           # what somebody says of it: a second table puts it beside what the runs found
        source: its paper, Table 2     # who says it, and where
        against: base                  # the entry that it is compared with; default: the first
        perplexity: better             # or worse, same; or a number, if `against` has one too
        bleu: better                   # of loss, perplexity, bleu, chrf, ter, wer, per: those that it says

Each run leaves in its folder, besides model and results, recipe.yaml, which says everything about it, and train.log.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads a list of runs, and works through it or says how far it is.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `run_as_filter`; 1 if a run has failed, 130 if SIGINT stopped the queue.
    """
    return run_queue(argv, prog, __doc__, EXAMPLES)


def run_queue(
    argv: Sequence[str] | None, prog: str | None, description: str | None, epilog: str, default: str | None = None
) -> int:
    """Works through a list of runs as a command line says.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.
        description: what `--help` begins with.
        epilog: what it ends with.
        default: the list where none is named; None if one has to be.

    Returns:
        The exit status, as of `main`.
    """
    parser = OneLineParser(prog, description=description, epilog=epilog)
    optional = "" if default is None else f" (default: {default})"
    parser.add_argument(
        "list", metavar="LIST.yaml", nargs=None if default is None else "?", default=default, help=f"the runs{optional}"
    )
    show = parser.add_mutually_exclusive_group()
    show.add_argument("--list", dest="states", action="store_true", help="only print how far each run is")
    show.add_argument("--table", action="store_true", help="only print results, and claims, as tables of Markdown")
    show.add_argument("--plot", metavar="FILE", help="only draw claims beside what was found: .png, .svg or .pdf")
    show.add_argument(
        "--curves", metavar="FILE", help="only draw validation scores over minutes, also of runs on their way; likewise"
    )
    parser.add_argument("--nice", type=int, metavar="N", help="lower the priority of the runs by so much (default: 0)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads with which a run computes (default: torch's)")
    args = parser.parse_args(argv)
    if (args.states or args.table or args.plot or args.curves) and (args.nice is not None or args.threads is not None):
        parser.error("--nice and --threads have no effect where nothing is trained; leave them out")
    status = 0

    def work() -> None:
        nonlocal status
        runs = read_run_list(args.list)
        if args.table:
            print(_tables(runs) or f"no run has ended: there is none in {runs.results}")
            return
        if path := args.plot or args.curves:
            (plot_claims if args.plot else plot_curves)(runs, path)
            print(f"drawn: {path}")
            return
        if args.states:
            states = run_states(runs)
            width = max(map(len, states))
            print("\n".join(f"{name:{width}}  {state.describe()}" for name, state in states.items()))
            return
        options = ProcessOptions(args.nice or 0, args.threads)
        outcome = work_through(runs, options, partial(print, flush=True))
        if tables := _tables(runs):
            print(f"\n{tables}\n")
        print(outcome.summary())
        if outcome.failed:
            status = 1
        elif outcome.stopped_by == signal.SIGINT:
            status = INTERRUPTED

    return run_as_filter(work, parser.prog) or status


def _tables(runs: RunList) -> str:
    """Results, and below them claims; nothing where no run has ended."""
    results = table_of_results(runs)
    return "\n\n".join(filter(None, [results, results and claims_table(runs)]))
