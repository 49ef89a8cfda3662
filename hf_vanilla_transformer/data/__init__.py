"""From files to batches: text is read, counted, cut into tokens, disturbed where that is wanted, and stacked.

A sentence pair goes down this list once, on its way to the loss:

    text_files      bytes of a file -> lines, whatever is wrong with them named by line
    corpora         lines, TSV, jsonl, datasets of the Hub -> rows with `source` and `target`
    tokenization    (beforehand) text -> one vocabulary for both languages, §5.1
    filters         which rows are left out, and how many
    tokenized       rows -> token ids, kept by content in a memory-mapped dataset
    span_corruption, bpe_dropout    the noise that is made anew for each epoch
    examples        row and epoch -> `input_ids` and `labels`
    batching        examples of like length -> batches by tokens, §5.1, shared out among processes
    streaming       all of that on the way, for text that is too large to be kept

Nothing here knows of training arguments: each part is given a small dataclass of its own (`Corpus`, `TextFormat`,
`Filters`, `Cache`, `Noise`, `StreamOptions`).
"""

from .corpora import Corpus, TextFormat
from .filters import Filters
from .tokenization import train_tokenizer

__all__ = ["Corpus", "Filters", "TextFormat", "train_tokenizer"]
