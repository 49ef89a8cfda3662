"""§5.1, text as token ids: text that looks like a control token stays text; tokens that users added are tokens.

A plain `tokenizer(text)` reads `</s>` in a text as its end, and `tokenizer(text, split_special_tokens=True)` splits a
language tag that was added as a special token into letters. Neither is right for user text.
"""

import copy
import re
from collections.abc import Sequence
from typing import Any

from transformers import AddedToken, PreTrainedTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

# A token's index is its id in the vocabularies that `train_tokenizer` learns.
BOS, PAD, EOS, UNK = SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"
SENTINEL = "<sentinel_{}>"

_SENTINEL_START = SENTINEL.partition("{}")[0]
_SENTINEL_PATTERN = re.compile(SENTINEL.format(r"\d+"))


def text_to_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], as_target: bool = False) -> list[list[int]]:
    """Tokenises user text (§5.1), in which only tokens that a user added count as control tokens.

    Three kinds are never read from text: named tokens of the tokenizer (`bos_token`, `eos_token`, `pad_token`,
    `unk_token`, `sep_token`, `cls_token`, `mask_token`); `<s>`, `<pad>`, `</s>` and `<unk>`, named or not; and
    sentinels. Every other added token is one token, special (`extra_special_tokens`) or not (`add_tokens`), regardless
    of the `split_special_tokens` that the tokenizer was saved with.

    A tokenizer that cannot do this reads text its own way. If its model itself makes `</s>` of text, as a vocabulary of
    whole words does, it still does. A tokenizer written in Python reads all of its added tokens as text or none: none
    if a text has a control token and another added one. One that is neither `PreTrainedTokenizerFast` nor
    `PreTrainedTokenizer` is called unchanged.

    Args:
        tokenizer: any tokenizer; it is not changed.
        texts: what to tokenise.
        as_target: whether to pass them as `text_target`; for some tokenizers that is another language.

    Returns:
        The token ids of each text, including those that the tokenizer adds, such as `</s>`; not truncated or padded.
    """

    def read(reader: PreTrainedTokenizerBase, chosen: list[str], **options: Any) -> list[list[int]]:
        column = "text_target" if as_target else "text"
        # Not verbose: the caller decides what to do about a text that is too long.
        return reader(**{column: chosen}, verbose=False, **options)["input_ids"] if chosen else []

    if not isinstance(tokenizer, PreTrainedTokenizerFast | PreTrainedTokenizer):
        return read(tokenizer, list(texts))
    is_special_case = _has_control_tokens_to_pass_over(tokenizer, texts)
    ordinary = [text for text, each in zip(texts, is_special_case, strict=True) if not each]
    others = [text for text, each in zip(texts, is_special_case, strict=True) if each]
    reader = tokenizer
    if others and isinstance(tokenizer, PreTrainedTokenizerFast):
        reader = copy.copy(tokenizer)
        reader._tokenizer = text_backend(tokenizer)
    found = {
        False: iter(read(tokenizer, ordinary, split_special_tokens=False)),
        True: iter(read(reader, others, split_special_tokens=True)),
    }
    return [next(found[each]) for each in is_special_case]


def tokens_in_text(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Returns the added tokens that `text_to_ids` reads from text as one token each, in the order of their ids."""
    names = _control_names(tokenizer)
    return [token for token in tokenizer.get_added_vocab() if not _is_control(token, names)]


def text_backend(tokenizer: PreTrainedTokenizerFast, as_target: bool = False) -> Any:
    """Builds the backend that reads user text for a fast tokenizer: only control tokens are read as plain text.

    Args:
        tokenizer: it is not changed, but its vocabulary is shared.
        as_target: whether the backend reads `text_target`.

    Returns:
        A `tokenizers.Tokenizer` that neither truncates nor pads. It reads control tokens as text while its
        `encode_special_tokens` is True, a setting that copies lose.
    """
    backend, names = tokenizer.backend_tokenizer, _control_names(tokenizer)
    reader = type(backend)(backend.model)
    _switch_mode(tokenizer, as_target)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        setattr(reader, part, getattr(backend, part))
    _switch_mode(tokenizer, as_target=False)
    # `tokenizers` reads only special tokens as text. Added in the order of their ids, tokens keep their ids.
    added = [token for _, token in sorted(backend.get_added_tokens_decoder().items())]
    reader.add_tokens(
        [AddedToken(**{**token.__getstate__(), "special": _is_control(token.content, names)}) for token in added]
    )
    reader.encode_special_tokens = True
    return reader


def _switch_mode(tokenizer: PreTrainedTokenizerFast, as_target: bool) -> None:
    """Switches a tokenizer to sources or targets, if it tells them apart, as its own `__call__` does."""
    switch = getattr(tokenizer, "_switch_to_target_mode" if as_target else "_switch_to_input_mode", None)
    if switch is not None:
        switch()


def _has_control_tokens_to_pass_over(
    tokenizer: PreTrainedTokenizerFast | PreTrainedTokenizer, texts: Sequence[str]
) -> list[bool]:
    """Whether each text may have control tokens that the tokenizer can read as text."""
    names, kept_whole = _control_names(tokenizer), []
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        kept_whole = tokens_in_text(tokenizer)
    elif tokenizer.backend_tokenizer.normalizer is not None:
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
        if any(token.normalized and _is_control(token.content, names) for token in added):
            return [True] * len(texts)  # such a token is matched in normalised text, however the text spells it
    spellings = (*names, _SENTINEL_START)
    return [
        any(spelling in text for spelling in spellings) and not any(token in text for token in kept_whole)
        for text in texts
    ]


def _control_names(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Control tokens that a tokenizer may have, apart from sentinels."""
    return {*SPECIAL_TOKENS, *tokenizer.special_tokens_map.values()}


def _is_control(token: str, names: set[str]) -> bool:
    return token in names or _SENTINEL_PATTERN.fullmatch(token) is not None


__all__ = [
    "BOS",
    "EOS",
    "MASK",
    "PAD",
    "SENTINEL",
    "SPECIAL_TOKENS",
    "UNK",
    "text_backend",
    "text_to_ids",
    "tokens_in_text",
]
