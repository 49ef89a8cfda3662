"""Evaluate translations, or a model that makes them: BLEU, chrF, TER, perplexity; and whether a baseline is worse."""

import argparse
import json
from pathlib import Path

from ..data.text_files import read_aligned
from ..evaluation import System, compare_systems, comparison_table, make_metrics, system_of_model
from ..inference import run_as_filter

EXAMPLES = """
examples:
  python scripts/evaluate.py --translations output.de --references val.de
  python scripts/evaluate.py --model runs/en-de --source val.en --references val.de --baseline runs/older
  python scripts/evaluate.py --translations output.de --references val.de --moses_lowercase de

All files are raw text, line for line. Scores of --moses_lowercase compare with those papers that cut text so, and with
no others. --baseline takes translations (a file) or a model. Perplexity is that of all references, and compares only
between models with one vocabulary; nats a character compare between all.
"""


def main() -> int:
    """Reads the options, gets translations, and prints a table of their scores."""
    args = parse_arguments()

    def work() -> None:
        make_metrics(args.ter, args.lowercase, args.tokenize)  # an option that will not do is said before the long work
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
        if args.save_translations:
            text = "".join(f"{line}\n" for line in systems[0].translations)
            Path(args.save_translations).write_text(text, encoding="utf-8")
        scoring = {name: getattr(args, name) for name in ("ter", "lowercase", "tokenize", "num_resamples", "seed")}
        comparison = compare_systems(
            systems[0],
            systems[1] if args.baseline else None,
            references,
            **scoring,
            moses_language=args.moses_lowercase,
        )
        if args.output:
            Path(args.output).write_text(json.dumps(comparison, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(comparison_table(comparison))

    return run_as_filter(work, "evaluate.py")


def is_translated(name: str) -> bool:
    """Whether this is a file of translations; a folder, or what there is not, is taken for a model."""
    return Path(name).is_file()


def parse_arguments() -> argparse.Namespace:
    """Reads the options, and refuses those that do not go together."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
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
    parser.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, mps (default: cpu)")
    dtypes = ["auto", "float32", "bfloat16", "float16"]
    parser.add_argument("--dtype", default="auto", choices=dtypes, help="of the weights (default: as saved)")
    parser.add_argument("--output", metavar="FILE", help="where to write everything as JSON")
    parser.add_argument("--save_translations", metavar="FILE", help="where to write those of the system")
    args = parser.parse_args()
    if args.model and not args.source:
        parser.error("--model needs --source to translate")
    if args.model and is_translated(args.model):
        parser.error(f"--model: {args.model} is a file, not a model; give it as --translations")
    if args.translations and not is_translated(args.translations):
        parser.error(f"--translations: there is no file {args.translations}")
    return args
