"""Translate sentences with a trained model or several, one line out for each line in."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from ..data.text_files import count_lines, decode_lines, read_lines
from ..inference import BadLines, Translator, default_translator, open_output, translated_lines, write_lines
from ..inference.one_line_parser import OneLineParser
from ..inference.processes import Process
from ..inference.shard_translation import translate_shards
from ..inference.shards import SHARD_LINES, ShardedFile
from ..inference.shipped import DEFAULT_TRANSLATOR
from .shared_options import add_device_options, add_engine_options, check_engine_options

EXAMPLES = """
examples:
  vanilla-transformer translate --model runs/en-de "A dog runs." "A man sleeps."
  vanilla-transformer translate --model runs/en-de --file test.en > test.de
  cat test.en | vanilla-transformer translate --model runs/en-de --num_beams 1
  vanilla-transformer translate --ensemble runs/en-de-1 runs/en-de-2 --nbest 4 --scores --file test.en
  vanilla-transformer translate --ensemble runs/en-de-1 runs/en-de-2 -- "A dog runs."
  vanilla-transformer translate --model runs/many --tag 2de "A dog runs."
  vanilla-transformer translate --model runs/de-en --do_sample --seed 1 --file mono.de > synthetic.en
  vanilla-transformer translate --model runs/en-de --engine ctranslate2 --quantization int8 --file test.en > test.de
  torchrun --nproc-per-node 8 -m hf_vanilla_transformer translate --model runs/en-de --file mono.en --output mono.de

input: lines of UTF-8 text of any length; only a line feed ends a line. Empty lines stay empty. A line is never cut: a
model with sinusoids decodes it whole. If it has more tokens than a model has learned positions, it is translated in
pieces (split after sentences, else between words), which are joined; standard error says how many. The model's
generation_config limits the length of translations: for models of this package, to 50 tokens more than the source has
(max_extra_tokens).

A line that is not UTF-8 stops the program (default). With --on_error skip it is translated as an empty line instead, so
that line N stays line N; at the end, standard error says how many there were.

--tag 2de puts the token <2de> in front of each line, for a model that was trained with tags (tag=2de of a corpus). A
line may also bring its own: "<2de> A dog runs."

--do_sample draws translations at random, as for back-translation, by itself from all that the model finds possible. The
same --seed and the same batches (--batch_size, --batch_tokens, --read_ahead) give the same translations. A model that
learned with label smoothing finds every token possible, also single bytes that its training text never had, so that
some lines have remains of characters; --top_k 10 keeps to what is probable.

--engine ctranslate2 converts the model once, into the folder .ctranslate2 beside it (which may be removed at any time),
or into the cache of Hugging Face if that cannot be written, and says so if it cannot do what is asked: ensembles,
adapters, sampling, some variants of the model, a GPU. --engine auto then takes torch, and says why.

output: for each line its translation, in one line; line breaks in it become spaces. With --nbest above 1, --scores or
--alignments, lines have columns separated by tabs. Those that were requested are, in this order:
  index            number of the input line, from 0 (--nbest above 1; its N lines follow each other, the best first;
                   with --do_sample and one beam in the order drawn)
  score            by which the beam search ranked it: log-probability divided by the length penalty (--scores)
  log-prob         log-probability of the whole translation, its end included, in nats (--scores)
  translation      tabs in it become spaces
  alignment        0-0 1-2 ...: source token and target token, from 0; for each target token the source token that the
                   last decoder layer but one attends to most (--alignments)
  source tokens    separated by spaces (--alignments)
  target tokens    separated by spaces (--alignments)

--output FILE is written as FILE.partial and renamed when it is complete. After Ctrl-C, FILE has the lines that were
translated. After an error, an earlier FILE stays as it was, and FILE.partial has the lines that were translated.

Several processes divide --file among them, if their launcher tells each its RANK and the WORLD_SIZE, as torchrun and
accelerate do, and job arrays can (scripts/cluster/slurm_array.sh). All have the same --file and --output, on disks that
all of them see. The file is divided into shards of --shard_lines; process R translates shards R, R + WORLD_SIZE, ...,
and seals each in the folder OUTPUT.shards. Whoever finds all of them there at the end joins them, and the folder may be
removed. If a process fails or is killed, or after Ctrl-C, which loses the shard that it is at, the same command, with
any number of processes, translates what is not sealed; if all is (on slow network disks, the last two may miss each
other), it only joins. OUTPUT has the bytes of a single process with as many threads: OMP_NUM_THREADS, which torchrun
sets to 1 where it starts several, has to be the same each time. Only --do_sample draws anew at the beginning of each
shard: give a single process --shard_lines too. Shards of another input, model, version or option are not mixed:
the error names what differs.

exit status: 0; 2 for input or options that cannot be used; 130 after Ctrl-C, when all finished translations have been
written; 141 if the output was closed, as by "| head -1".
"""


def parse_arguments(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Reads the options.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The options, and `prog`.
    """
    parser = OneLineParser(prog=prog, description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("sentences", nargs="*", help="sentences to translate; without them or --file, standard input is read")
    models = parser.add_mutually_exclusive_group()
    models.add_argument("--model", help="folder of a trained model and its tokenizer; or the name of a checkpoint of "
        f"model_cards, or of the Hub (default: {DEFAULT_TRANSLATOR}, where it is there)")  # fmt: skip
    models.add_argument(
        "--ensemble", nargs="+", metavar="FOLDER", help="or several models, whose probabilities are averaged"
    )
    add("--file", type=Path, help="translate the lines of this file (.gz too)")
    add("--output", type=Path, help="write to this file instead of standard output; an earlier file stays until all is "
        "translated")  # fmt: skip
    add("--nbest", type=int, default=1, metavar="N", help="translations of each line (default: 1)")
    add("--scores", action="store_true", help="write the score and the log-probability of each translation")
    add("--alignments", action="store_true", help="write tokens and their alignments")
    batches = parser.add_mutually_exclusive_group()
    batches.add_argument("--batch_size", type=int, default=32, help="sentences decoded at a time (default: 32)")
    batches.add_argument("--batch_tokens", type=int, help="or source tokens decoded at a time, padding included")
    add("--read_ahead", type=int, help="lines read before the first is translated (default: 32 batches; 1 if standard "
        "input is a terminal)")  # fmt: skip
    add("--shard_lines", type=int, metavar="N", help="translate --file in shards of N lines or a little more, so that "
        f"what is done survives a kill (default: {SHARD_LINES}, if there are several processes)")  # fmt: skip
    add("--num_beams", type=int, help="beams of the search (default: the model's own, or --nbest if that is more)")
    add("--tag", help="what to put in front of each line, such as 2de for the token <2de>")
    add("--do_sample", action="store_true", help="draw translations at random, without beams")
    add("--temperature", type=float, help="of --do_sample; below 1 sharpens the distribution (default: 1)")
    add("--top_k", type=int, help="draw among this many tokens (default: 0, all)")
    add("--top_p", type=float, help="draw among the most probable tokens that make up this much (default: 1, all)")
    add("--seed", type=int, help="of --do_sample (default: 0)")
    add_device_options(parser)
    add_engine_options(parser)
    add(
        "--on_error",
        default="stop",
        choices=["stop", "skip"],
        help="what to do about a line that is not UTF-8",
    )
    add("--quiet", action="store_true", help="no progress bar, and no summary at the end")
    args = parser.parse_args(argv, argparse.Namespace(prog=parser.prog))
    if args.sentences and args.file:
        parser.error("give either sentences or --file, and not both")
    if args.file and args.output and args.output.exists() and args.output.samefile(args.file):
        parser.error(f"--output {args.output} is the file to translate; its translations would replace it")
    if args.top_p is not None and not 0 < args.top_p <= 1:
        parser.error(f"--top_p {args.top_p:g} is not a number above 0 and up to 1")
    if args.do_sample and args.num_beams is None:
        args.num_beams = 1
    check_engine_options(parser, args)
    check_shard_options(parser, args)
    for name in () if args.do_sample else ("temperature", "top_k", "top_p", "seed"):
        if getattr(args, name) is not None:
            parser.error(f"--{name} has no effect without --do_sample")
    return args


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Translates what the options name, and prints a line for each line.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The exit status.
    """
    args = parse_arguments(argv, prog)
    bad_lines = BadLines(args.on_error)
    options = {
        name: getattr(args, name) for name in ("nbest", "scores", "alignments", "batch_size", "batch_tokens", "tag")
    }
    search = {} if args.num_beams is None else {"num_beams": args.num_beams}
    if args.do_sample:
        # transformers' own default draws among 50 tokens.
        search |= {"do_sample": True, "top_k": args.top_k or 0, "temperature": args.temperature, "top_p": args.top_p}
        search = {name: value for name, value in search.items() if value is not None}
        torch.manual_seed(args.seed or 0)
    try:
        models = args.ensemble or [args.model or default_translator()]
        if args.device in ("auto", "cuda") and args.engine != "ctranslate2":
            args.process.take_accelerator()
        asked = {"nbest": args.nbest, **search}
        translator = Translator(models, args.engine, args.device, args.dtype, args.quantization, asked)
        if args.engine == "auto" and not args.quiet:
            print(f"engine {translator.reason}", file=sys.stderr)
        if args.shard_lines is not None:
            batching = {name: getattr(args, name) for name in ("batch_size", "batch_tokens", "read_ahead")}
            file = ShardedFile(args.file, args.shard_lines, batching, bad_lines)
            seed = (args.seed or 0) if args.do_sample else None
            options |= {"read_ahead": args.read_ahead, **search}
            status = translate_shards(
                translator, models, file, args.output, args.process, seed=seed, quiet=args.quiet, **options
            )
            if args.process.rank == 0:
                bad_lines.report()
            return status
        lines, total = read_input(args, bad_lines)
        with open_output(args.output) as output:
            translations = translated_lines(translator, lines, read_ahead=args.read_ahead, **options, **search)
            status = write_lines(translations, output, total, args.quiet)
        bad_lines.report()
        return status
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError) as error:
        print(f"{args.prog}: error: {error}{sentence_hint(args)}", file=sys.stderr)
        return 2


def check_shard_options(parser: OneLineParser, args: argparse.Namespace) -> None:
    """Finds out by which process of how many this is, and refuses what cannot be divided; exits with an error.

    Args:
        parser: of the options.
        args: them; they get a `process`, and `shard_lines` if there are several processes.
    """
    try:
        args.process = Process.of_environment()
    except ValueError as error:
        parser.error(str(error))
    if args.process.count > 1:
        args.shard_lines = SHARD_LINES if args.shard_lines is None else args.shard_lines
        why = f"{args.process.count} processes (WORLD_SIZE) divide the lines of a file"
    elif args.shard_lines is None:
        return
    else:
        why = "--shard_lines divides the lines of a file"
    if args.file is None:
        given = "sentences on the command line" if args.sentences else "standard input"
        parser.error(f"{why}, and {given} cannot be divided; give --file")
    if args.output is None:
        parser.error(f"{why}, and shards are kept beside the output; give --output")


def sentence_hint(args: argparse.Namespace) -> str:
    """Returns advice if the last folder of an ensemble may be meant as a sentence; else the empty string."""
    if args.sentences or not args.ensemble or Path(args.ensemble[-1]).exists():
        return ""
    return (
        f". If {args.ensemble[-1]!r} is a sentence to translate, put -- before it: --ensemble FOLDER FOLDER -- SENTENCE"
    )


def read_input(args: argparse.Namespace, bad_lines: BadLines) -> tuple[Iterable[str], int | None]:
    """Returns the lines to translate, and how many there are where that is known and somebody is shown it."""
    if args.sentences:
        return args.sentences, len(args.sentences)
    if args.file is None:
        if args.read_ahead is None and sys.stdin.isatty():
            args.read_ahead = 1
        return decode_lines(sys.stdin.buffer, "standard input", allow_nul=True, on_error=bad_lines), None
    is_shown = sys.stderr.isatty() and not args.quiet
    total = count_lines(args.file, allow_nul=True, on_error=bad_lines) if is_shown else None
    return read_lines(args.file, allow_nul=True, on_error=bad_lines), total
