"""Learn one vocabulary for source and target language from text files, and save it as a Hugging Face tokenizer.

bpe        is byte-level: any text can be encoded, and is decoded to exactly what it was.
wordpiece  is as in BERT: words end at whitespace and punctuation. It cannot be decoded exactly. Lost are how much
           whitespace there was and of which kind, which punctuation marks touched their neighbours, and each word of
           more than 100 characters or with a character that the training text has not: it becomes <unk>.

Both end every text with </s>, and have <s>, <pad>, </s> and <unk> as tokens 0 to 3, then the sentinels, if any. "</s>"
written in a text is text.
"""

import argparse
import sys

from ..data.tokenization import tokenizer_statistics, train_tokenizer

EXAMPLE = """
example, one vocabulary for English and German:
  python scripts/train_tokenizer.py --files train.en train.de.gz --vocab_size 8000 --output_dir runs/tokenizer

then, in Python:
  from transformers import AutoTokenizer
  tokenizer = AutoTokenizer.from_pretrained("runs/tokenizer")
  tokenizer(["A dog runs."], text_target=["Ein Hund rennt."])

A small corpus wants a small vocabulary: 8,000 for 29,000 sentence pairs; the paper has 37,000 for 4.5 million.
"""


def main() -> int:
    """Reads the options, trains and saves the tokenizer, and says what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--files",
        nargs="+",
        required=True,
        metavar="F",
        help="UTF-8 text of both languages, one sentence a line; .gz too",
    )
    parser.add_argument(
        "--vocab_size", type=int, default=37000, metavar="N", help="tokens in the vocabulary (default: %(default)s)"
    )
    parser.add_argument("--model", default="bpe", help="bpe or wordpiece, see above (default: %(default)s)")
    parser.add_argument("--lowercase", action="store_true", help="lower-case all text; decoding then gives lower case")
    parser.add_argument(
        "--num_sentinels",
        type=int,
        default=0,
        metavar="N",
        help="special tokens <sentinel_0> ... to add, for pretraining by span corruption; 100 will do",
    )
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="folder to save the tokenizer in")
    args = parser.parse_args()
    try:
        tokenizer = train_tokenizer(
            files=args.files,
            vocab_size=args.vocab_size,
            model=args.model,
            lowercase=args.lowercase,
            num_sentinels=args.num_sentinels,
            output_dir=args.output_dir,
            show_progress=sys.stderr.isatty(),  # elsewhere the bars come out as empty lines
        )
        statistics = tokenizer_statistics(tokenizer, args.files)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    print(f"Vocabulary: {len(tokenizer):,} tokens, {args.vocab_size:,} asked for")
    print(f"Read:       {statistics.lines:,} lines in {statistics.files} file(s)")
    print(
        f"Fertility:  {statistics.tokens_per_word:.2f} tokens a word, {statistics.tokens_per_line:.1f} a line "
        f"(without </s>; mean of {statistics.sampled_lines:,} lines)"
    )
    print(f"Saved in:   {args.output_dir}")
    print(f"Load with:  AutoTokenizer.from_pretrained({args.output_dir!r})")
    return 0
