"""The token of a service, from a file or from the environment."""

import os
from pathlib import Path

TOKEN_VARIABLE = "VANILLA_TRANSFORMER_TOKEN"


def read_token(file: str | Path | None = None) -> str | None:
    """Reads the token of a service.

    Args:
        file: that has nothing else in it but whitespace; None for the variable VANILLA_TRANSFORMER_TOKEN.

    Returns:
        The token; None if there is no file, and the variable is not set.

    Raises:
        OSError: the file cannot be read.
        ValueError: as `checked_token`.
    """
    if file is not None:
        return checked_token(Path(file).read_text(encoding="utf-8"), str(file))
    token = os.environ.get(TOKEN_VARIABLE)
    return None if token is None else checked_token(token, f"the variable {TOKEN_VARIABLE}")


def checked_token(token: str, place: str = "the token") -> str:
    """Refuses what no header of a request could have in it, or nobody would type.

    Args:
        token: whitespace around it is no part of it.
        place: where it is from, for the message, which does not repeat the token.

    Returns:
        The token.

    Raises:
        ValueError: it is empty, or has spaces or other characters than those of ASCII.
    """
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(
            f"{place} is to have one token of printable ASCII characters without spaces"
            f"{'' if token else ', and is empty; leave it out for a service without one'}"
        )
    return token


__all__ = ["TOKEN_VARIABLE", "checked_token", "read_token"]
