"""§5.1, many tasks in one model: a tag before a source selects one, such as `<2de>` for "into German".

Johnson et al. (2017), "Google's Multilingual Neural Machine Translation System". A tag is an added token of the
tokenizer, and is part of the text: `<2de> A dog runs.` means the same whether the tag comes from a file or an option.
"""

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from .tokenization_ids import tokens_in_text

_NAME = re.compile(r"[\w-]+")


def tag_tokens(tag: str) -> list[str]:
    """Parses tags as options and corpora name them.

    Args:
        tag: one or more tags, separated by whitespace. A plain name gets brackets: `2de` becomes `<2de>`. A tag with
            other characters, such as `>>deu<<`, stays unchanged.

    Returns:
        The tokens.

    Raises:
        ValueError: there is no tag.
    """
    tokens = [f"<{word}>" if _NAME.fullmatch(word) else word for word in tag.split()]
    if not tokens:
        raise ValueError(f"tag={tag!r} has no name in it; give one such as 2de, or leave it out")
    return tokens


def known_tag_tokens(tokenizer: PreTrainedTokenizerBase, tag: str | None) -> list[str]:
    """Parses tags, and refuses any that the tokenizer would split.

    Args:
        tokenizer: the model's.
        tag: as in `tag_tokens`; None for no tag.

    Returns:
        The tokens.

    Raises:
        ValueError: a tag is not an added token of the tokenizer; the message names those that are.
    """
    tokens = [] if tag is None else tag_tokens(tag)
    known = tokens_in_text(tokenizer) if tokens else []
    for token in tokens:
        if token not in known:
            names = f"it knows {', '.join(known)}" if known else "it has no tags"
            raise ValueError(f"{token!r} is not a tag of this tokenizer; {names}; new_tokens of finetune adds some")
    return tokens


def tags_to_add(tokenizer: PreTrainedTokenizerBase, tag: str | None) -> list[str]:
    """Parses tags that are put before sources, and refuses those that the tokenizer puts there by itself.

    Args:
        tokenizer: the model's.
        tag: as in `tag_tokens`; None for no tag.

    Returns:
        The tokens.

    Raises:
        ValueError: a tag is not an added token of the tokenizer, or would stand before each source twice.
    """
    tokens = known_tag_tokens(tokenizer, tag)
    if twice := [token for token in tokens if token in getattr(tokenizer, "prefix", [])]:
        raise ValueError(
            f"tag={tag}: the tokenizer puts {' '.join(twice)} before every source by itself (src_lang, tgt_lang, tag); "
            "leave the tag out"
        )
    return tokens


def tagged(text: str, tokens: Sequence[str]) -> str:
    """Puts tags in front of a text. A blank text stays unchanged, because it is not translated.

    Args:
        text: a source.
        tokens: the tags.
    """
    return " ".join([*tokens, text]) if tokens and text.strip() else text


def leading_tags(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[str], str]:
    """Splits the leading tags off a text: special tokens, and other added tokens that begin with a symbol.

    An added token that begins with a letter or digit, such as `COVID-19`, is a word of the text.

    Args:
        tokenizer: knows the tags.
        text: a source.

    Returns:
        The tags, and the text without them.
    """
    special, found = set(tokenizer.all_special_tokens), []
    known = [token for token in tokens_in_text(tokenizer) if token in special or not token[0].isalnum()]
    known.sort(key=len, reverse=True)  # like the tokenizer, prefer `@zh-hant` to `@zh`
    while (token := next((each for each in known if text.lstrip().startswith(each)), None)) is not None:
        found.append(token)
        text = text.lstrip()[len(token) :].lstrip()
    return found, text
