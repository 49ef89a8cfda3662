"""Average the weights of the last checkpoints of a run (section 6.1: 5 of base, 20 of big) into one model."""

import shlex
from collections.abc import Sequence

from ..inference.one_line_parser import OneLineParser
from ..inference.pipes import run_as_filter
from ..interop.output_folder import OF_MODELS, output_folder
from ..training import average_checkpoints, last_checkpoints

EXAMPLE = """
example:
  vanilla-transformer average runs/en-de --last 5 --output_dir runs/en-de-average

Runs average their checkpoints by themselves in the end, unless final_weights says otherwise.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads which checkpoints, averages them, and says where the model is.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    parser = OneLineParser(prog, description=__doc__, epilog=EXAMPLE)
    parser.add_argument("run", help="folder of a run, with its checkpoints")
    parser.add_argument("--last", type=int, default=5, metavar="N", help="how many checkpoints (default: %(default)s)")
    parser.add_argument(
        "--by", choices=("step", "epoch"), default="step", help="any, or those at the end of an epoch (default: step)"
    )
    output_dir = "where the averaged model is written; must be free or empty"
    parser.add_argument("--output_dir", required=True, metavar="DIR", help=output_dir)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier average in --output_dir")
    args = parser.parse_args(argv)

    def work() -> None:
        checkpoints = last_checkpoints(args.run, args.last, args.by)
        with output_folder(args.output_dir, args.overwrite, source=args.run, own=OF_MODELS) as folder:
            average_checkpoints(checkpoints, folder)
        count = "1 checkpoint" if len(checkpoints) == 1 else f"{len(checkpoints)} checkpoints"
        print(f"Averaged {count}: {', '.join(path.name for path in checkpoints)}")
        print(f'Try it: vanilla-transformer translate --model {shlex.quote(args.output_dir)} "..."')

    return run_as_filter(work, parser.prog)
