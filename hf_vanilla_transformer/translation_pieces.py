"""§6.1 for input of any length: tokenised sentences, in pieces if a model has too few learned positions (§3.5)."""

import re
from collections.abc import Iterator, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .tokenization_ids import text_to_ids
from .tokenization_tags import leading_tags, tagged, tags_to_add

# Where to cut a text that is too long: after a sentence, else between words.
_CUTS = (re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])"), re.compile(r"\s+"))


def source_pieces(
    tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str], max_length: int | None, tag: str | None = None
) -> list[list[list[int]]]:
    """Tokenises sentences, and cuts those with more tokens than the model has positions into pieces that fit.

    A text is cut at the end of a sentence, else between words, else anywhere, at the place nearest to its middle. This
    repeats until all pieces fit. Tags at the start of the sentence are put before each piece.

    Args:
        tokenizer: the model's.
        sentences: text.
        max_length: maximum tokens of a source, including special ones; None for no limit.
        tag: the tags to put before each, as in `tokenization_tags.tag_tokens`; None for none.

    Returns:
        For each sentence the token ids of its pieces; no piece for a sentence without a visible character.

    Raises:
        TypeError: a sentence is not a string.
        ValueError: a sentence is not valid Unicode, or cannot be cut into pieces that fit; or the tokenizer does not
            have the tag.
    """
    tokens = tags_to_add(tokenizer, tag)
    for sentence in sentences:
        if not isinstance(sentence, str):
            raise TypeError(f"{sentence!r:.80} is a {type(sentence).__name__}; a sentence to translate is a str")
        try:
            sentence.encode()
        except UnicodeEncodeError as error:
            code = f"U+{ord(sentence[error.start]):04X}"
            raise ValueError(
                f"{sentence!r:.80}: character {error.start} is half a surrogate pair ({code}), which is no text; "
                "decode the bytes it came from as what they are"
            ) from error
    if tokens:
        sentences = [tagged(sentence, tokens) for sentence in sentences]
    visible = [index for index, sentence in enumerate(sentences) if sentence.strip()]
    pieces: list[list[list[int]]] = [[] for _ in sentences]
    if visible:
        all_ids = text_to_ids(tokenizer, [sentences[index] for index in visible])
        for index, ids in zip(visible, all_ids, strict=True):
            fits = max_length is None or len(ids) <= max_length
            if fits:
                pieces[index] = [ids]
            else:
                tags, text = leading_tags(tokenizer, sentences[index].strip())
                pieces[index] = list(_cut(tokenizer, tags, text, max_length or 0))
    return pieces


def _cut(tokenizer: PreTrainedTokenizerBase, tags: list[str], text: str, max_length: int) -> Iterator[list[int]]:
    (ids,) = text_to_ids(tokenizer, [tagged(text, tags)])
    if len(ids) <= max_length:
        yield ids
        return
    if len(text) < 2:
        raise ValueError(
            f"{text!r} alone has {len(ids)} tokens, but the model has {max_length} positions "
            "(`num_learned_positions`); it needs a model with more"
        )
    place = len(text) // 2
    for pattern in _CUTS:
        places = [match.end() for match in pattern.finditer(text) if 0 < match.end() < len(text)]
        if places:
            place = min(places, key=lambda each: abs(each - len(text) / 2))
            break
    for part in (text[:place].strip(), text[place:].strip()):
        if part:
            yield from _cut(tokenizer, tags, part, max_length)


def max_source_length(model: PreTrainedModel) -> int | None:
    """Maximum tokens of a source: the positions of a model, the fewest in an ensemble; None for no limit."""
    configs = [part.config for part in model.modules() if isinstance(part, PreTrainedModel)]
    limits = [getattr(config, "max_position_embeddings", None) for config in configs]
    return min((limit for limit in limits if limit is not None), default=None)
