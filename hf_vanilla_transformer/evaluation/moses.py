"""Text as papers on Multi30k score it: in lower case, with punctuation normalised, tokenised by Moses.

Scores of such text can be compared with published scores of the same kind, and with no others. BLEU of it is computed
with `tokenize="none"`.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Any


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


def _sacremoses() -> Any:
    try:
        return import_module("sacremoses")
    except ImportError as error:
        raise ValueError("Moses' tokenisation needs sacremoses: pip install sacremoses") from error
