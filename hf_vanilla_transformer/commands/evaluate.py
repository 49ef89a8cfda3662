"""Evaluate translations, or a model that makes them: BLEU, chrF, TER, perplexity; and whether a baseline is worse."""

import argparse
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TextIO

from ..data.text_files import read_aligned
from ..evaluation import (
    EvaluationSet,
    System,
    compare_systems,
    comparison_table,
    default_tokenizer,
    make_metrics,
    read_test_set,
    system_of_model,
)
from ..inference import open_output, run_as_filter
from ..inference.one_line_parser import OneLineParser

EXAMPLES = """
examples:
  vanilla-transformer evaluate --translations output.de --references val.de
  vanilla-transformer evaluate --model runs/en-de --source val.en --references val.de --baseline runs/older
  vanilla-transformer evaluate --model runs/en-de --test_set wmt14/full:en-de
  vanilla-transformer evaluate --model runs/en-de --test_set dataset=wmt14,config=de-en,split=test
  vanilla-transformer evaluate --translations output.de --references val.de --moses_lowercase de

All files are raw text, line for line. --test_set takes a test set of sacrebleu by its name and languages, which is
downloaded once (`sacrebleu --list` names all); a dataset; or a .tsv or .jsonl file of pairs, as training does.

Scores of --moses_lowercase compare with papers that tokenise so, and with no others. --baseline takes a file of
translations or a model. Perplexity is that of all references, and compares only between models with one vocabulary;
nats per character compare between all.

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
        data, translations = read_texts(args)
        scoring = {name: getattr(args, name) for name in ("ter", "lowercase", "num_resamples", "seed")}
        scoring["tokenize"] = args.tokenize or default_tokenizer(data.target_lang)
        # Wrong options and files that cannot be written are to be found before the long work begins.
        make_metrics(args.ter, args.lowercase, scoring["tokenize"])
        with _output_if_named(args.output) as report:
            with _output_if_named(args.save_translations) as saved:
                systems = make_systems(args, data, translations)
                if saved is not None:
                    saved.writelines(f"{line}\n" for line in systems[0].translations)
            comparison = compare_systems(
                systems[0],
                systems[1] if args.baseline else None,
                data.references,
                **scoring,
                moses_language=args.moses_lowercase,
                test_set=data.name,
            )
            if report is not None:
                report.write(json.dumps(comparison, indent=1, ensure_ascii=False) + "\n")
        print(comparison_table(comparison))

    return run_as_filter(work, args.prog)


def read_texts(args: argparse.Namespace) -> tuple[EvaluationSet, dict[str, list[str]]]:
    """Reads sources, references, and the translations that are given as files.

    Args:
        args: the options.

    Returns:
        Sources and references; and the translations, by the name of their file.

    Raises:
        OSError: a file or test set is not there.
        ValueError: the files do not belong together.
    """
    files = [name for name in (args.translations, args.baseline) if name and is_translated(name)]
    if args.test_set is None:
        sources = [args.source] if args.source else []
        texts = read_aligned([*args.references, *sources, *files])
        references = [texts[path] for path in args.references]
        return EvaluationSet(None, texts.get(args.source, []), references), {name: texts[name] for name in files}
    data = read_test_set(args.test_set, args.source_lang, args.target_lang)
    translations = read_aligned(files)
    for name, lines in translations.items():
        if len(lines) != len(data.sources):
            raise ValueError(f"{name} has {len(lines)} lines, but the test set {data.name} has {len(data.sources)}")
    return data, translations


def make_systems(args: argparse.Namespace, data: EvaluationSet, translations: dict[str, list[str]]) -> list[System]:
    """Translates with those systems that are models.

    Args:
        args: the options.
        data: sources and references.
        translations: those of the others, by the name of their file.

    Returns:
        The system and, if there is one, its baseline.

    Raises:
        OSError: a model cannot be read.
        ValueError: an option is out of its range.
    """
    options = {name: getattr(args, name) for name in ("device", "dtype", "batch_tokens", "tag")}
    if args.num_beams is not None:
        options["num_beams"] = args.num_beams
    return [
        System(name, translations[name])
        if name in translations
        else system_of_model(name, data.sources, data.references, **options)
        for name in (args.translations or args.model, args.baseline)
        if name is not None
    ]


def _output_if_named(path: str | None) -> AbstractContextManager[TextIO | None]:
    return nullcontext() if path is None else open_output(path)


def is_translated(name: str) -> bool:
    """Returns whether this is a file of translations; anything else is taken for a model."""
    return Path(name).exists() and not Path(name).is_dir()


def parse_arguments(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Reads the options, and refuses those that do not go together.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The options, and `prog`.
    """
    parser = OneLineParser(prog=prog, description=__doc__, epilog=EXAMPLES)
    system = parser.add_mutually_exclusive_group(required=True)
    system.add_argument("--translations", metavar="FILE", help="translations to evaluate (.gz too)")
    system.add_argument("--model", help="or folder (or Hub name) of a model that translates the source")
    parser.add_argument("--source", metavar="FILE", help="text for a model to translate")
    references = parser.add_mutually_exclusive_group(required=True)
    references.add_argument("--references", metavar="FILE", nargs="+", help="one reference translation or several")
    references.add_argument("--test_set", metavar="NAME", help="or a test set, which has source and references")
    parser.add_argument("--source_lang", metavar="KEY", help="of the source in the rows of a test set (default: en)")
    parser.add_argument("--target_lang", metavar="KEY", help="of the references in them (default: de)")
    parser.add_argument("--baseline", metavar="FILE_OR_MODEL", help="second system, for a paired bootstrap test")
    parser.add_argument("--lowercase", action="store_true", help="ignore case")
    cut = parser.add_mutually_exclusive_group()
    cut.add_argument("--tokenize", help="tokeniser of sacrebleu; none for tokenised text (default: 13a; zh, ja-mecab, "
        "ko-mecab for test sets in these languages)")  # fmt: skip
    cut.add_argument("--moses_lowercase", metavar="LANG", help="lowercase, normalise and tokenise as Moses does")
    parser.add_argument("--no_ter", dest="ter", action="store_false", help="leave out TER, which takes longest")
    parser.add_argument("--num_resamples", type=int, default=1000, help="samples of the test (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=12345, help="of its samples (default: %(default)s)")
    parser.add_argument("--tag", help="what a model gets in front of each source, such as 2de for the token <2de>")
    parser.add_argument("--num_beams", type=int, help="beams of the search (default: the model's own)")
    parser.add_argument("--batch_tokens", type=int, default=4096, help="tokens of a side at a time, padding included "
        "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--device", default="auto", help="cpu, cuda or mps (default: auto, the best there is)")
    dtypes = ["auto", "float32", "bfloat16", "float16"]
    parser.add_argument("--dtype", default="auto", choices=dtypes, help="of the weights (default: as saved)")
    parser.add_argument("--output", metavar="FILE", help="where to write all results as JSON")
    parser.add_argument("--save_translations", metavar="FILE", help="where to write the translations of the system")
    args = parser.parse_args(argv, argparse.Namespace(prog=parser.prog))
    if args.test_set and args.source:
        parser.error("--test_set has the source; leave out --source")
    for name in () if args.test_set else ("source_lang", "target_lang"):
        if getattr(args, name):
            parser.error(f"--{name} has no effect without --test_set")
    read = [args.translations, args.source, *(args.references or []), args.test_set, args.baseline]
    written = [path for path in (args.output, args.save_translations) if path]
    for path in written:
        if any(name and Path(name).exists() and Path(path).exists() and Path(path).samefile(name) for name in read):
            parser.error(f"{path} is a file to evaluate, which the results would replace; name another")
    if len({Path(path).resolve() for path in written}) < len(written):
        parser.error(f"--output and --save_translations are one file, {args.output}; name two")
    if args.model and is_translated(args.model):
        parser.error(f"--model: {args.model} is a file, not a model; give it as --translations")
    if args.translations and not is_translated(args.translations):
        parser.error(f"--translations: there is no file {args.translations}")
    models = [name for name in (args.model, args.baseline) if name and not is_translated(name)]
    if models and not (args.test_set or args.source):
        parser.error(
            f"{models[0]} is not a file of translations, and a model needs --source or --test_set to translate"
        )
    idle = [] if models else ["tag", "num_beams", "batch_tokens", "device", "dtype"]
    idle += [] if args.baseline else ["num_resamples", "seed"]
    for name in idle:
        if getattr(args, name) != parser.get_default(name):
            needed = "--baseline" if name in ("num_resamples", "seed") else "a model"
            parser.error(f"--{name} has no effect without {needed}")
    return args
