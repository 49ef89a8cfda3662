"""Show what each attention head looks at in a translation, as pictures or as one page to explore in a browser."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..inference import default_translator, load_translator, open_output, run_as_filter
from ..inference.one_line_parser import OneLineParser
from ..inference.shipped import DEFAULT_TRANSLATOR
from .shared_options import add_device_options

FORMATS = ("png", "svg")
EXAMPLES = """
examples:
  vanilla-transformer visualize runs/en-de "A dog runs." --html dog.html
  vanilla-transformer visualize runs/en-de "A dog runs." --pictures dog
  vanilla-transformer visualize runs/en-de "A dog runs." --target "Ein Hund läuft." --pictures dog --layer 2
  vanilla-transformer visualize --paper paper-pictures

--html FILE is one page with everything in it, which needs no network: point at a token, or move with the arrow keys, to
see what each head attends to; kind of attention, layer and head can be chosen. It needs nothing but a browser.

--pictures DIR gets a picture of each layer of encoder self-attention, decoder self-attention and cross-attention, with
a map for each head (encoder-layer-1.png and so on), and alignment.png, the mean of the cross-attention over the heads
of a layer. Rows attend to columns. A row of the decoder is named by the token that it predicts; what it cannot attend
to is grey. Tokens are written with a dot for a space: "·dog" begins a word.

--paper DIR gets the pictures that explain the paper, computed by the classes of this package, without MODEL and
SENTENCE: sinusoids in three layouts, their dot products by distance, a shift as a rotation, masks, the variance of dot
products with and without 1/sqrt(d_k), layer norm beside batch norm, the learning rate, smoothed labels.

--pictures and --paper need matplotlib: pip install 'hf-vanilla-transformer[lab]'. All pictures of a folder are written,
or none.
"""

# Options that say something about a sentence, and those about pictures.
_OF_SENTENCE = ("pictures", "html", "target", "tag", "num_beams", "layer")
_OF_PICTURES = ("formats", "overwrite")


def parse_arguments(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Reads the options, and refuses those that do not go together.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The options, and `prog`.
    """
    parser = OneLineParser(prog=prog, description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", help="folder of a trained model and its tokenizer; or the name of a "
        f"checkpoint of model_cards, or of the Hub (default: {DEFAULT_TRANSLATOR}, where it is there)")  # fmt: skip
    add("sentence", metavar="SENTENCE", nargs="?", help="what to translate, in quotation marks")
    add("--html", type=Path, metavar="FILE", help="write one page for a browser")
    add("--pictures", metavar="DIR", help="write pictures of every head into this folder; must be free or empty")
    add("--paper", metavar="DIR", help="write the pictures that explain the paper into this folder")
    add("--target", metavar="TEXT", help="look at this translation, and not at the model's own")
    add("--tag", help="what to put in front of the sentence, such as 2de for the token <2de>")
    add("--num_beams", type=int, metavar="K", help="beams of the search (default: the model's own)")
    add("--layer", type=int, metavar="N", help="decoder layer of alignment.png, from 1 (default: the second-to-last)")
    add("--formats", nargs="+", choices=FORMATS, help="of pictures (default: png svg)")
    add("--overwrite", action="store_true", help="replace pictures that are in the folder already")
    add_device_options(parser)
    args = parser.parse_args(argv, argparse.Namespace(prog=parser.prog))
    if args.sentence is None:  # a single word is the sentence
        args.model, args.sentence = None, args.model
        if args.sentence is not None and Path(args.sentence).is_dir():
            parser.error(f"{args.sentence} is a folder; give a sentence to translate after it")
    if args.sentence is None:
        if args.paper is None:
            parser.error("give a sentence to translate, with --html FILE or --pictures DIR; or --paper DIR")
        for name in _OF_SENTENCE:
            if getattr(args, name) is not None:
                parser.error(f"--{name} has no effect without a sentence")
    elif args.html is None and args.pictures is None:
        parser.error("say where to show what the heads attend to: --html FILE, --pictures DIR, or both")
    if args.layer is not None and args.pictures is None:
        parser.error("--layer has no effect without --pictures")
    for name in _OF_PICTURES if args.pictures is None and args.paper is None else ():
        if getattr(args, name):
            parser.error(f"--{name} has no effect without --pictures or --paper")
    if args.target is not None and args.num_beams is not None:
        parser.error("--num_beams has no effect with --target: nothing is searched")
    if args.pictures is not None and args.paper is not None and Path(args.pictures) == Path(args.paper):
        parser.error(f"--pictures and --paper both name {args.paper}; give each a folder")
    args.formats = args.formats or FORMATS
    return args


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Translates the sentence, and writes the page and the pictures that the options ask for.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    args = parse_arguments(argv, prog)

    def work() -> None:
        if args.sentence is not None:
            show_sentence(args)
        if args.paper is not None:
            from ..lab.plots_paper import paper_pictures

            save(args, paper_pictures(), args.paper)

    return run_as_filter(work, args.prog)


def show_sentence(args: argparse.Namespace) -> None:
    """Translates the sentence, and writes what its heads attend to.

    Args:
        args: the options.

    Raises:
        OSError: a model is not there, or a file or folder cannot be written.
        ValueError: the model cannot translate the sentence, or matplotlib is not installed.
    """
    from ..lab.attention_maps import attention_maps
    from ..lab.attention_page import attention_page
    from ..lab.plots import attention_pictures

    name = args.model or default_translator()
    model, tokenizer = load_translator([name], args.device, args.dtype)
    options = {} if args.num_beams is None else {"num_beams": args.num_beams}
    maps = attention_maps(model, tokenizer, args.sentence, args.target, args.tag, **options)
    print(maps.translation)
    figures = attention_pictures(maps, args.layer) if args.pictures is not None else {}
    if args.html is not None:
        with open_output(args.html) as file:
            file.write(attention_page(maps, Path(name).name))
        print(f"written: {args.html}")
    if figures:
        save(args, figures, args.pictures)


def save(args: argparse.Namespace, figures: dict, folder: str) -> None:
    """Writes pictures, and says which.

    Args:
        args: the options.
        figures: by name.
        folder: where to.

    Raises:
        OSError: the folder is not empty, or cannot be written.
    """
    from ..lab.drawing import save_pictures

    names = save_pictures(figures, folder, args.formats, args.overwrite)
    print(f"written to {folder}: {', '.join(names)}")
