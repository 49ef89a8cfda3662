"""Release finished runs as a checkpoint: weights, model card, scores with intervals, recipe, curves and outputs."""

from collections.abc import Sequence
from pathlib import Path

from ..inference import run_as_filter
from ..inference.one_line_parser import OneLineParser
from ..publishing import PublicPaths, read_card, refresh_card, release, write_index
from ..publishing.card_tables import score_table
from .shared_options import add_batch_tokens_option, add_device_options

EXAMPLES = """
examples:
  vanilla-transformer release runs/seed1 runs/seed2 runs/seed3 --card model_cards/multi30k-en-de-tiny.yaml \\
      --output_dir model_cards/multi30k-en-de-tiny --data /scratch/multi30k=data/multi30k --index model_cards/README.md
  vanilla-transformer release --card model_cards/multi30k-en-de-tiny.yaml --output_dir model_cards/multi30k-en-de-tiny

Runs are outputs of pretrain or finetune: of one recipe, with different seeds. The one with the best score on the first
validation set of the card becomes the checkpoint. CARD.yaml has what people write: title, languages, license, summary,
intended_use, training_data, limits, inputs (examples), and test_sets with name, title, role (validation or test),
texts, metrics and moses_lowercase. Its paths, and those of the recipe, are public ones: --data says which folders of
this machine they stand for.

A release scores test sets, so make it once, when everything has been chosen on validation sets. The name of
--output_dir is that of the checkpoint. Without runs, the card of an earlier release is written anew, by the
figures that it has and the texts of --card. `vanilla-transformer publish` adds the code and uploads the folder.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads which runs, makes the folder, and prints the scores of the checkpoint.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    parser = OneLineParser(prog, description=__doc__, epilog=EXAMPLES)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="output folder of a finished run")
    parser.add_argument("--card", metavar="CARD.yaml", help="what people write about the checkpoint")
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="the folder of the checkpoint")
    data = "folder of this machine, and what it is called in card and recipe"
    parser.add_argument("--data", nargs="+", default=[], metavar="LOCAL=PUBLIC", help=data)
    parser.add_argument("--index", metavar="FILE", help="write the tables of all checkpoints beside this file into it")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier release in --output_dir")
    add_device_options(parser, dtype=False)
    add_batch_tokens_option(parser)
    parser.add_argument("--num_resamples", type=int, default=1000, help="samples of which the 95 %% intervals are "
        "(default: %(default)s)")  # fmt: skip
    args = parser.parse_args(argv)
    if args.runs and args.card is None:
        parser.error("a release needs --card CARD.yaml, which says what the checkpoint is and what to score it on")
    for name in () if args.runs else ("data", "overwrite", "device", "batch_tokens", "num_resamples"):
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name} has no effect without runs, whose card would be written")

    def work() -> None:
        card = None if args.card is None else read_card(args.card)
        if args.runs:
            assert card is not None
            options = {name: getattr(args, name) for name in ("overwrite", "device", "batch_tokens", "num_resamples")}
            paths = PublicPaths.parse(args.data)
            results = release(
                args.runs, args.output_dir, card, paths, say=lambda line: print(line, flush=True), **options
            )
        else:
            results = refresh_card(args.output_dir, card)
        if args.index is not None:
            write_index(args.index)
        for evaluation in results["evaluations"]:
            for scoring in evaluation["scorings"]:
                title = ", ".join(filter(None, [evaluation["title"], scoring["title"]]))
                print(f"\n{title}\n{score_table(scoring, results['training'])}")
        print(
            f"\nLook through {Path(args.output_dir) / 'README.md'}, then: vanilla-transformer publish {args.output_dir}"
        )

    return run_as_filter(work, parser.prog)
