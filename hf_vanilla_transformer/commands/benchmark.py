"""Compare speed and memory with a peer doing the same work, in turns; prints medians and their ratio."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch

from ..data.text_files import read_lines
from ..inference.one_line_parser import OneLineParser
from ..inference.pipes import run_as_filter
from ..inference.translator import ENGINES
from ..lab.benchmarks import WORKLOADS, compare_loss, compare_train_step
from ..lab.checkpoint_benchmark import compare_engines
from ..lab.decode_benchmark import Cell, compare_decoding
from ..lab.train_benchmark import compare_training

EXAMPLES = """
examples:
  vanilla-transformer benchmark train-step --sizes tiny
  vanilla-transformer benchmark train --turns 2 --train_data source=train.en,target=train.de
  vanilla-transformer benchmark decode --sizes tiny --batch_sizes 1 32 --num_beams 1 4
  vanilla-transformer benchmark decode --model runs/en-de --file test.en --sentences 256
  vanilla-transformer benchmark serve --model runs/en-de --file test.en --clients 200 --requests 50000

Close other programs first: timings are noisy.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads what to compare, and prints the comparison.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    parser = make_parser(prog)
    args = parser.parse_args(argv)
    if args.command == "decode":
        _check_decode(parser, args)

    def work() -> None:
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
        for lines in COMPARISONS[args.command](args):
            print("\n".join(lines), end="\n\n", flush=True)

    return run_as_filter(work, parser.prog)


def make_parser(prog: str | None) -> OneLineParser:
    """Makes the parser of what can be compared.

    Args:
        prog: what to call the program in messages; None for its file name.

    Returns:
        The parser, whose `command` is a key of `COMPARISONS`.
    """
    parser = OneLineParser(prog, description=__doc__, epilog=EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="WHAT")

    def add(name: str, text: str) -> OneLineParser:
        return commands.add_parser(name, help=text, description=f"Compare {text}.", epilog=EXAMPLES)

    train_step = add("train-step", "forward and backward, against MarianMTModel")
    train_step.add_argument("--sizes", nargs="+", choices=WORKLOADS, default=["tiny", "base"], help="work to compare")
    loss = add("loss", "projection and label-smoothed loss, against F.cross_entropy")
    train = add("train", "training end to end, against MarianMT with transformers' trainer")
    train.add_argument("--train_data", nargs="+", required=True, help="pairs, such as source=train.en,target=train.de")
    train.add_argument("--turns", type=_count, default=3, help="measured epochs of each program (default: %(default)s)")
    train.add_argument("--sentences", type=_count, default=6400, help="pairs to train on (default: %(default)s)")
    decode = add("decode", "greedy and beam search, against MarianMTModel and CTranslate2")
    sizes = ["tiny", "base"]
    decode.add_argument("--sizes", nargs="+", choices=sizes, help="random models to decode (default: both)")
    decode.add_argument("--model", metavar="FOLDER", help="or a trained checkpoint, which translates --file with every "
        "engine that is installed")  # fmt: skip
    decode.add_argument("--file", metavar="FILE", help="of sources, for --model")
    decode.add_argument("--sentences", type=_count, help="lines of --file, at most (default: all)")
    decode.add_argument("--batch_sizes", nargs="+", type=_count, default=[1, 32], help="sentences decoded together")
    decode.add_argument("--num_beams", nargs="+", type=_count, help="beams; 1 is greedy (default: 1 4; 4 of a --model)")
    decode.add_argument("--steps", type=_count, help="tokens of each translation of --sizes (default: 20)")
    decode.add_argument("--repeats", type=_count, default=5, help="turns of each program (default: %(default)s)")
    service = add("serve", "a service asked by many clients, against one after the other; each answer is checked")
    service.add_argument(
        "--model", metavar="FOLDER", required=True, help="trained model, which a process of its own serves"
    )
    service.add_argument("--file", metavar="FILE", required=True, help="of sources")
    service.add_argument("--sentences", type=_count, default=1000, help="lines of it, at most (default: %(default)s)")
    service.add_argument("--clients", type=_count, default=200, help="that ask at a time (default: %(default)s)")
    service.add_argument("--requests", type=_count, default=5000, help="of all of them (default: %(default)s)")
    service.add_argument(
        "--alone", type=_count, default=200, help="requests of one client first (default: %(default)s)"
    )
    service.add_argument("--num_beams", type=_count, help="beams of the search; 1 is greedy (default: the model's own)")
    service.add_argument("--engine", choices=ENGINES, default="auto", help="that decodes (default: %(default)s)")
    service.add_argument("--url", help="of a service that is running and serves --model first, such as "
        "http://127.0.0.1:8000 (default: one is started)")  # fmt: skip
    for command in (train_step, loss):
        command.add_argument("--repeats", type=_count, default=10, help="measured steps of each program (default: 10)")
    return parser


def _count(word: str) -> int:
    """Reads a number of which less than 1 would measure nothing."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word} is not a whole number of at least 1")
    return int(word)


def _train_step(args: argparse.Namespace) -> Iterator[list[str]]:
    for size in args.sizes:
        yield compare_train_step(size, args.repeats).lines()


def _loss(args: argparse.Namespace) -> Iterator[list[str]]:
    yield compare_loss(args.repeats).lines()


def _train(args: argparse.Namespace) -> Iterator[list[str]]:
    yield compare_training(args.train_data, turns=args.turns, sentences=args.sentences).lines()


def _check_decode(parser: OneLineParser, args: argparse.Namespace) -> None:
    if (args.model is None) != (args.file is None):
        parser.error("--model and --file go together: a checkpoint, and what it translates")
    without_effect = ["file", "sentences"] if args.model is None else ["sizes", "steps"]
    for name in without_effect:
        if getattr(args, name) is not None:
            parser.error(f"--{name} has no effect {'without' if args.model is None else 'with'} --model")


def _decode(args: argparse.Namespace) -> Iterator[list[str]]:
    if args.model is not None:
        sentences = list(islice(read_lines(args.file), args.sentences))
        for batch_size in args.batch_sizes:
            for num_beams in args.num_beams or [4]:
                yield compare_engines(args.model, sentences, batch_size, num_beams, args.repeats).lines()
        return
    for size in args.sizes or ["tiny", "base"]:
        for batch_size in args.batch_sizes:
            for num_beams in args.num_beams or [1, 4]:
                yield compare_decoding(Cell(size, batch_size, num_beams, steps=args.steps or 20), args.repeats).lines()


def _serve(args: argparse.Namespace) -> Iterator[list[str]]:
    from ..serving.load_test import run_load_test

    sentences = list(islice(read_lines(args.file), args.sentences))
    numbers = (args.clients, args.requests, args.alone, args.num_beams)
    done = run_load_test(args.model, sentences, *numbers, args.engine, args.url)
    yield done.lines()
    if not done.is_right:
        raise ValueError("answers were lost or wrong, or the service did not end in order")


COMPARISONS: dict[str, Callable[[argparse.Namespace], Iterator[list[str]]]] = {
    "train-step": _train_step,
    "loss": _loss,
    "train": _train,
    "decode": _decode,
    "serve": _serve,
}
