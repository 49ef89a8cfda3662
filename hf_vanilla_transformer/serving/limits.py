"""How much one request, the queue and a batch may have."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Limits:
    """Limits of a service. What is over one is answered by 413, or by 429 if it has to come again later.

    Args:
        max_characters: Unicode characters of one text.
        max_texts: texts, or pairs to score, of one request.
        max_body: bytes of the body of a request.
        max_beams: beams that a request may ask for, and translations of each text.
        max_beam_tokens: source tokens of one request, times its beams: what decoding it takes. For scores, times 1.
        max_batch_tokens: source tokens that are decoded at a time, padding included. A text may not have more.
        max_batch_texts: texts that are decoded at a time, however short.
        max_wait: milliseconds that the oldest text of a batch waits for others.
        max_queue: texts that wait for one model.
        max_queue_beam_tokens: source tokens times beams of all texts that wait for one model.
        max_streams: translations that are streamed at a time, by all models.
        max_connections: open connections, whatever they do.

    Raises:
        ValueError: a limit is less than 1 (`max_wait`: less than 0), or a request could never fit the queue.
    """

    max_characters: int = 2000
    max_texts: int = 64
    max_body: int = 2**20
    max_beams: int = 16
    max_beam_tokens: int = 2**15
    max_batch_tokens: int = 2048
    max_batch_texts: int = 128
    max_wait: float = 5.0
    max_queue: int = 1024
    max_queue_beam_tokens: int = 2**20
    max_streams: int = 4
    max_connections: int = 1000

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "max_wait" else 1
            if not value >= least:
                raise ValueError(f"`{field.name}`={value} is not allowed; allowed: at least {least}")
        for one, other in (("max_texts", "max_queue"), ("max_beam_tokens", "max_queue_beam_tokens")):
            if getattr(self, one) > getattr(self, other):
                raise ValueError(
                    f"`{one}`={getattr(self, one)} is more than `{other}`={getattr(self, other)}: the largest request "
                    "would never be accepted"
                )


__all__ = ["Limits"]
