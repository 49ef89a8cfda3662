"""Length generalisation on SCAN: split it by the number of actions, and see which lengths models have right.

Models with absolute positions are said to have few outputs right that are longer than those they saw; one with relative
positions, which repeats one layer, all of them from a cutoff of 26 on (Csordás et al., 2021).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ..inference import open_output, run_as_filter
from ..inference.one_line_parser import OneLineParser
from ..lab.run_list import read_run_list
from ..lab.scan import CUTOFFS, accuracy_table, draw_accuracy, read_pairs, write_length_splits
from ..lab.scan_results import accuracy_panels, scan_table, score_model, score_runs
from .shared_options import add_batch_tokens_option, add_device_options

EXAMPLES = """
examples:
  vanilla-transformer lab-scan split tasks.txt.gz --output_dir data/scan
  vanilla-transformer queue model_cards/experiments/scan-length.yaml
  vanilla-transformer lab-scan score model_cards/experiments/scan-length.yaml --plot scan.png
  vanilla-transformer lab-scan score runs/rotary runs/none --data data/scan/cutoff-26/test.tsv --plot scan-26.png

A list of runs makes a table of kinds of positions and cutoffs, with means and standard deviations over seeds, beside
the published figures; runs that have not ended are left out. Models make a table by the number of actions.

The file of SCAN is tasks.txt of https://github.com/brendenlake/SCAN.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Splits SCAN, or scores models on a part of it.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    parser = OneLineParser(prog, description=__doc__, epilog=EXAMPLES)
    actions = parser.add_subparsers(dest="action", required=True, metavar="split | score")
    split = actions.add_parser("split", help="write train, validation and test set of each cutoff")
    split.add_argument("tasks", metavar="FILE", help="tasks.txt or tasks.txt.gz of SCAN")
    split.add_argument("--output_dir", required=True, metavar="FOLDER", help="where to write; free or empty")
    split.add_argument("--cutoffs", type=int, nargs="+", default=CUTOFFS, metavar="N", help="the most actions of a "
        f"pair to learn from (default: {' '.join(map(str, CUTOFFS))})")  # fmt: skip
    split.add_argument("--overwrite", action="store_true", help="replace files that are there")
    score = actions.add_parser("score", help="exact matches of a list of runs, or of models by the number of actions")
    score.add_argument("models", nargs="+", metavar="LIST.yaml|MODEL", help="a list of runs, or folders of models")
    score.add_argument("--data", metavar="FILE", help="for models: a test.tsv of `split`; a list says which it is")
    score.add_argument("--output", metavar="FILE", help="also write the counts as JSON")
    score.add_argument("--plot", metavar="FILE", help="also draw them: .png or .svg")
    add_batch_tokens_option(score)
    add_device_options(score)
    args = parser.parse_args(argv)
    if args.action == "score":
        lists = [each for each in args.models if each.endswith((".yaml", ".yml"))]
        if lists and (len(args.models) > 1 or args.data is not None):
            parser.error(f"{lists[0]} says by itself which models and data to score; give it alone, without --data")
        if not lists and args.data is None:
            parser.error("models need --data: a test.tsv of `split`")
    return run_as_filter(lambda: _split(args) if args.action == "split" else _score(args), parser.prog)


def _split(args: argparse.Namespace) -> None:
    for each in write_length_splits(args.tasks, args.output_dir, args.cutoffs, args.overwrite):
        print(
            f"{args.output_dir}/cutoff-{each.cutoff}: {len(each.train):,} pairs to learn from, "
            f"{len(each.validation):,} for validation, {len(each.test):,} longer ones"
        )


def _score(args: argparse.Namespace) -> None:
    options = (args.device, args.dtype, args.batch_tokens)
    if args.data is None:
        runs, waiting = score_runs(read_run_list(args.models[0]), *options)
        found, panels, table = [each.accuracy for each in runs], accuracy_panels(runs), scan_table(runs)
        if waiting:
            print(f"left out, not ended: {', '.join(waiting)}", file=sys.stderr)
    else:
        pairs = read_pairs(args.data)
        found = [score_model(Path(folder).name, folder, pairs, *options) for folder in args.models]
        panels, table = {str(args.data): found}, accuracy_table(found)
    print(table)
    if args.output:
        fields = ("total", "by_length", "ended_early")
        counts = {each.name: {field: getattr(each, field) for field in fields} for each in found}
        with open_output(args.output) as file:
            file.write(json.dumps(counts, indent=1) + "\n")
    if args.plot:
        draw_accuracy(panels, args.plot)
