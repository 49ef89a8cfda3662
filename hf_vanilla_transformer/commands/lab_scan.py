"""Length generalisation on SCAN: split it by the number of actions, and see which lengths a model has right.

A model with absolute positions is said to learn nothing of outputs that are longer than those it saw; one with
relative positions to have all of them right from a cutoff of 26 on (Csordás et al., 2021).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..data.text_files import read_lines
from ..inference import load_translator, open_output, run_as_filter, translate
from ..inference.one_line_parser import OneLineParser
from ..lab.scan import CUTOFFS, accuracy_by_length, accuracy_table, draw_accuracy, write_length_splits
from .shared_options import add_batch_tokens_option, add_device_options

EXAMPLES = """
examples:
  vanilla-transformer lab-scan split tasks.txt.gz --output_dir data/scan
  vanilla-transformer queue model_cards/experiments/scan-length.yaml
  vanilla-transformer lab-scan score runs/scan-26-rotary runs/scan-26-none --data data/scan/cutoff-26/test.tsv \\
      --plot scan-26.png

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
    score = actions.add_parser("score", help="exact matches of models by the number of actions")
    score.add_argument("models", nargs="+", metavar="MODEL", help="folders of models")
    score.add_argument("--data", required=True, metavar="FILE", help="a test.tsv of `split`")
    score.add_argument("--output", metavar="FILE", help="also write the counts as JSON")
    score.add_argument("--plot", metavar="FILE", help="also draw them: .png or .svg")
    add_batch_tokens_option(score)
    add_device_options(score)
    args = parser.parse_args(argv)
    return run_as_filter(lambda: _split(args) if args.action == "split" else _score(args), parser.prog)


def _split(args: argparse.Namespace) -> None:
    for each in write_length_splits(args.tasks, args.output_dir, args.cutoffs, args.overwrite):
        print(
            f"{args.output_dir}/cutoff-{each.cutoff}: {len(each.train):,} pairs to learn from, "
            f"{len(each.validation):,} for validation, {len(each.test):,} longer ones"
        )


def _score(args: argparse.Namespace) -> None:
    pairs = [line.split("\t") for line in read_lines(args.data)]
    damaged = next((number for number, pair in enumerate(pairs, 1) if len(pair) != 2), None)
    if damaged is not None:
        raise ValueError(f"{args.data}:{damaged}: there has to be one tab, between command and actions")
    commands, actions = zip(*pairs, strict=True)
    found = []
    for folder in args.models:
        model, tokenizer = load_translator([folder], args.device, args.dtype)
        # Greedy, as those who are compared with decode.
        outputs = list(translate(model, tokenizer, list(commands), batch_tokens=args.batch_tokens, num_beams=1))
        found.append(accuracy_by_length(Path(folder).name, outputs, actions))
    print(accuracy_table(found))
    if args.output:
        counts = {each.name: {"total": each.total, "by_length": each.by_length} for each in found}
        with open_output(args.output) as file:
            file.write(json.dumps(counts, indent=1) + "\n")
    if args.plot:
        draw_accuracy(found, args.plot)
