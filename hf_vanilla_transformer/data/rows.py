"""Rows of jsonl files and datasets, taken apart and checked: which texts are the source and the target."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .text_files import read_lines

# `line` is the line in the file, from 1, or the row of a dataset, from 0; a monolingual row has no `target`.
Row = dict[str, Any]


def json_rows(path: str) -> Iterator[tuple[int, Any]]:
    """Reads a .jsonl file.

    Args:
        path: the file; blank lines are passed over.

    Yields:
        The number of a line, from 1, and what it says.

    Raises:
        ValueError: a line is no JSON; the message names it.
    """
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: no JSON object ({error})") from error


def pair_of(row: Any, number: int, where: str, source_lang: str, target_lang: str) -> Row:
    """Takes a pair out of a row, in which the languages may stand below `translation` or by themselves.

    Args:
        row: what a line or row says.
        number: of it.
        where: what to call it in messages.
        source_lang: key of the source.
        target_lang: key of the target.

    Returns:
        `line`, `source` and `target`.

    Raises:
        ValueError: it is no pair; the message says where, and what there is.
    """
    texts = row.get("translation", row) if isinstance(row, Mapping) else None
    if not isinstance(texts, Mapping):
        raise ValueError(
            f'{where}: expected {{"translation": {{"{source_lang}": "...", "{target_lang}": "..."}}}}, got {row!r:.200}'
        )
    for language in (source_lang, target_lang):
        if not isinstance(texts.get(language), str):
            raise ValueError(
                f"{where}: expected text for language {language!r}, got {texts.get(language)!r:.100}; "
                f"there are: {', '.join(map(str, texts))}. Set source_lang and target_lang"
            )
        _require_characters(texts[language], f"{where}, language {language!r}")
    return {"line": number, "source": texts[source_lang], "target": texts[target_lang]}


def text_of(row: Any, number: int, where: str) -> Row:
    """Takes the text out of a monolingual row.

    Args:
        row: what a line or row says.
        number: of it.
        where: what to call it in messages.

    Returns:
        `line` and `source`.

    Raises:
        ValueError: it has no text; the message says where.
    """
    text = row.get("text") if isinstance(row, Mapping) else None
    if not isinstance(text, str):
        raise ValueError(f'{where}: expected {{"text": "..."}}, got {row!r:.200}')
    _require_characters(text, where)
    return {"line": number, "source": text}


def _require_characters(text: str, where: str) -> None:
    """Refuses halves of characters, which JSON can spell and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: a lone surrogate, \\u{ord(text[error.start]):04x}, at character {error.start}; it is no text"
        ) from error


__all__ = ["Row", "json_rows", "pair_of", "text_of"]
