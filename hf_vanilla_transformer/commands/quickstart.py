"""Train a small Transformer to read dates, in about a minute on two cores, without data and without network."""

import shlex
from collections.abc import Sequence

from ..inference.one_line_parser import OneLineParser
from ..inference.pipes import run_as_filter
from ..lab.quickstart import quickstart

EXAMPLE = """
examples:
  vanilla-transformer quickstart
  vanilla-transformer quickstart --output_dir runs/dates --train_pairs 5000
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the quickstart; fails if the reloaded model is not the saved one.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `run_as_filter`; 1 if the reloaded model is another than the saved one.
    """
    parser = OneLineParser(prog, description=__doc__, epilog=EXAMPLE)
    parser.add_argument(
        "--output_dir", default="runs/quickstart", metavar="DIR", help="where the model is saved (default: %(default)s)"
    )
    parser.add_argument(
        "--train_pairs", type=int, default=20000, metavar="N", help="dates to learn from (default: %(default)s)"
    )
    parser.add_argument(
        "--recipe", default="quickstart", help="how it is trained: a recipe by name or file (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    is_equal = True

    def work() -> None:
        nonlocal is_equal
        result = quickstart(args.recipe, args.output_dir, train_pairs=args.train_pairs)
        is_equal = result.reload_is_equal
        exact = f"{result.exact_match:.1%} of {result.held_out} unseen dates exactly right"
        print(f"Done in {result.seconds:.0f} s: {exact}.")
        folder = shlex.quote(args.output_dir)
        print(f'Try it: vanilla-transformer translate --model {folder} "the second of June, twenty thirty-five"')

    return run_as_filter(work, parser.prog) or (0 if is_equal else 1)
