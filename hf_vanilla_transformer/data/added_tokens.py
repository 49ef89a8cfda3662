"""Tokens that a user adds to a vocabulary, such as language tags: whole in text, and decoded as they were."""

import re
from collections.abc import Collection, Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


def add_tokens_to(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str], tags: Collection[str] = ()) -> int:
    """Adds tokens that stay whole in text and come back from decoding as they were.

    The byte-level decoder of `tokenizers` takes the letters of an added token for bytes: `Straße` comes back damaged.
    So such tokens are spelled in bytes first, by a step before that decoder, which is saved with the tokenizer.

    Args:
        tokenizer: changed in place.
        tokens: what to add; those that it has already are left alone.
        tags: those among them that stand in front of sources. They take the space after them along, as the tags of a
            vocabulary that is trained here do, so that `tgt_lang` of a tokenizer puts the same there as a text that
            brings its tag.

    Returns:
        How many were added.

    Raises:
        ValueError: a token is empty or blank, or is how the vocabulary spells other text.
    """
    vocabulary, known = tokenizer.get_vocab(), tokenizer.get_added_vocab()
    for token in tokens:
        if not token.strip():
            raise ValueError(f"{token!r} cannot be a token: it has no visible character")
        if token in vocabulary and token not in known and (text := _decode_token(tokenizer, token)) != token:
            spelled = "part of a character" if "\ufffd" in text else repr(text)
            raise ValueError(f"{token!r} cannot be a token of its own: it is how the vocabulary spells {spelled}")
    made = [AddedToken(token, rstrip=True, normalized=False) if token in tags else token for token in tokens]
    added = tokenizer.add_tokens(made)
    if isinstance(tokenizer, PreTrainedTokenizerFast) and tokenizer.backend_tokenizer.decoder is not None:
        _decode_added_tokens_as_they_are(tokenizer.backend_tokenizer, tokenizer.get_added_vocab())
    return added


def _decode_token(tokenizer: PreTrainedTokenizerBase, token: str) -> str:
    return tokenizer.decode([tokenizer.convert_tokens_to_ids(token)])


def _decode_added_tokens_as_they_are(backend: Tokenizer, tokens: Iterable[str]) -> None:
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    steps = []
    for token in tokens:
        bytes_as_letters = spell.pre_tokenize_str(token)[0][0]
        # Neither is so for a decoder that is not byte-level, nor for a token that has its step already.
        if backend.decoder.decode([token]) != token and backend.decoder.decode([bytes_as_letters]) == token:
            steps.append(decoders.Replace(Regex(rf"\A{re.escape(token)}\z"), bytes_as_letters))
    if steps:
        backend.decoder = decoders.Sequence([*steps, backend.decoder])


__all__ = ["add_tokens_to"]
