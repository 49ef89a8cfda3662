"""Analyse attention heads: what each looks at, and the BLEU that is lost when it is switched off."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from ..evaluation import EvaluationSet, read_test_sets
from ..inference import load_translator, run_as_filter
from ..inference.one_line_parser import OneLineParser
from ..interop.output_folder import output_folder
from ..lab.charts import new_chart
from ..lab.head_losses import analyse_heads
from ..lab.head_report import head_summary, write_head_report
from ..lab.heads import heads_of
from .shared_options import add_batch_tokens_option, add_device_options, add_text_options, check_text_options

EXAMPLES = """
examples:
  vanilla-transformer lab-heads runs/en-de --source val.en --references val.de --output_dir heads
  vanilla-transformer lab-heads runs/en-de --test_set source=val.en,target=val.de --output_dir heads --sentences 1000

Writes a ranked table (heads.md), a bar chart (heads.png) and all numbers (heads.json) into a folder that appears when
all are complete. The first sentences of the set are translated once with all heads and once without each, which takes
minutes for a tiny model. Greedy search is the default: beam search takes about ten times as long while a decoder has
hooks.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads the options, analyses the heads of a model, and writes what was found.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    args = parse_arguments(argv, prog)

    def work() -> None:
        new_chart(1, 1)  # what is not installed is to be said before the long work
        data = read_texts(args)
        with output_folder(args.output_dir, args.overwrite, source=args.model) as folder:
            model, tokenizer = load_translator([args.model], args.device, args.dtype)
            options = {
                name: getattr(args, name) for name in ("batch_tokens", "tag", "num_resamples", "seed", "num_beams")
            }
            started = time.perf_counter()
            with tqdm(total=1 + len(heads_of(model)), unit=" translations", disable=None) as bar:
                analysis = analyse_heads(model, tokenizer, data, step=bar.update, **options)
            settings: dict[str, Any] = {"model": args.model, "num_beams": args.num_beams, "device": str(model.device)}
            settings |= {"dtype": str(model.dtype).removeprefix("torch."), "torch": torch.__version__}
            settings["seconds"] = round(time.perf_counter() - started)
            write_head_report(analysis, settings, folder)
        print(f"{head_summary(analysis)}; all in {args.output_dir}/heads.md")

    return run_as_filter(work, args.prog)


def read_texts(args: argparse.Namespace) -> EvaluationSet:
    """Reads the first sentences of the set.

    Args:
        args: the options.

    Returns:
        At most `args.sentences` sentences with their references.

    Raises:
        OSError: a file or test set is not there.
        ValueError: the files do not belong together, or there is no sentence.
    """
    texts = (args.test_set, args.source, args.references, args.source_lang, args.target_lang)
    (data,), _ = read_test_sets(*texts)
    if not data.sources:
        raise ValueError("there is no sentence to translate")
    kept = slice(args.sentences)
    return replace(data, sources=data.sources[kept], references=[text[kept] for text in data.references])


def parse_arguments(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Reads the options, and refuses those that do not go together.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The options, and `prog`.
    """
    parser = OneLineParser(prog=prog, description=__doc__, epilog=EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="folder (or Hub name) of a model")
    add_text_options(parser)
    parser.add_argument("--output_dir", metavar="FOLDER", required=True, help="where to write; free or empty")
    parser.add_argument("--overwrite", action="store_true", help="replace files of an earlier analysis there")
    parser.add_argument("--sentences", type=int, default=500, help="how many to translate (default: %(default)s)")
    parser.add_argument("--num_beams", type=int, default=1, help="beams of the search (default: 1, which is greedy)")
    parser.add_argument("--num_resamples", type=int, default=1000, help="samples for the 95 %% intervals; 0 for no "
        "intervals (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=12345, help="of the samples (default: %(default)s)")
    parser.add_argument("--tag", help="what the model gets in front of each source, such as 2de for the token <2de>")
    add_batch_tokens_option(parser)
    add_device_options(parser)
    args = parser.parse_args(argv, argparse.Namespace(prog=parser.prog))
    check_text_options(parser, args)
    if args.references and not args.source:
        parser.error("--references need the --source that is translated")
    if args.test_set and len(args.test_set) > 1:
        parser.error(f"--test_set has {' and '.join(args.test_set)}; heads are analysed on one set")
    if args.sentences < 1:
        parser.error(f"`sentences`={args.sentences} is not allowed; allowed: an integer of at least 1")
    if args.num_resamples < 0 or args.num_resamples == 1:
        parser.error(f"`num_resamples`={args.num_resamples} is not allowed; allowed: 0, or an integer of at least 2")
    if args.seed < 0:
        parser.error(f"`seed`={args.seed} is not allowed; allowed: an integer of at least 0")
    if args.num_resamples == 0 and args.seed != parser.get_default("seed"):
        parser.error("--seed has no effect without samples (--num_resamples 0)")
    return args
