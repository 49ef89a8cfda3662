"""§5.1, many tasks in one model: a tag in front of a source says which, such as `<2de>` for "into German".

Johnson et al. (2017), "Google's Multilingual Neural Machine Translation System". A tag is an added token of the
tokenizer, and stands in the text: `<2de> A dog runs.` means the same whether a file has it or an option put it there.
"""

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from .text_to_ids import tokens_in_text

_NAME = re.compile(r"[\w-]+")


def tag_tokens(tag: str) -> list[str]:
    """Reads tags as options and corpora name them.

    Args:
        tag: one tag or several, separated by whitespace. A mere name gets brackets: `2de` is `<2de>`; whatever else
            there is in a tag, such as in `>>deu<<`, it is taken as it is.

    Returns:
        The tokens.

    Raises:
        ValueError: there is none.
    """
    tokens = [f"<{word}>" if _NAME.fullmatch(word) else word for word in tag.split()]
    if not tokens:
        raise ValueError(f"tag={tag!r} has no name in it; give one such as 2de, or leave it out")
    return tokens


def known_tag_tokens(tokenizer: PreTrainedTokenizerBase, tag: str | None) -> list[str]:
    """Reads tags, and refuses what the tokenizer would cut into pieces.

    Args:
        tokenizer: of the model.
        tag: as in `tag_tokens`; None for no tag.

    Returns:
        The tokens.

    Raises:
        ValueError: one is not an added token of the tokenizer; the message names those that are.
    """
    tokens = [] if tag is None else tag_tokens(tag)
    known = tokens_in_text(tokenizer) if tokens else []
    for token in tokens:
        if token not in known:
            names = f"it knows {', '.join(known)}" if known else "it has no tags"
            raise ValueError(f"{token!r} is not a tag of this tokenizer; {names}; new_tokens of finetune adds some")
    return tokens


def tagged(text: str, tokens: Sequence[str]) -> str:
    """Puts tags in front of a text. One without a visible character stays as it is: it is no text to translate.

    Args:
        text: a source.
        tokens: the tags.
    """
    return " ".join([*tokens, text]) if tokens and text.strip() else text


def leading_tags(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[list[str], str]:
    """Takes the tags off that a text begins with: special tokens, and others that were added and begin with a sign.

    An added token that begins with a letter or digit, such as `COVID-19`, is a word of the text.

    Args:
        tokenizer: knows them.
        text: a source.

    Returns:
        The tags, and the text without them.
    """
    special, found = set(tokenizer.all_special_tokens), []
    known = [token for token in tokens_in_text(tokenizer) if token in special or not token[0].isalnum()]
    known.sort(key=len, reverse=True)  # of `@zh` and `@zh-hant`, the tokenizer too takes the longer one
    while (token := next((each for each in known if text.lstrip().startswith(each)), None)) is not None:
        found.append(token)
        text = text.lstrip()[len(token) :].lstrip()
    return found, text
