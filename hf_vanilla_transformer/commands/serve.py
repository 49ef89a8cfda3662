"""Serve trained models over HTTP: translations, scores, streams, and the fields of LibreTranslate."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..inference.one_line_parser import OneLineParser
from ..inference.pipes import run_as_filter
from ..serving.access_token import TOKEN_VARIABLE, read_token
from ..serving.limits import Limits
from .shared_options import add_device_options, add_engine_options, check_engine_options, check_port, first_repeat

if TYPE_CHECKING:
    from ..serving.process import Service

_LIMITS = {
    "max_characters": "characters of a text",
    "max_texts": "texts of a request",
    "max_body": "bytes of a request",
    "max_beams": "beams, and translations of a text",
    "max_beam_tokens": "source tokens of a request, times its beams",
    "max_batch_tokens": "source tokens decoded at a time, padding included, and of a text",
    "max_batch_texts": "texts decoded at a time, however short",
    "max_wait": "milliseconds that a text waits for others to be decoded with",
    "max_queue": "texts that wait for a model",
    "max_queue_beam_tokens": "source tokens times beams of the texts that wait for a model",
    "max_streams": "translations streamed at a time",
    "max_connections": "open connections",
}

EXAMPLES = f"""
examples:
  vanilla-transformer serve --model g2p-15-languages --languages g2p-15-languages=:ipa
  curl http://127.0.0.1:8000/translate --json '{{"text": "bonjour", "source_lang": "fre", "nbest": 2, "scores": true}}'

  vanilla-transformer serve --model runs/en-de fr=runs/en-fr --languages en-de=en:de fr=en:fr
  curl http://127.0.0.1:8000/translate --json '{{"text": ["A dog runs.", "Two men."], "target_lang": "fr"}}'
  curl http://127.0.0.1:8000/translate --json '{{"text": "A dog runs.", "model": "en-de", "num_beams": 1}}'
  curl http://127.0.0.1:8000/translate --json '{{"q": "A dog.", "source": "en", "target": "de", "alternatives": 2}}'
  curl http://127.0.0.1:8000/translate -d q="A dog runs." -d source=en -d target=de
  curl -N http://127.0.0.1:8000/translate/stream --json '{{"text": "A dog runs."}}'
  curl http://127.0.0.1:8000/score --json '{{"source": "A dog runs.", "target": "Ein Hund rennt."}}'
  curl http://127.0.0.1:8000/models    and /languages, /health, /metrics (Prometheus), /docs, /openapi.json

  vanilla-transformer serve --model runs/en-de --host 0.0.0.0 --port 9000 --token_file token.txt --max_queue 4096
  curl http://example.org:9000/translate -H "Authorization: Bearer $(cat token.txt)" --json '{{"text": "A dog runs."}}'

Texts of many requests are decoded together if they have the same options: as many as have --max_batch_tokens, or what
has come when the oldest has waited --max_wait milliseconds. An answer is that of `translate` for the same text, up to
rounding where two translations are equally good. Streams and scores are computed by torch, whatever the engine.

What is refused is answered by {{"error": a sentence, "code": a word}}: 400 and 422 for what cannot be read or is not
expected, 401 without the token, 404, 413 over a limit, 429 with Retry-After when --max_queue texts wait already, or
--max_queue_beam_tokens. Only above --max_connections (503), and to what is not HTTP (400), the server below answers by
plain text. A connection is closed if nothing has been asked for ten seconds. Texts of a client that leaves are taken
from the queue. SIGTERM and Ctrl-C end the service when what it has accepted is done.

The token is read from the file of --token_file or from the variable {TOKEN_VARIABLE}; clients of
LibreTranslate may send it as api_key. /health and /languages need none. TLS is the business of a proxy in front, which
also passes on the name under which it was asked: see --allowed_hosts.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads the options, loads the models that they name, and serves until a signal ends it.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status: 0 after SIGTERM, 130 after Ctrl-C, 2 for options or models that cannot be used.
    """
    parser = make_parser(prog)
    args = parser.parse_args(argv)
    check_engine_options(parser, args)
    check_port(parser, args.port)
    folders, languages = models_and_languages(parser, args)
    if find_spec("fastapi") is None or find_spec("uvicorn") is None or find_spec("prometheus_client") is None:
        parser.error("this verb needs more packages: pip install 'hf-vanilla-transformer[serve]'")

    def work() -> None:
        from ..serving.process import serve

        serve(make_service(args, folders, languages))

    return run_as_filter(work, parser.prog)


def make_parser(prog: str | None) -> OneLineParser:
    """Makes the parser of the options.

    Args:
        prog: what to call the program in messages; None for its file name.
    """
    parser = OneLineParser(prog=prog, description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("--model", nargs="+", required=True, metavar="[NAME=]FOLDER", help="trained models; requests ask for them by "
        "NAME, which is that of the folder if left out. The first is the default")  # fmt: skip
    add("--languages", nargs="+", default=[], metavar="NAME=FROM:TO", help="languages of a model, such as en-de=en:de; "
        "several are separated by commas, and a side left out (g2p=:ipa) is read off the model's tags")  # fmt: skip
    add("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for other machines too (default: "
        "%(default)s, this machine only)")  # fmt: skip
    add("--port", type=int, default=8000, help="0 takes any that is free, and says which (default: %(default)s)")
    add("--token_file", metavar="FILE", help="file with the token that requests have to bring (default: none)")
    add("--allowed_hosts", nargs="+", metavar="NAME", help="names under which the service may be asked for, as behind "
        "a proxy (default: those of this machine with --host 127.0.0.1, else any)")  # fmt: skip
    add_engine_options(parser)
    parser.set_defaults(engine="auto")
    add_device_options(parser)
    limits = parser.add_argument_group("limits")
    for field in fields(Limits):
        kind = float if field.type is float else int
        text = f"{_LIMITS[field.name]} (default: %(default)s)"
        limits.add_argument(f"--{field.name}", type=kind, default=field.default, metavar="N", help=text)
    add("--shutdown_seconds", type=int, metavar="N", help="give up what still waits N seconds after SIGTERM, but "
        "finish the batch in work (default: all that was accepted is answered)")  # fmt: skip
    add("--access_log", action="store_true", help="write a line for each request, without its texts")
    return parser


def models_and_languages(parser: OneLineParser, args: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """Reads --model and --languages; ends the program where they are not of their form, or have a name twice.

    Args:
        parser: of the options.
        args: as it returned them.

    Returns:
        Folders, and languages as they were written; by names of models.
    """
    folders = _by_name(parser, "--model", args.model, lambda folder: Path(folder).resolve().name)
    return folders, _by_name(parser, "--languages", args.languages)


def make_service(args: argparse.Namespace, folders: Mapping[str, str], languages: Mapping[str, str]) -> "Service":
    """Makes what is served of the options.

    Args:
        args: as the parser returned them.
        folders: of the models, by name.
        languages: as `models_and_languages` returns them.

    Returns:
        The service.

    Raises:
        OSError: the file of the token cannot be read.
        ValueError: the token or a limit is not allowed.
    """
    from ..serving.process import Service  # whose packages are an extra

    return Service(
        folders,
        languages,
        args.host,
        args.port,
        read_token(args.token_file),
        args.allowed_hosts,
        args.shutdown_seconds,
        args.access_log,
        Limits(**{field.name: getattr(args, field.name) for field in fields(Limits)}),
        {name: getattr(args, name) for name in ("engine", "device", "dtype", "quantization")},
    )


def _by_name(
    parser: OneLineParser, option: str, words: Sequence[str], name_of: Callable[[str], str] | None = None
) -> dict[str, str]:
    """Reads words of the form NAME=VALUE, or VALUE if it says its name."""
    pairs = []
    for word in words:
        name, sign, value = word.partition("=")
        if sign and name and value:
            pairs.append((name, value))
        elif not sign and name_of is not None:
            pairs.append((name_of(word), word))
        else:
            parser.error(f"{option} {word} is not of the form NAME=VALUE")
    if (twice := first_repeat([name for name, _ in pairs])) is not None:
        parser.error(f"{option} has two of the name {twice}; give them names of their own: NAME=VALUE")
    return dict(pairs)
