"""Compare trained recurrent models with the Transformer: training, minutes to a loss, BLEU by length, and claims."""

from collections.abc import Sequence

from ..evaluation import read_test_set
from ..inference.one_line_parser import OneLineParser
from ..inference.pipes import run_as_filter
from ..lab.recurrent_table import BOUNDS, recurrent_tables
from ..lab.run_list import read_run_list
from .shared_options import add_batch_tokens_option, add_device_options

EXAMPLES = """
examples:
  vanilla-transformer queue model_cards/experiments/recurrent.yaml --threads 1
  vanilla-transformer lab-recurrent model_cards/experiments/recurrent.yaml \\
    --test_set source=data/multi30k/val.en,target=data/multi30k/val.de

Runs of the list that have not ended are left out. Each model translates the test set with its own settings. The runs
need max_minutes and evaluations on the way. What the texts claim is compared with BLEU, by paired bootstrap resampling.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads a list of runs, translates with those that have ended, and prints four tables.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    parser = OneLineParser(prog, description=__doc__, epilog=EXAMPLES)
    parser.add_argument("list", metavar="LIST.yaml", help="the runs, as `vanilla-transformer queue` takes them")
    parser.add_argument("--test_set", metavar="NAME", required=True, help="what to translate: as of `evaluate`")
    parser.add_argument("--by_length", metavar="WORDS", type=int, nargs="+", default=list(BOUNDS),
        help=f"most words of a source in each group (default: {' '.join(map(str, BOUNDS))})")  # fmt: skip
    parser.add_argument("--loss", type=float, nargs="+", metavar="NATS", help="validation losses to which minutes are "
        "taken (default: the lowest of each model)")  # fmt: skip
    add_batch_tokens_option(parser)
    add_device_options(parser)
    args = parser.parse_args(argv)

    def work() -> None:
        data = read_test_set(args.test_set)
        options = {name: getattr(args, name) for name in ("device", "dtype", "batch_tokens")}
        print(recurrent_tables(read_run_list(args.list), data, args.by_length, args.loss, **options))

    return run_as_filter(work, parser.prog)
