"""By what tokenised text and tokenizers are found again: the content of a corpus, and all that makes ids of text."""

import hashlib
import json
import tempfile
from pathlib import Path

from datasets import load_dataset_builder
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..tokenization_ids import text_to_ids
from ..tokenization_tags import tag_tokens
from .corpora import Corpus
from .text_files import hash_file

# Letters of several scripts, marks, digits and kinds of whitespace.
_PROBES = ["The 3 dogs' ears, läuft, Straße", " Ünï  \t漢字\u2028 кот 🙂 ", "</s> <s> <pad> <unk> <sentinel_0>"]


def corpus_fingerprint(corpus: Corpus) -> str:
    """Identifies the text of a corpus by its content, wherever it lies, with the tag that is put in front of it.

    Nothing is downloaded of a dataset but its description: it is identified by the revision of its files, or for a
    folder by their names, sizes and times.

    Args:
        corpus: its files are read once.

    Returns:
        A hash.
    """
    if corpus.dataset is not None:
        builder = load_dataset_builder(corpus.dataset, corpus.config)
        content = [
            corpus.dataset,
            corpus.config,
            builder.hash,
            builder.config_id,
            str(builder.info.version),
            corpus.split,
        ]
    else:
        # One a file: text that moves from one file to the next is another text. Two spellings of a name are one, but
        # for how such a file is taken apart.
        content = [[hash_file(path), *Path(path).suffixes[-2:]] for path in corpus.files]
    if corpus.tag is not None or corpus.reversed:
        content = [content, tag_tokens(corpus.tag) if corpus.tag is not None else [], corpus.reversed]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Identifies what a tokenizer makes of text: all that changes ids changes it, and using the tokenizer does not.

    Args:
        tokenizer: any tokenizer.

    Returns:
        A hash.
    """
    # Which added tokens are read from text, and what is put around either side, is not all written in the tokenizer.
    # First of all, since some tokenizers settle what they put around a text only when they are called.
    probes = [" ".join(sorted(tokenizer.get_added_vocab())), *_PROBES]
    ids = [text_to_ids(tokenizer, probes, as_target) for as_target in (False, True, False)]
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        for mutable in ("truncation", "padding"):  # what the last call asked for
            state.pop(mutable, None)
    else:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            state = {path.name: hash_file(path) for path in sorted(Path(folder).iterdir())}
    names = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    sides = [getattr(tokenizer, name, None) for name in ("target_side", "decoded_form")]
    what = json.dumps([type(tokenizer).__name__, names, ids, state, sides], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()


__all__ = ["corpus_fingerprint", "tokenizer_fingerprint"]
