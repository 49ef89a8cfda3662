"""Show a page on which one sees a model think: its beam search as a tree, and the attention behind each hypothesis."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import fields

from ..demo.limits import Limits
from ..inference.one_line_parser import OneLineParser
from ..inference.pipes import run_as_filter
from .shared_options import check_port

_GRADIO = "gradio>=6.31"  # as the extra `demo` has it
_LIMITS = {
    "max_characters": "characters of a text",
    "max_tokens": "source tokens of a text",
    "max_beams": "beams of a search",
}

EXAMPLES = """
examples:
  vanilla-transformer demo
  vanilla-transformer demo --model runs/en-de runs/en-fr --port 8080

Without --model the page shows the shipped checkpoints: German to English, and pronunciation in fifteen languages. It
translates while one types, and shows which hypotheses were kept, pruned and finished, what the length penalty reranks,
the probabilities of the next tokens (click one to continue from there), what every head attends to, and the encoding of
positions. It works with the keyboard alone, on a phone's width, light and dark (by the system, or ?__theme=dark).

Nothing leaves this machine: the page has no scripts, fonts or pictures from elsewhere. Programs can call what it calls:
gradio_client.Client("http://127.0.0.1:7860").predict("g2p-15-languages", "bonjour", "<fre>", api_name="/search")

`publish --space` makes a Space of the Hub out of it.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads the options, loads the models that they name, and serves the page until a signal ends it.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status: 0 when Ctrl-C or SIGTERM ended it, 2 for options or models that cannot be used, 130 after
        Ctrl-C before it began to serve.
    """
    parser = make_parser(prog)
    args = parser.parse_args(argv)
    check_port(parser, args.port)
    if (lack := _lack_of_gradio()) is not None:
        parser.error(f"this verb needs {_GRADIO}, {lack}: pip install 'hf-vanilla-transformer[demo]'")

    def work() -> None:
        from ..demo.server import default_models, load_models, make_server, serve

        limits = Limits(**{name: value for name, value in vars(args).items() if name.startswith("max_")})
        serve(make_server(load_models(args.model or default_models(), limits, args.device)), args.host, args.port)

    return run_as_filter(work, parser.prog)


def make_parser(prog: str | None = None) -> OneLineParser:
    """Makes the parser of the options.

    Args:
        prog: what to call the program in messages; None for its file name.
    """
    parser = OneLineParser(prog=prog, description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("--model", nargs="+", metavar="FOLDER", help="trained models, the first to begin with (default: the shipped "
        "checkpoints)")  # fmt: skip
    add("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for other machines too (default: "
        "%(default)s, this machine only)")  # fmt: skip
    add("--port", type=int, default=7860, help="0 takes any that is free, and says which (default: %(default)s)")
    add("--device", default="auto", help="cpu, cuda or mps (default: auto, the best there is)")
    limits = parser.add_argument_group("limits")
    for field in fields(Limits):
        text = f"{_LIMITS[field.name]} (default: %(default)s)"
        limits.add_argument(f"--{field.name}", type=int, default=field.default, metavar="N", help=text)
    return parser


def _lack_of_gradio() -> str | None:
    """What is wrong with the Gradio that is installed; None if nothing is."""
    # Imported in here: `--help` does without transformers.
    from transformers.utils.versions import require_version

    try:
        require_version(_GRADIO)
    except importlib.metadata.PackageNotFoundError:
        return "and there is none"
    except ImportError:
        return f"and here is {importlib.metadata.version('gradio')}"
    return None
