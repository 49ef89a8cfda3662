"""The text that papers on Multi30k and the like score: in lower case, punctuation normalised, cut by Moses' tokeniser.

Scores of it are comparable with published ones of that kind, and with no others; BLEU is computed on it with
`tokenize="none"`.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Any


def moses_lowercased(sentences: Iterable[str], language: str) -> list[str]:
    """Lowers case, normalises punctuation and tokenises, as Moses' scripts do in this order.

    Args:
        sentences: raw text.
        language: of the text, such as `de`; punctuation and abbreviations are a language's own.

    Returns:
        Words and marks with spaces between them, some marks escaped as in XML, one string a sentence.

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
    """Says what `moses_lowercased` does, to be quoted next to scores.

    Args:
        language: as there.

    Returns:
        Like a sacrebleu signature.

    Raises:
        ValueError: sacremoses is not installed.
    """
    return f"case:lc|norm:moses.{language}|tok:moses.{language}|sacremoses:{_sacremoses().__version__}"


def _sacremoses() -> Any:
    try:
        return import_module("sacremoses")
    except ImportError as error:
        raise ValueError("text as Moses cuts it needs sacremoses: pip install sacremoses") from error
