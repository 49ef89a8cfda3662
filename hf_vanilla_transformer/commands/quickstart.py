"""Train a small Transformer to read dates, in about a minute on two cores, without data and without network."""

import argparse
from pathlib import Path

from ..lab.quickstart import quickstart


def main() -> int:
    """Runs the quickstart; fails if the reloaded model is not the saved one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output_dir", default="runs/quickstart", help="where the model is saved (%(default)s)")
    parser.add_argument("--train_pairs", type=int, default=20000, help="dates to learn from (%(default)s)")
    parser.add_argument(
        "--recipe",
        default=Path(__file__).parents[1] / "recipes" / "quickstart.yaml",
        help="how it is trained (%(default)s)",
    )
    args = parser.parse_args()
    result = quickstart(args.recipe, args.output_dir, train_pairs=args.train_pairs)
    print(f"Done in {result.seconds:.0f} s: {result.exact_match:.1%} of {result.held_out} unseen dates exactly right.")
    print(f'Try it: python scripts/translate.py --model {args.output_dir} "the second of June, twenty thirty-five"')
    return 0 if result.reload_is_equal else 1
