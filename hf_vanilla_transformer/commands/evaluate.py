"""Evaluate translations, or models that make them: BLEU, chrF, TER, error rates, perplexity; and which is better."""

import argparse
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import TextIO

from ..evaluation import (
    EvaluationSet,
    LengthComparison,
    Scoring,
    System,
    check_bounds,
    compare_by_length,
    compare_systems,
    comparison_table,
    default_tokenizer,
    files_of_test_set,
    length_tables,
    make_metrics,
    moses_lowercase_scoring,
    paper_scoring,
    read_test_sets,
    system_of_model,
)
from ..evaluation.scores import OF_TRANSLATIONS
from ..inference import open_output, run_as_filter
from ..inference.one_line_parser import OneLineParser
from .shared_options import (
    add_batch_tokens_option,
    add_device_options,
    add_engine_options,
    add_text_options,
    check_engine_options,
    check_text_options,
    first_repeat,
)

EXAMPLES = """
examples:
  vanilla-transformer evaluate --translations output.de --references val.de
  vanilla-transformer evaluate --model runs/en-de --source val.en --references val.de --baseline runs/older
  vanilla-transformer evaluate --model runs/en-de --test_set wmt14/full:en-de --paper_bleu de
  vanilla-transformer evaluate --model runs/en-de --test_set dataset=wmt/wmt14,config=de-en,split=test
  vanilla-transformer evaluate --model runs/seed-1 runs/seed-2 runs/seed-3 --test_set val.tsv --moses_lowercase de
  vanilla-transformer evaluate --ensemble runs/seed-1 runs/seed-2 --metrics wer per \\
    --test_set dev/kor.tsv,tag=kor dev/vie.tsv,tag=vie

All files are raw text, line for line. --test_set takes a test set of sacrebleu by its name and languages, which is
downloaded once (`sacrebleu --list` names all); a dataset; or a .tsv or .jsonl file of pairs, as training does. Of
several test sets, the average is shown too, in which each has the same weight ("macro"). In files of translations,
their lines follow each other in the order of the test sets.

Several models or files of translations are compared by the mean, standard deviation, least and greatest of their
scores, as runs of one recipe with several seeds are. --ensemble lets models decode together, and is one system.

wer is the percentage of lines that are not exactly the reference (a line is the pronunciation of a word), and per is
edits per 100 units of the references, where units such as phones are separated by spaces. These are the definitions of
SIGMORPHON's tasks; the WER of speech recognition is another.

--moses_lowercase and --paper_bleu add tables of the same translations. Their scores compare with papers that cut text
so, and with no others: they belong in no table with the rest.

± after a score is half the width of its 95 % interval. --baseline takes a file of translations or a model. Perplexity
is that of all references, and compares only between models with one vocabulary; nats per character compare between all.

--output FILE and --save_translations FILE are written as FILE.partial and renamed when they are complete: after an
error or Ctrl-C, an earlier FILE stays as it was.
"""

# Metrics of words, which depend on how text is cut. Case makes a difference to the first two.
_OF_WORDS = ("bleu", "chrf", "ter")


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
        files = [*args.translations, *([args.baseline] if args.baseline and is_translated(args.baseline) else [])]
        test_sets, translations = read_test_sets(
            args.test_set, args.source, args.references, args.source_lang, args.target_lang, files
        )
        scorings = make_scorings(args)
        # Wrong options and files that cannot be written are to be found before the long work begins.
        for data in test_sets:
            make_metrics(args.metrics, args.lowercase, args.tokenize or default_tokenizer(data.target_lang))
        with _output_if_named(args.output) as report:
            with ExitStack() as stack:
                saved = [stack.enter_context(open_output(path)) for path in args.save_translations]
                systems = make_systems(args, test_sets, translations)
                for file, system in zip(saved, systems, strict=False):
                    file.writelines(f"{line}\n" for text in system.translations for line in text)
            baseline = systems.pop() if args.baseline else None
            comparison = compare_systems(systems, test_sets, scorings, baseline, args.num_resamples, args.seed)
            by_length = compare_lengths(args, [*systems, *([baseline] if baseline else [])], test_sets)
            if by_length:
                comparison["by_length"] = [each.as_dict() for each in by_length]
            if report is not None:
                report.write(json.dumps(comparison, indent=1, ensure_ascii=False) + "\n")
        print("\n\n".join([comparison_table(comparison), *([length_tables(by_length)] if by_length else [])]))

    return run_as_filter(work, args.prog)


def make_scorings(args: argparse.Namespace) -> list[Scoring]:
    """Returns the ways to score that the options ask for.

    Args:
        args: the options.

    Returns:
        The text as it is, and as it is changed for comparisons with papers.

    Raises:
        ValueError: what changes the text is not installed.
    """
    scorings = [Scoring(args.metrics, args.lowercase, args.tokenize)]
    if args.moses_lowercase:
        of_words = [name for name in args.metrics if name in _OF_WORDS]
        scorings.append(moses_lowercase_scoring(args.moses_lowercase, of_words))
    if args.paper_bleu:
        scorings.append(paper_scoring(args.paper_bleu))
    return scorings


def make_systems(
    args: argparse.Namespace, test_sets: Sequence[EvaluationSet], translations: dict[str, list[list[str]]]
) -> list[System]:
    """Translates with those systems that are models.

    Args:
        args: the options.
        test_sets: sources and references.
        translations: those of the others, by the name of their file.

    Returns:
        The systems and, if there is one, their baseline.

    Raises:
        OSError: a model cannot be read.
        ValueError: an option is out of its range.
    """
    options = {
        name: getattr(args, name) for name in ("device", "dtype", "batch_tokens", "tag", "engine", "quantization")
    }
    if args.num_beams is not None:
        options["num_beams"] = args.num_beams
    folders = [[name] for name in args.model] + ([args.ensemble] if args.ensemble else [])
    systems = [System(name, translations[name]) for name in args.translations]
    systems += [system_of_model(each, test_sets, **options) for each in folders]
    if args.baseline in translations:
        systems.append(System(args.baseline, translations[args.baseline]))
    elif args.baseline:
        systems.append(system_of_model([args.baseline], test_sets, **options))
    return systems


def compare_lengths(
    args: argparse.Namespace, systems: Sequence[System], test_sets: Sequence[EvaluationSet]
) -> list[LengthComparison]:
    """Scores systems by the length of the source, where this is asked for.

    Args:
        args: the options.
        systems: those that are compared.
        test_sets: sources and references.

    Returns:
        A comparison for each test set; none if it is not asked for.
    """
    if args.by_length is None:
        return []
    metric = "bleu" if "bleu" in args.metrics else args.metrics[0]
    options = {name: getattr(args, name) for name in ("lowercase", "tokenize", "num_resamples", "seed")}
    return compare_by_length(systems, test_sets, args.by_length, metric, **options)


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
    system.add_argument("--translations", metavar="FILE", nargs="+", default=[], help="translations to evaluate (.gz "
        "too); of several files, each is a system")  # fmt: skip
    system.add_argument("--model", metavar="FOLDER", nargs="+", default=[], help="or folder (or Hub name) of a model "
        "that translates the source; of several, each is a system")  # fmt: skip
    system.add_argument("--ensemble", metavar="FOLDER", nargs="+", default=[], help="or several models, whose "
        "probabilities are averaged")  # fmt: skip
    add_text_options(parser)
    parser.add_argument("--baseline", metavar="FILE_OR_MODEL", help="second system, for a paired bootstrap test")
    parser.add_argument("--metrics", nargs="+", choices=OF_TRANSLATIONS, default=["bleu", "chrf", "ter"],
        metavar="METRIC", help=f"of {', '.join(OF_TRANSLATIONS)} (default: bleu chrf ter); ter takes "
        "longest")  # fmt: skip
    parser.add_argument("--lowercase", action="store_true", help="ignore case in BLEU and chrF")
    parser.add_argument("--tokenize", help="tokeniser of sacrebleu for BLEU; none for tokenised text (default: 13a; "
        "zh, ja-mecab, ko-mecab for test sets in these languages)")  # fmt: skip
    parser.add_argument("--moses_lowercase", metavar="LANG", help="score the text lowercased, normalised and tokenised "
        "as Moses does too, in a table of its own: as papers on Multi30k do")  # fmt: skip
    parser.add_argument("--paper_bleu", metavar="LANG", help="compute BLEU as the paper's Table 2 has it too, in a "
        "table of its own: of text tokenised by Moses, with compounds split at hyphens (get_ende_bleu.sh of "
        "tensor2tensor), which is worth about a point")  # fmt: skip
    parser.add_argument("--by_length", metavar="WORDS", type=int, nargs="+", help="score sentences by the length of "
        "the source too: 10 20 makes groups of up to 10 words, up to 20, and more; by bleu, or else the "
        "first metric")  # fmt: skip
    parser.add_argument("--num_resamples", type=int, default=1000, help="samples for the 95 %% intervals and the "
        "paired test; 0 for no intervals (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=12345, help="of the samples (default: %(default)s)")
    parser.add_argument("--tag", help="what a model gets in front of each source, such as 2de for the token <2de>; a "
        "test set may have its own, as in FILE.tsv,tag=2de")  # fmt: skip
    parser.add_argument("--num_beams", type=int, help="beams of the search (default: the model's own)")
    add_batch_tokens_option(parser)
    add_device_options(parser)
    add_engine_options(parser)
    parser.add_argument("--output", metavar="FILE", help="where to write all results as JSON")
    parser.add_argument("--save_translations", metavar="FILE", nargs="+", default=[], help="where to write the "
        "translations, a file for each system")  # fmt: skip
    args = parser.parse_args(argv, argparse.Namespace(prog=parser.prog))
    _check_metrics(parser, args)
    _check_by_length(parser, args)
    _check_files(parser, args)
    _check_systems(parser, args)
    check_engine_options(parser, args)
    return args


def _check_metrics(parser: OneLineParser, args: argparse.Namespace) -> None:
    needed = {"lowercase": ("bleu", "chrf"), "tokenize": ("bleu",), "moses_lowercase": _OF_WORDS}
    for name, metrics in needed.items():
        if getattr(args, name) and not set(metrics) & set(args.metrics):
            parser.error(f"--{name} has no effect on {' and '.join(args.metrics)}, but on {', '.join(metrics)}")
    if args.num_resamples < 0 or args.num_resamples == 1:
        parser.error(f"`num_resamples`={args.num_resamples} is not allowed; allowed: 0, or an integer of at least 2")
    if args.baseline and args.num_resamples == 0:
        parser.error("--baseline is compared by samples; leave --num_resamples 0 away")
    least = 1 if args.baseline else 0  # sacrebleu's paired test takes seed 0 for no seed
    if args.seed < least:
        parser.error(f"`seed`={args.seed} is not allowed; allowed: an integer of at least {least}")
    if args.num_resamples == 0 and args.seed != parser.get_default("seed"):
        parser.error("--seed has no effect without samples (--num_resamples 0)")


def _check_by_length(parser: OneLineParser, args: argparse.Namespace) -> None:
    if args.by_length is None:
        return
    if not (args.test_set or args.source):
        parser.error("--by_length counts the words of sources; give --source or --test_set")
    try:
        check_bounds(args.by_length)
    except ValueError as error:
        parser.error(f"--by_length: {error}")


def _check_files(parser: OneLineParser, args: argparse.Namespace) -> None:
    check_text_options(parser, args)
    try:
        of_test_sets = [path for name in args.test_set or [] for path in files_of_test_set(name)]
    except ValueError as error:
        parser.error(str(error))
    read = [*args.translations, args.source, *(args.references or []), *of_test_sets, args.baseline]
    written = [path for path in (args.output, *args.save_translations) if path]
    for path in written:
        if any(name and Path(name).exists() and Path(path).exists() and Path(path).samefile(name) for name in read):
            parser.error(f"{path} is a file to evaluate, which the results would replace; name another")
    resolved = [Path(path).resolve() for path in written]
    for index, path in enumerate(written):
        if resolved[index] in resolved[:index]:
            parser.error(f"--output and --save_translations name {path} twice; name as many files as there are outputs")


def _check_systems(parser: OneLineParser, args: argparse.Namespace) -> None:
    for name in args.model + args.ensemble:
        if is_translated(name):
            parser.error(f"{name} is a file, not a model; give it as --translations")
    for name in args.translations:
        if not is_translated(name):
            parser.error(f"--translations: there is no file {name}")
    for option, names in {
        "translations": args.translations,
        "model": args.model,
        "ensemble": args.ensemble,
        "test_set": args.test_set or [],
    }.items():
        if (name := first_repeat(names)) is not None:
            parser.error(f"--{option} has {name} twice")
    count = len(args.translations) + len(args.model) + bool(args.ensemble)
    if args.baseline and (count > 1 or len(args.test_set or []) > 1):
        parser.error("--baseline is compared with one system on one test set; evaluate them one by one")
    if args.save_translations and len(args.save_translations) != count:
        parser.error(f"--save_translations has {len(args.save_translations)} files for {count} systems; name one each")
    models = [name for name in (*args.model, *args.ensemble, args.baseline) if name and not is_translated(name)]
    if models and not (args.test_set or args.source):
        parser.error(
            f"{models[0]} is not a file of translations, and a model needs --source or --test_set to translate"
        )
    for option in () if models else ("tag", "num_beams", "batch_tokens", "device", "dtype", "engine", "quantization"):
        if getattr(args, option) != parser.get_default(option):
            parser.error(f"--{option} has no effect without a model")
