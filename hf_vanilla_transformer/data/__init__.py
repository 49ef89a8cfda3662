"""From files to batches: text is read, counted, cut into tokens, disturbed where that is wanted, and stacked.

A sentence pair goes down this list once, on its way from a file to the loss:

    text_files      bytes -> lines; what is wrong with one is named by file and line
    corpora, rows   lines of text, TSV, jsonl, rows of datasets -> rows with `source` and `target`; tags (in the root)
                    say what a source is to become, and stand in its text
    text_to_ids     (in the root) text -> token ids that end with </s>, by the tokenizer of the run
    tokenized       rows -> ids, lengths and a hash of the text, kept by content and tokenizer, memory-mapped
    filters         lengths and hashes -> which rows are kept, and how many are not for which reason
    examples        row and epoch -> `input_ids` and `labels`: as they are, or made anew by bpe_dropout or, of text
                    without a translation, by an objective of noise; and how long they will be
    mixing          sizes of corpora -> how often each is learned from
    batching        lengths -> which examples are a batch (§5.1), of similar length or any, the same on all processes,
                    and whose it is;
                    examples -> padded tensors, which the trainer hands to the model and its loss

streaming goes the same way for text that is too large to be kept, a buffer of sentences at a time. Beforehand,
tokenization learns one vocabulary for both languages (§5.1), or unit_tokenizer one of characters or given units; both
begin with special_tokens, and added_tokens adds to one; fingerprints tell by what
kept text and tokenizers are found again.

Nothing here knows of training arguments: each part is given a small dataclass of its own (`Corpus`, `TextFormat`,
`Filters`, `Cache`, `Noise`, `StreamOptions`).
"""

from .corpora import Corpus, TextFormat
from .filters import Filters
from .tokenization import train_tokenizer

__all__ = ["Corpus", "Filters", "TextFormat", "train_tokenizer"]
