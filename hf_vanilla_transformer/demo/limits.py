"""How much the page may ask of a model at a time."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Limits of the page. What is over one is answered by a sentence on it.

    Args:
        max_characters: Unicode characters of a text.
        max_tokens: source tokens of a text; how many a translation may have then, the `generation_config` says.
        max_beams: beams of a search.

    Raises:
        ValueError: a limit is less than 1.
    """

    max_characters: int = 400
    max_tokens: int = 80
    max_beams: int = 8

    def __post_init__(self) -> None:
        for field in fields(self):
            if (value := getattr(self, field.name)) < 1:
                raise ValueError(f"`{field.name}`={value} is not allowed; allowed: at least 1")


__all__ = ["Limits"]
