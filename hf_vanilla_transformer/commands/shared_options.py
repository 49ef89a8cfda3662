"""Options that several verbs have, said once: where to compute, in batches of what size, and which texts to score."""

import argparse
from collections.abc import Sequence
from typing import Any

from ..inference.one_line_parser import OneLineParser
from ..inference.translator import ENGINES
from ..interop.ctranslate2 import QUANTIZATIONS


def add_device_options(parser: OneLineParser, dtype: bool = True) -> None:
    """Adds `--device` and `--dtype`.

    Args:
        parser: of a verb that uses a model.
        dtype: whether the verb lets the user choose the type of the weights.
    """
    parser.add_argument("--device", default="auto", help="cpu, cuda or mps (default: auto, the best there is)")
    if dtype:
        choices = ["auto", "float32", "bfloat16", "float16"]
        parser.add_argument("--dtype", default="auto", choices=choices, help="of the weights (default: as saved)")


def add_engine_options(parser: OneLineParser) -> None:
    """Adds `--engine` and `--quantization`.

    Args:
        parser: of a verb that translates.
    """
    parser.add_argument("--engine", choices=ENGINES, default="torch", help="ctranslate2 translates several times as "
        "fast on a CPU (extra ctranslate2), now and then with another translation of almost the same score; auto takes "
        "it where it can do what is asked (default: %(default)s)")  # fmt: skip
    parser.add_argument("--quantization", choices=QUANTIZATIONS, default=QUANTIZATIONS[0], help="of --engine "
        "ctranslate2; int8 is faster still, and changes some translations (default: %(default)s)")  # fmt: skip


def check_engine_options(parser: OneLineParser, args: argparse.Namespace) -> None:
    """Refuses options of `add_engine_options` that do not go together; exits with the parser's error.

    Args:
        parser: it.
        args: the options.
    """
    if args.quantization != QUANTIZATIONS[0] and args.engine != "ctranslate2":
        parser.error(f"--quantization {args.quantization} is for --engine ctranslate2, and not for {args.engine}")


def add_batch_tokens_option(parser: OneLineParser) -> None:
    """Adds `--batch_tokens`.

    Args:
        parser: of a verb that translates test sets.
    """
    parser.add_argument("--batch_tokens", type=int, default=4096, help="tokens of a side at a time, padding included "
        "(default: %(default)s)")  # fmt: skip


def add_text_options(parser: OneLineParser) -> None:
    """Adds `--source` with `--references`, or `--test_set` with the keys of its rows.

    Args:
        parser: of a verb that scores translations.
    """
    parser.add_argument("--source", metavar="FILE", help="text for a model to translate")
    references = parser.add_mutually_exclusive_group(required=True)
    references.add_argument("--references", metavar="FILE", nargs="+", help="one reference translation or several")
    references.add_argument("--test_set", metavar="NAME", nargs="+", help="or test sets, which have source and "
        "references")  # fmt: skip
    parser.add_argument("--source_lang", metavar="KEY", help="of the source in the rows of a test set (default: en)")
    parser.add_argument("--target_lang", metavar="KEY", help="of the references in them (default: de)")


def check_text_options(parser: OneLineParser, args: argparse.Namespace) -> None:
    """Refuses options of `add_text_options` that do not go together; exits with the parser's error.

    Args:
        parser: it.
        args: the options.
    """
    if args.test_set and args.source:
        parser.error("--test_set has the source; leave out --source")
    for name in () if args.test_set else ("source_lang", "target_lang"):
        if getattr(args, name):
            parser.error(f"--{name} has no effect without --test_set")


def check_port(parser: OneLineParser, port: int) -> None:
    """Refuses a port that there is not, of which the system would take another; exits with the parser's error.

    Args:
        parser: of a verb that listens.
        port: the value of `--port`; 0 takes any that is free.
    """
    if not 0 <= port <= 65535:
        parser.error(f"--port {port} is no port; allowed: 1 to 65535, or 0 for any that is free")


def first_repeat(values: Sequence[Any]) -> Any:
    """Returns the first value that was there before; None if all differ.

    Args:
        values: of an option.
    """
    return next((value for index, value in enumerate(values) if value in values[:index]), None)
