"""Measure the vanishing gradient: what reaches the first position in an RNN, a GRU, an LSTM and a Transformer."""

from collections.abc import Sequence

from ..inference.one_line_parser import OneLineParser
from ..inference.pipes import run_as_filter
from ..lab.charts import new_chart
from ..lab.gradients import LENGTHS, gradients_table, measure_gradients, plot_gradients

EXAMPLES = """
examples:
  vanilla-transformer lab-gradients
  vanilla-transformer lab-gradients --lengths 10 100 1000 --d_model 32 --seeds 3 --plot gradients.png

All networks have one layer and their usual random initial weights. The number is the norm of the gradient of the output
at the last position with respect to the input at the first, divided by that with respect to the input at the last. A
minute on one core; a picture needs matplotlib (pip install 'hf-vanilla-transformer[lab]').
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads what to measure, prints the table, and draws it if asked to.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    parser = OneLineParser(prog, description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS), metavar="N",
        help=f"positions of a sequence (default: {' '.join(map(str, LENGTHS))})")  # fmt: skip
    parser.add_argument("--d_model", type=int, default=64, metavar="N", help="width (default: %(default)s)")
    parser.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="networks of each kind (default: %(default)s)"
    )
    parser.add_argument("--plot", metavar="FILE", help="where to draw it, .png or .svg")
    args = parser.parse_args(argv)

    def work() -> None:
        if args.plot is not None:
            new_chart(1, 1)  # what is not installed is to be said before the long work
        found = measure_gradients(args.lengths, args.d_model, args.seeds)
        if args.plot is not None:
            plot_gradients(found, args.plot)
        print(gradients_table(found))

    return run_as_filter(work, parser.prog)
