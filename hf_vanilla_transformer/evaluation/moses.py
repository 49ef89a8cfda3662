"""Text as papers cut it with Moses: those on Multi30k in lower case, that of the Transformer with compounds split.

Scores of such text can be compared with published scores of the same kind, and with no others. BLEU of it is computed
with `tokenize="none"`.
"""

import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any

# Each hyphen between two characters that are no spaces. Matches do not overlap: in `a-b-c`, the second one stays.
_COMPOUND = re.compile(r"(\S)-(\S)")


def moses_lowercased(sentences: Iterable[str], language: str) -> list[str]:
    """Lowercases text, normalises its punctuation and tokenises it, in this order, as Moses' scripts do.

    Args:
        sentences: raw text.
        language: of the text, such as `de`; rules for punctuation and abbreviations depend on it.

    Returns:
        For each sentence its words and punctuation marks, separated by spaces; some marks are escaped as in XML.

    Raises:
        ValueError: sacremoses is not installed.
    """
    sacremoses = _sacremoses()
    normalizer = sacremoses.MosesPunctNormalizer(lang=language)
    tokenizer = sacremoses.MosesTokenizer(lang=language)
    # Moses' script sees the end of the line, and has a rule for quotation marks that takes it for a character.
    lines = (normalizer.normalize(sentence.lower() + "\n") for sentence in sentences)
    return [tokenizer.tokenize(line, return_str=True, escape=True) for line in lines]


def moses_description(language: str) -> str:
    """Describes `moses_lowercased`, to be quoted next to scores.

    Args:
        language: of the text.

    Returns:
        A description in the style of sacrebleu's signatures.

    Raises:
        ValueError: sacremoses is not installed.
    """
    return f"case:lc|norm:moses.{language}|tok:moses.{language}|sacremoses:{_sacremoses().__version__}"


def paper_tokenized(sentences: Iterable[str], language: str) -> list[str]:
    """Cuts text as the authors of "Attention Is All You Need" say they did for the BLEU of their Table 2.

    These are the steps of `get_ende_bleu.sh` in their tensor2tensor: Unicode's punctuation becomes that of ASCII where
    Moses knows it (which not every version of the script does), Moses' tokenizer cuts the text, and compounds are split
    at their hyphens ("rich-text" becomes "rich ##AT##-##AT## text"), which alone is worth about a point of BLEU. That
    script takes references that are tokenised already; here, they go the same way as translations. What the script
    writes as XML escapes stays as it is here, which makes no difference to BLEU.

    Args:
        sentences: raw text.
        language: of the text, such as `de`; rules for abbreviations depend on it.

    Returns:
        For each sentence its words and punctuation marks, separated by spaces.

    Raises:
        ValueError: sacremoses is not installed.
    """
    sacremoses = _sacremoses()
    normalizer = sacremoses.MosesPunctNormalizer(lang=language)
    tokenizer = sacremoses.MosesTokenizer(lang=language)
    tokenized = (
        tokenizer.tokenize(normalizer.replace_unicode_punct(sentence), return_str=True, escape=False)
        for sentence in sentences
    )
    return [_COMPOUND.sub(r"\1 ##AT##-##AT## \2", line) for line in tokenized]


def paper_description(language: str) -> str:
    """Describes `paper_tokenized`, to be quoted next to scores.

    Args:
        language: of the text.

    Returns:
        A description in the style of sacrebleu's signatures.

    Raises:
        ValueError: sacremoses is not installed.
    """
    version = _sacremoses().__version__
    return f"case:mixed|punct:ascii|tok:moses.{language}|compounds:split|sacremoses:{version}"


def _sacremoses() -> Any:
    try:
        return import_module("sacremoses")
    except ImportError as error:
        raise ValueError("Moses' tokenisation needs sacremoses: pip install sacremoses") from error
