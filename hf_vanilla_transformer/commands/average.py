"""Average the weights of the last checkpoints of a run (section 6.1: 5 of base, 20 of big) into one model."""

import argparse
import sys

from ..training import average_checkpoints, last_checkpoints


def main() -> int:
    """Reads which checkpoints, averages them, and says where the model is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="folder of a run, with its checkpoints")
    parser.add_argument("--last", type=int, default=5, help="how many checkpoints (%(default)s)")
    parser.add_argument("--by", choices=("step", "epoch"), default="step", help="any, or those at the end of an epoch")
    parser.add_argument("--output_dir", required=True, help="where the averaged model is written")
    args = parser.parse_args()
    try:
        checkpoints = last_checkpoints(args.run, args.last, args.by)
        average_checkpoints(checkpoints, args.output_dir)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    print(f"Averaged {len(checkpoints)} checkpoints: {', '.join(path.name for path in checkpoints)}")
    print(f'Try it: python scripts/translate.py --model {args.output_dir} "..."')
    return 0
