"""Translate sentences with a trained model, one line out for each line in."""

import argparse
import sys
from collections.abc import Iterator

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import hf_vanilla_transformer  # noqa: F401  registers the model with the Auto classes
from hf_vanilla_transformer.inference import translate
from hf_vanilla_transformer.training.text_files import read_lines


def main() -> int:
    """Reads the options, translates what they name, and prints a line for each line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  translate.py --model runs/en-de 'A dog runs.' 'A man sleeps.'\n"
        "  translate.py --model runs/en-de --file test.en > test.de\n  cat test.en | translate.py --model runs/en-de",
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

    model = AutoModelForSeq2SeqLM.from_pretrained(args.model, trust_remote_code=False).to(args.device)
    tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
    options = {} if args.num_beams is None else {"num_beams": args.num_beams}
    lines = args.sentences or (read_lines(args.file) if args.file else _standard_input())
    count = 0
    for translation in translate(model, tokenizer, lines, batch_size=args.batch_size, **options):
        # One line out for each line in, also where the model says a line break.
        print(" ".join(translation.splitlines()), flush=count % args.batch_size == 0)
        count += 1
    print(f"{count} sentences translated", file=sys.stderr)
    return 0


def _standard_input() -> Iterator[str]:
    return (line.rstrip("\r\n") for line in sys.stdin)


if __name__ == "__main__":
    sys.exit(main())
