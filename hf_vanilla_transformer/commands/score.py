"""Score given translations: how probable a trained model finds them, sentence by sentence or token by token."""

import sys
from collections.abc import Sequence

from ..data.corpora import parallel_lines, tab_separated
from ..data.text_files import decode_lines, read_lines
from ..evaluation import ScoreTotals, score_pairs
from ..inference import BadLines, load_translator, run_as_filter
from ..inference.one_line_parser import OneLineParser
from .shared_options import add_device_options

EXAMPLES = """
examples:
  vanilla-transformer score --model runs/en-de --source test.en --target test.de > scores.tsv
  vanilla-transformer score --model runs/en-de --file pairs.tsv --per_token
  paste test.en output.de | vanilla-transformer score --ensemble runs/one runs/two --json

Output: for each pair a line of log-probability in nats <tab> number of tokens <tab> nats per token. --per_token adds a
column of token:log-probability, separated by spaces. The end of a sentence, </s>, is a token too. Empty sides are
scored like others. Totals are written to standard error; in them and in --json, the end of a line counts as a
character.

A line that is not UTF-8, has a NUL byte, or is not SOURCE<tab>TARGET stops the program (default). With --on_error skip
it gets an empty line instead, so that line N stays line N, and is not counted in the totals; at the end, standard
error says how many there were.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads the options, scores the pairs that they name, and prints a line for each.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The exit status.
    """
    parser = OneLineParser(prog=prog, description=__doc__, epilog=EXAMPLES)
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument("--model", help="folder (or Hub name) of a trained model and its tokenizer")
    models.add_argument(
        "--ensemble", nargs="+", metavar="FOLDER", help="or several models, whose probabilities are averaged"
    )
    parser.add_argument("--source", metavar="FILE", help="sentences, one a line (.gz too)")
    parser.add_argument("--target", metavar="FILE", help="their translations, line for line")
    parser.add_argument("--file", help="or lines of SOURCE<tab>TARGET; without files, standard input is read")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--per_token", action="store_true", help="add the log-probability of each token")
    output.add_argument("--json", action="store_true", help="write a JSON object for each pair, with its tokens")
    parser.add_argument("--tag", help="what to put in front of each source, such as 2de for the token <2de>")
    parser.add_argument(
        "--batch_tokens",
        type=int,
        default=4096,
        help="tokens of a side scored at a time, padding included (default: 4096)",
    )
    add_device_options(parser)
    parser.add_argument(
        "--on_error", default="stop", choices=["stop", "skip"], help="what to do about a line that is no pair"
    )
    args = parser.parse_args(argv)
    if (args.source is None) != (args.target is None) or (args.source and args.file):
        parser.error("give --source with --target, or --file, or none of them for standard input")

    def work() -> None:
        bad_lines = BadLines(args.on_error)
        if args.source:
            rows = parallel_lines(args.source, args.target, bad_lines)
        elif args.file:
            rows = tab_separated(read_lines(args.file, on_error=bad_lines), args.file, bad_lines)
        else:
            lines = decode_lines(sys.stdin.buffer, "standard input", on_error=bad_lines)
            rows = tab_separated(lines, "standard input", bad_lines)
        model, tokenizer = load_translator(args.ensemble or [args.model], args.device, args.dtype)
        # Whoever types pairs wants to see the score of each at once.
        read_ahead = 1 if not (args.source or args.file) and sys.stdin.isatty() else 1024
        totals = ScoreTotals()
        pairs = ((row["source"], row["target"]) for row in rows)
        scores = score_pairs(model, tokenizer, pairs, args.batch_tokens, read_ahead, args.tag)
        for number, score in enumerate(scores, start=1):
            if number in bad_lines.numbers:
                print()
                continue
            print(score.to_json() if args.json else score.to_line(args.per_token))
            totals.add(score)
        print(totals.describe(), file=sys.stderr)
        bad_lines.report()

    return run_as_filter(work, parser.prog)
