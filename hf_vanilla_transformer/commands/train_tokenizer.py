"""Learn one vocabulary for source and target language from text files, and save it as a Hugging Face tokenizer.

bpe        is byte-level: any text can be encoded, and is decoded to exactly what it was.
wordpiece  is as in BERT: words end at whitespace and punctuation. It cannot be decoded exactly. Lost are how much
           whitespace there was and of which kind, which punctuation marks touched their neighbours, and each word of
           more than 100 characters or with a character that the training text does not have: it becomes <unk>.

--source_units lowercase_bpe is bpe that reads sources in lower case and targets as they are, for little text.
--source_units and --target_units are otherwise for words rather than sentences, such as spelling and pronunciation:
characters      each character is a token
nfd_characters  likewise, in Unicode's form NFD: letters and marks apart, Korean as jamo; decoding composes them
words           what stands between whitespace, such as phones

All end every text with </s>, and have <s>, <pad>, </s> and <unk> as tokens 0 to 3, then <mask>,
sentinels and tags, if any.
"</s>" written in a text is text.
"""

import sys
from collections.abc import Sequence
from typing import Any

from ..data.corpora import TextFormat
from ..data.lowercase_bpe import train_lowercase_bpe
from ..data.tokenization import save_tokenizer, tokenizer_statistics, train_tokenizer
from ..data.unit_tokenizer import UNITS, pairs_of_files, train_unit_tokenizer
from ..inference.one_line_parser import OneLineParser
from ..inference.pipes import run_as_filter
from ..interop.output_folder import output_folder
from ..tokenization_tags import tag_tokens

_LOWERCASE = "lowercase_bpe"

EXAMPLE = """
examples, one vocabulary for English and German:
  vanilla-transformer train-tokenizer --files train.en train.de.gz --vocab_size 8000 --output_dir runs/tokenizer
  vanilla-transformer train-tokenizer --files train.jsonl --source_lang en --target_lang de --output_dir runs/tokenizer
  vanilla-transformer train-tokenizer --files words.tsv --source_units characters --target_units words \
      --output_dir runs/tokenizer

then, in Python:
  from transformers import AutoTokenizer
  tokenizer = AutoTokenizer.from_pretrained("runs/tokenizer")
  tokenizer(["A dog runs."], text_target=["Ein Hund rennt."])

A small corpus wants a small vocabulary: 8,000 for 29,000 sentence pairs; the paper has 37,000 for 4.5 million.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads the options, trains and saves the tokenizer, and says what came of it.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    parser = OneLineParser(prog, description=__doc__, epilog=EXAMPLE)
    add = parser.add_argument
    files = "text of both languages: UTF-8, one sentence a line, or .jsonl or .tsv files of pairs; .gz too"
    add("--files", nargs="+", required=True, metavar="F", help=files)
    add("--source_lang", default="en", metavar="KEY", help="key of the source in .jsonl rows (default: %(default)s)")
    add("--target_lang", default="de", metavar="KEY", help="key of the target in .jsonl rows (default: %(default)s)")
    add("--monolingual", action="store_true", help='.jsonl rows are {"text": "..."} rather than pairs')
    add("--vocab_size", type=int, default=37000, metavar="N", help="tokens in the vocabulary (default: %(default)s)")
    add("--model", default="bpe", metavar="NAME", help="bpe or wordpiece, see above (default: %(default)s)")
    add("--lowercase", action="store_true", help="lower-case all text; decoding then gives lower case")
    sentinels = "special tokens <sentinel_0> ... to add, for pretraining by span corruption; 100 will do"
    add("--num_sentinels", type=int, default=0, metavar="N", help=sentinels)
    add("--mask_token", action="store_true", help="add <mask>, for masked language models and denoising")
    add("--source_units", choices=[_LOWERCASE, *UNITS], help="cut sources so, instead of --model, see above")
    add("--target_units", choices=UNITS, help="likewise for targets (default: as sources)")
    tags = "special tokens that may stand in front of a source, such as 2de for <2de>"
    add("--tags", nargs="+", default=[], metavar="TAG", help=tags)
    add("--output_dir", required=True, metavar="DIR", help="folder to save the tokenizer in; must be free or empty")
    add("--overwrite", action="store_true", help="replace files that are in --output_dir already")
    args = parser.parse_args(argv)
    if args.source_units is None and args.target_units is not None:
        parser.error("--target_units needs --source_units")
    if args.source_units == _LOWERCASE and args.target_units is not None:
        parser.error(f"--target_units has no effect with --source_units {_LOWERCASE}, whose targets are bpe")
    if args.source_units is not None and (args.lowercase or args.model != "bpe"):
        parser.error("--model and --lowercase have no effect with --source_units")

    def work() -> None:
        text_format = TextFormat(args.source_lang, args.target_lang, args.monolingual)
        with output_folder(args.output_dir, args.overwrite) as folder:
            options: dict[str, Any] = {"vocab_size": args.vocab_size, "num_sentinels": args.num_sentinels}
            options["mask_token"] = args.mask_token
            options["tags"] = [token for tag in args.tags for token in tag_tokens(tag)]
            if args.source_units == _LOWERCASE:
                rows = pairs_of_files(args.files, same_units=False, text_format=text_format)
                tokenizer = train_lowercase_bpe(rows, show_progress=sys.stderr.isatty(), **options)
            elif args.source_units is not None:
                units = (args.source_units, args.target_units or args.source_units)
                pairs = pairs_of_files(args.files, units[0] == units[1], text_format)
                tokenizer = train_unit_tokenizer(pairs, source_units=units[0], target_units=units[1], **options)
            else:
                tokenizer = train_tokenizer(
                    files=args.files,
                    model=args.model,
                    lowercase=args.lowercase,
                    show_progress=sys.stderr.isatty(),  # elsewhere the bars come out as empty lines
                    text_format=text_format,
                    **options,
                )
            save_tokenizer(tokenizer, folder)
        statistics = tokenizer_statistics(tokenizer, args.files, text_format=text_format)
        print(f"Vocabulary: {len(tokenizer):,} tokens, {args.vocab_size:,} asked for")
        print(f"Read:       {statistics.lines:,} lines in {statistics.files} file(s)")
        print(
            f"Fertility:  {statistics.tokens_per_word:.2f} tokens per word, {statistics.tokens_per_line:.1f} per line "
            f"(without </s>; mean of {statistics.sampled_lines:,} lines)"
        )
        print(f"Saved in:   {args.output_dir}")
        print(f"Load with:  AutoTokenizer.from_pretrained({args.output_dir!r})")

    return run_as_filter(work, parser.prog)
