"""Evaluate translations, or a model that makes them: BLEU, chrF, TER, perplexity; and whether a baseline is worse."""

import argparse
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TextIO

from ..data.text_files import read_aligned
from ..evaluation import System, compare_systems, comparison_table, make_metrics, system_of_model
from ..inference import open_output, run_as_filter

EXAMPLES = """
examples:
  vanilla-transformer evaluate --translations output.de --references val.de
  vanilla-transformer evaluate --model runs/en-de --source val.en --references val.de --baseline runs/older
  vanilla-transformer evaluate --translations output.de --references val.de --moses_lowercase de

All files are raw text, line for line. Scores of --moses_lowercase compare with those papers that cut text so, and with
no others. --baseline takes translations (a file) or a model. Perplexity is that of all references, and compares only
between models with one vocabulary; nats per character compare between all.

--output FILE and --save_translations FILE are written as FILE.partial and renamed when they are complete: after an
error or Ctrl-C, an earlier FILE stays as it was.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads the options, gets translations, and prints a table of their scores.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The exit status.
    """
    args = parse_arguments(argv, prog)

    def work() -> None:
        make_metrics(args.ter, args.lowercase, args.tokenize)  # an option that will not do is said before the long work
        # Both files are opened first, so that one that cannot be written is said before the long work too.
        with _output_if_named(args.output) as report:
            with _output_if_named(args.save_translations) as saved:
                systems, references = read_systems(args)
                if saved is not None:
                    saved.writelines(f"{line}\n" for line in systems[0].translations)
            scoring = {name: getattr(args, name) for name in ("ter", "lowercase", "tokenize", "num_resamples", "seed")}
            comparison = compare_systems(
                systems[0],
                systems[1] if args.baseline else None,
                references,
                **scoring,
                moses_language=args.moses_lowercase,
            )
            if report is not None:
                report.write(json.dumps(comparison, indent=1, ensure_ascii=False) + "\n")
        print(comparison_table(comparison))

    return run_as_filter(work, args.prog)


def read_systems(args: argparse.Namespace) -> tuple[list[System], list[list[str]]]:
    """Reads translations, or has models make them.

    Args:
        args: the options.

    Returns:
        The system and its baseline, if there is one; and the references, whole texts.

    Raises:
        OSError: a file or model cannot be read.
        ValueError: the files do not belong together, or an option is out of its range.
    """
    names = [args.translations or args.model, *([args.baseline] if args.baseline else [])]
    files = [*args.references, *([args.source] if args.source else []), *filter(is_translated, names)]
    texts = read_aligned(files)
    references = [texts[path] for path in args.references]
    options = {"device": args.device, "dtype": args.dtype, "batch_size": args.batch_size}
    if args.num_beams is not None:
        options["num_beams"] = args.num_beams
    systems = []
    for name in names:
        if is_translated(name):
            systems.append(System(name, texts[name]))
        elif args.source is None:
            raise ValueError(f"{name} is no file of translations; and a model needs --source to translate")
        else:
            systems.append(system_of_model(name, texts[args.source], references, **options))
    return systems, references


def _output_if_named(path: str | None) -> AbstractContextManager[TextIO | None]:
    return nullcontext() if path is None else open_output(path)


def is_translated(name: str) -> bool:
    """Whether this is a file of translations; a folder, or what there is not, is taken for a model."""
    return Path(name).is_file()


def parse_arguments(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Reads the options, and refuses those that do not go together.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The options, and `prog`.
    """
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    system = parser.add_mutually_exclusive_group(required=True)
    system.add_argument("--translations", metavar="FILE", help="what is to be evaluated (.gz too)")
    system.add_argument("--model", help="or folder (or Hub name) of a model that translates --source")
    parser.add_argument("--source", metavar="FILE", help="what a model translates")
    parser.add_argument("--references", metavar="FILE", nargs="+", required=True, help="one translation or several")
    parser.add_argument("--baseline", metavar="FILE_OR_MODEL", help="second system, for a paired bootstrap test")
    parser.add_argument("--lowercase", action="store_true", help="case does not count")
    cut = parser.add_mutually_exclusive_group()
    cut.add_argument("--tokenize", default="13a", help="of sacrebleu; none for tokenised text (default: %(default)s)")
    cut.add_argument("--moses_lowercase", metavar="LANG", help="lower case, normalise and cut the text as Moses does")
    parser.add_argument("--no_ter", dest="ter", action="store_false", help="leave out TER, which takes longest")
    parser.add_argument("--num_resamples", type=int, default=1000, help="draws of the test (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=12345, help="of its draws (default: sacrebleu's, %(default)s)")
    parser.add_argument("--num_beams", type=int, help="beams of the search; default is the model's own")
    parser.add_argument("--batch_size", type=int, default=32, help="sentences decoded at a time (default: 32)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or mps; default is the best there is")
    dtypes = ["auto", "float32", "bfloat16", "float16"]
    parser.add_argument("--dtype", default="auto", choices=dtypes, help="of the weights (default: as saved)")
    parser.add_argument("--output", metavar="FILE", help="where to write everything as JSON")
    parser.add_argument("--save_translations", metavar="FILE", help="where to write those of the system")
    args = parser.parse_args(argv, argparse.Namespace(prog=parser.prog))
    if args.model and not args.source:
        parser.error("--model needs --source to translate")
    if args.model and is_translated(args.model):
        parser.error(f"--model: {args.model} is a file, not a model; give it as --translations")
    if args.translations and not is_translated(args.translations):
        parser.error(f"--translations: there is no file {args.translations}")
    return args
