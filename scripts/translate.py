"""Translate sentences with a trained model, one line out for each line in."""

import argparse
import sys
from collections.abc import Iterable

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import hf_vanilla_transformer  # noqa: F401  registers the model with the Auto classes
from hf_vanilla_transformer.inference import translate
from hf_vanilla_transformer.training.text_files import decode_lines, read_lines

EXAMPLES = """
examples:
  python scripts/translate.py --model runs/en-de "A dog runs." "A man sleeps."
  python scripts/translate.py --model runs/en-de --file test.en > test.de
  cat test.en | python scripts/translate.py --model runs/en-de --num_beams 1

Empty lines stay empty lines. How long a translation may be, the model's generation_config says: 50 tokens more than
its source (max_extra_tokens), for a model of this package.
"""


def main() -> int:
    """Reads the options, translates what they name, and prints a line for each line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sentences", nargs="*", help="what to translate; without it, standard input is read")
    parser.add_argument("--model", required=True, help="folder (or Hub name) of a trained model and its tokenizer")
    parser.add_argument("--file", help="translate the lines of this file (.gz too)")
    parser.add_argument("--batch_size", type=int, default=32, help="sentences decoded at a time (default: 32)")
    parser.add_argument("--num_beams", type=int, help="beams of the search; default is the model's own")
    parser.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, mps (default: cpu)")
    args = parser.parse_args()
    if args.sentences and args.file:
        parser.error("give either sentences or --file, and not both")

    lines: Iterable[str] = args.sentences
    if not args.sentences:
        lines = read_lines(args.file) if args.file else decode_lines(sys.stdin.buffer, "standard input")
    options = {} if args.num_beams is None else {"num_beams": args.num_beams}
    count = 0
    try:
        model = AutoModelForSeq2SeqLM.from_pretrained(args.model, trust_remote_code=False).to(args.device)
        tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
        for translation in translate(model, tokenizer, lines, batch_size=args.batch_size, **options):
            # One line out for each line in, also where the model says a line break.
            print(" ".join(translation.splitlines()))
            count += 1
    except (OSError, ValueError) as error:
        sys.stdout.flush()
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    print(f"{count} sentences translated", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
