"""§5.1 for little text: one vocabulary of byte-level BPE that reads sources in lower case, and targets as they are."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from .special_tokens import special_tokens_of, wrap_backend
from .subwords import train_bpe, warn_if_smaller
from .tokenization import checked_strings


def train_lowercase_bpe(
    pairs: Iterable[Mapping[str, Any]],
    *,
    vocab_size: int = 37000,
    tags: Sequence[str] = (),
    num_sentinels: int = 0,
    mask_token: bool = False,
    min_frequency: int = 2,
    model_max_length: int | None = None,
    show_progress: bool = False,
) -> PreTrainedTokenizerFast:
    """Learns one vocabulary from sources in lower case and targets as they are written.

    With little text, a vocabulary that has "Two", " Two" and " two" learns three times what is one word to a
    translator. Here sources are in lower case, and every text, source or target, is read with a space in front, so
    that the first word is the token that it is elsewhere. Targets are decoded to exactly what they were; sources, in
    lower case. After a token that was added to the vocabulary later, in the middle of a text, decoding gives one space
    more than there was.

    Args:
        pairs: rows with `source` and, of pairs, `target`.
        vocab_size: tokens to learn, with the special ones.
        tags: tokens that may stand in front of a source, such as `<2de>`.
        num_sentinels: as for `train_tokenizer`, and so are the next four.
        mask_token: likewise.
        min_frequency: likewise.
        model_max_length: likewise.
        show_progress: likewise.

    Returns:
        The tokenizer, a `VanillaTransformerTokenizer`: targets are read as `text_target`.

    Raises:
        ValueError: as `train_tokenizer`.
        TypeError: a text is not a string.

    Example:
        >>> tokenizer = train_lowercase_bpe([{"source": "A dog", "target": "Ein Hund"}] * 9, vocab_size=280)
        >>> tokenizer.decode(tokenizer("A dog").input_ids, skip_special_tokens=True)
        'a dog'
    """
    special_tokens = special_tokens_of(num_sentinels, tags, mask_token)
    lower = normalizers.Lowercase()

    def texts() -> Iterator[str]:
        for row in pairs:
            yield lower.normalize_str(row["source"]) if isinstance(row["source"], str) else row["source"]
            if "target" in row:
                yield row["target"]

    backend = train_bpe(
        lambda: checked_strings(texts()), vocab_size, special_tokens, False, min_frequency, show_progress, True
    )
    warn_if_smaller(backend, vocab_size, min_frequency)
    state = json.loads(backend.to_str())
    target_side = {name: state[name] for name in ("normalizer", "pre_tokenizer")}
    backend.normalizer = normalizers.Sequence([lower, backend.normalizer])
    return wrap_backend(backend, special_tokens, model_max_length, target_side=target_side)


__all__ = ["train_lowercase_bpe"]
