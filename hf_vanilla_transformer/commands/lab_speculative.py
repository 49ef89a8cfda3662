"""Measure speculative decoding: how many tokens of a small draft a model accepts, and whether that saves time."""

from collections.abc import Sequence
from itertools import islice

from ..data.text_files import read_lines
from ..inference import load_model, load_translator, run_as_filter
from ..inference.one_line_parser import OneLineParser
from ..lab.speculative import compare_speculative, speculative_table
from .shared_options import add_device_options

EXAMPLES = """
examples:
  vanilla-transformer pretrain runs/en-de/recipe.yaml --tokenizer_name_or_path runs/en-de --output_dir runs/draft \\
      --config_overrides num_encoder_layers=1 num_decoder_layers=1 --train_data source=train.en,target=distilled.de
  vanilla-transformer lab-speculative --model runs/en-de --draft runs/draft --file val.en --draft_tokens 2 4 6

Sentences are decoded one at a time and greedily, as in a program that answers one person; with the draft, the tokens
are those of the model alone, but for ties in rounding. The draft has the model's vocabulary, and learns best from the
model's own translations. Close other programs first: timings are noisy.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads a model and its draft, decodes with and without, and prints the table.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    parser = OneLineParser(prog, description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--draft", required=True, help="folder of the draft, which has the model's vocabulary")
    parser.add_argument("--file", required=True, help="sentences to translate, one a line")
    counts = {"sentences": 200, "turns": 3}
    parser.add_argument("--draft_tokens", metavar="N", type=int, nargs="+", default=[3, 5],
        help="tokens drafted before each check (default: 3 5)")  # fmt: skip
    for name, default in counts.items():
        parser.add_argument(f"--{name}", metavar="N", type=int, default=default, help="(default: %(default)s)")
    add_device_options(parser)
    args = parser.parse_args(argv)
    for name in (*counts, "draft_tokens"):
        value = getattr(args, name)
        if (least := value if isinstance(value, int) else min(value)) < 1:
            parser.error(f"--{name} {least} is less than 1")

    def work() -> None:
        model, tokenizer = load_translator([args.model], args.device, args.dtype)
        draft = load_model(args.draft, args.dtype).to(model.device).eval()
        sentences = list(islice(filter(str.strip, read_lines(args.file)), args.sentences))
        pair = (model, draft, tokenizer, sentences)
        found = [compare_speculative(*pair, each, args.turns) for each in args.draft_tokens]
        print(speculative_table(found))

    return run_as_filter(work, parser.prog)
