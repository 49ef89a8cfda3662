"""Choose length penalty and beams on a validation set, as the paper did ("after experimentation", section 6.1)."""

import argparse
from collections.abc import Sequence

from tqdm import tqdm

from ..evaluation import (
    TriedDecoding,
    best_decoding,
    check_savable,
    make_metrics,
    read_test_sets,
    save_decoding,
    tried_table,
    try_decodings,
)
from ..evaluation.scores import OF_TRANSLATIONS
from ..evaluation.tuning import LENGTH_PENALTIES
from ..inference import run_as_filter
from ..inference.one_line_parser import OneLineParser
from .shared_options import (
    add_batch_tokens_option,
    add_device_options,
    add_text_options,
    check_text_options,
    first_repeat,
)

EXAMPLES = """
examples:
  vanilla-transformer tune runs/en-de --source val.en --references val.de
  vanilla-transformer tune runs/seed-1 runs/seed-2 runs/seed-3 --test_set val.tsv --save
  vanilla-transformer tune runs/g2p --metric wer --num_beams 4 8 --test_set dev/kor.tsv,tag=kor dev/vie.tsv,tag=vie

Translates the validation set once for each pair of values, and prints a table. Of several models, the mean counts, and
so it does of several sets, in which each has the same weight. Never choose on a test set: its score would then say
how well it was chosen on.

The search divides the log-probability of n tokens by ((5 + n) / 6)^alpha: the greater alpha, the longer translations
are. Those of models that were trained with much dropout and label smoothing on little data tend to be too short with
the paper's 0.6; the last column says how long they are, next to the references.

--save writes the best values into the generation_config.json of each model, which decodes so from then on.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads the options, tries every pair of values, prints a table, and saves the best if that is asked for.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    args = parse_arguments(argv, prog)

    def work() -> None:
        texts = (args.test_set, args.source, args.references, args.source_lang, args.target_lang)
        test_sets, _ = read_test_sets(*texts)
        make_metrics([args.metric])
        for folder in args.models if args.save else ():
            check_savable(folder)
        options = {name: getattr(args, name) for name in ("metric", "device", "dtype", "batch_tokens", "tag")}
        count = len(args.models) * len(args.num_beams) * len(args.length_penalties)
        with tqdm(total=count, unit=" searches", disable=None) as bar:
            tried = try_decodings(
                args.models, test_sets, args.length_penalties, args.num_beams, step=bar.update, **options
            )
        best = best_decoding(tried, args.metric)
        print(tried_table(tried, args.models, args.metric))
        print(f"\n{_best_line(best, tried, args)}")
        for folder in args.models if args.save else ():
            save_decoding(folder, best)
            print(f"saved in {folder}/generation_config.json")

    return run_as_filter(work, args.prog)


def _best_line(best: TriedDecoding, tried: Sequence[TriedDecoding], args: argparse.Namespace) -> str:
    line = f"best: num_beams={best.num_beams}, gnmt_length_penalty={best.length_penalty:g}"
    of_those_beams = sorted(each.length_penalty for each in tried if each.num_beams == best.num_beams)
    if len(of_those_beams) > 2 and best.length_penalty in (of_those_beams[0], of_those_beams[-1]):
        line += ", at the edge of what was tried: try values beyond it with --length_penalties"
    elif not args.save:
        line += "; --save writes this into generation_config.json"
    return line


def parse_arguments(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Reads the options, and refuses those that do not go together.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The options, and `prog`.
    """
    parser = OneLineParser(prog=prog, description=__doc__, epilog=EXAMPLES)
    parser.add_argument("models", metavar="FOLDER", nargs="+", help="folder (or Hub name) of a model, or of several")
    add_text_options(parser)
    parser.add_argument("--length_penalties", type=float, nargs="+", metavar="ALPHA", default=list(LENGTH_PENALTIES),
        help=f"values of alpha to try (default: {' '.join(f'{each:g}' for each in LENGTH_PENALTIES)})")  # fmt: skip
    parser.add_argument("--num_beams", type=int, nargs="+", metavar="K", default=[4], help="numbers of beams to try, "
        "each with every alpha (default: 4)")  # fmt: skip
    parser.add_argument("--metric", choices=OF_TRANSLATIONS, default="bleu", metavar="METRIC", help="what to choose "
        f"by, of {', '.join(OF_TRANSLATIONS)} (default: bleu)")  # fmt: skip
    parser.add_argument("--save", action="store_true", help="write the best values into each model's "
        "generation_config.json")  # fmt: skip
    parser.add_argument("--tag", help="what a model gets in front of each source, such as 2de for the token <2de>")
    add_batch_tokens_option(parser)
    add_device_options(parser)
    args = parser.parse_args(argv, argparse.Namespace(prog=parser.prog))
    check_text_options(parser, args)
    if args.references and not args.source:
        parser.error("--references need the --source that is translated")
    if (model := first_repeat(args.models)) is not None:
        parser.error(f"{model} is named twice")
    for option in ("test_set", "length_penalties", "num_beams"):
        if (value := first_repeat(getattr(args, option) or [])) is not None:
            parser.error(f"--{option} has {value} twice")
    return args
