"""Measure speculative decoding: how many tokens of a small draft a model accepts, and whether that saves time."""

from collections.abc import Sequence
from itertools import islice

from ..data.text_files import read_lines
from ..inference import load_model, load_translator, run_as_filter
from ..inference.one_line_parser import OneLineParser
from ..lab.speculative import compare_speculative, speculative_table
from .shared_options import add_device_options

EXAMPLES = """
examples, from a clone of the package and with Multi30k in data/multi30k:
  vanilla-transformer translate --model multi30k-de-en-tiny --file data/multi30k/train.de --num_beams 1 \\
      --output data/multi30k/distilled.en
  vanilla-transformer pretrain model_cards/multi30k-de-en-tiny/recipe.yaml \\
      --tokenizer_name_or_path model_cards/multi30k-de-en-tiny --output_dir runs/draft \\
      --train_data source=data/multi30k/train.de,target=data/multi30k/distilled.en \\
      --config_overrides norm_position=pre dropout=0.1 d_ff=512 num_encoder_layers=1 num_decoder_layers=1
  vanilla-transformer lab-speculative --model multi30k-de-en-tiny --draft runs/draft --file data/multi30k/val.de \\
      --draft_tokens 2 4 6

The draft has the model's vocabulary, and learns from the model's own greedy translations; with `--distill_from
model_cards/multi30k-de-en-tiny --distill_share 0.9` in place of the tokenizer, and train.en as targets, from what the
model predicts for each token. --config_overrides replaces all that a recipe has, so it lists norm_position, dropout and
d_ff again.

Sentences are decoded one at a time and greedily, as in a program that answers one person; with the draft, the tokens
are those of the model alone, but for ties in rounding. With a draft, both models run in transformers' loop; the last
speed is that of the model alone in it, without the incremental decoder of this package. Close other programs first:
timings are noisy.
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
