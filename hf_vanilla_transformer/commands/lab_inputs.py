"""Try sources that are not tokens: forecast series beside their noise, and read handwritten digits as words."""

import time
from collections.abc import Sequence
from contextlib import ExitStack

from tqdm import tqdm

from ..inference import open_output, run_as_filter
from ..inference.one_line_parser import OneLineParser
from ..lab.digits import load_digits
from ..lab.inputs import forecast_table, reading_table

TABLES = {"forecast": forecast_table, "digits": reading_table}

EPILOG = """
examples:
  vanilla-transformer lab-inputs
  vanilla-transformer lab-inputs --tasks forecast --seeds 1
  vanilla-transformer lab-inputs --steps 300 --output inputs.md

  forecast  hourly series with waves of a day and a week, a trend, and normal noise. From two weeks, the next day is
            predicted. No forecast can be nearer than the noise is large; "as a week ago" is 1.64 times as far.
  digits    two or three of scikit-learn's handwritten digits side by side, to be spelled as "three seven". Whoever
            reads a share of p of the digits rightly is to read p^n of the images of n digits.

Both train models of 0.2 million parameters, on one core in about five minutes each with two seeds. The digits need
scikit-learn (pip install 'hf-vanilla-transformer[lab]').
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Trains and tests, and prints a table for each task.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    parser = OneLineParser(prog, description=__doc__, epilog=EPILOG)
    parser.add_argument("--tasks", nargs="+", choices=TABLES, default=list(TABLES), help="which (default: both)")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="models for each (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=None, metavar="N", help="updates of each (default: 3000)")
    parser.add_argument("--examples", type=int, default=None, metavar="N", help="to learn from (default: 40000)")
    parser.add_argument("--test_examples", type=int, default=None, metavar="N", help="to test on (default: 1000)")
    parser.add_argument("--output", metavar="FILE", help="also write the tables, as Markdown")
    args = parser.parse_args(argv)
    given = {name: getattr(args, name) for name in ("steps", "examples", "test_examples")}
    sizes = {name: value for name, value in given.items() if value is not None}

    def work() -> None:
        for name, value in {"seeds": args.seeds, **sizes}.items():
            if value < 1:
                raise ValueError(f"{name}={value} is less than 1")
        if "digits" in args.tasks:
            load_digits()  # what is not installed is to be said before the long work
        with ExitStack() as stack:
            file = stack.enter_context(open_output(args.output)) if args.output else None
            with tqdm(total=args.seeds * len(args.tasks), unit=" models", disable=None) as bar:
                started = time.perf_counter()
                tables = [TABLES[task](range(args.seeds), step=bar.update, **sizes) for task in args.tasks]
                minutes = (time.perf_counter() - started) / 60
            text = "\n\n".join([*tables, f"{args.seeds * len(args.tasks)} models in {minutes:.1f} minutes."])
            print(text)
            if file is not None:
                file.write(text + "\n")

    return run_as_filter(work, parser.prog)
