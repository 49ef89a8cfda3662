"""Put trained variants of the model side by side: scores, speed of training and decoding, and what decoding keeps.

Variants are fields of the configuration: norms, gated feed-forward, positions, grouped keys, attention patterns, linear
attention. Train them with `vanilla-transformer queue LIST.yaml`; runs that have not ended are left out.
"""

from collections.abc import Sequence

from ..evaluation import read_test_set
from ..inference.one_line_parser import OneLineParser
from ..inference.pipes import run_as_filter
from ..lab.family import family_table
from ..lab.run_list import read_run_list
from .shared_options import add_device_options

LIST = "model_cards/experiments/variants.yaml"
EXAMPLES = """
examples:
  for core in 0 1; do taskset -c $core vanilla-transformer queue model_cards/experiments/variants.yaml --threads 1 & done; wait
  vanilla-transformer lab-variants --test_set source=data/multi30k/val.en,target=data/multi30k/val.de

Close other programs first: speeds are measured now, of all models in turns. Learning is a forward and a backward pass
over a batch of 128 pairs. Decoding is of translations of equal length, so that it does not depend on what was learned.
"""  # noqa: E501  # a command is one line


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads a list of runs, translates with those that have ended, and prints a table.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    parser = OneLineParser(prog, description=__doc__, epilog=EXAMPLES)
    parser.add_argument("list", metavar="LIST.yaml", nargs="?", default=LIST, help="the runs (default: %(default)s)")
    parser.add_argument(
        "--test_set", metavar="NAME", required=True, help="pairs to translate and learn from: as of `evaluate`"
    )
    parser.add_argument(
        "--sentences", metavar="N", type=int, default=256, help="how many to translate (default: %(default)s)"
    )
    parser.add_argument("--turns", metavar="N", type=int, default=3, help="of each model (default: %(default)s)")
    add_device_options(parser, dtype=False)
    args = parser.parse_args(argv)
    for name in ("sentences", "turns"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)} is less than 1")

    def work() -> None:
        test_set = read_test_set(args.test_set)
        print(family_table(read_run_list(args.list), test_set, args.sentences, args.turns, args.device))

    return run_as_filter(work, parser.prog)
