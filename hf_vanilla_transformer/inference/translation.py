"""§6.1 in use: text in, translations out, one for one and in order."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..batch_translation import Translation, refuse_training_mode, translate_pieces
from ..data.batching import sorted_batches, token_batches
from ..source_pieces import max_source_length, source_pieces

logger = logging.get_logger(__name__)

# So many batches are read ahead and sorted by length together: little padding, bounded memory, and still a stream.
_BATCHES_READ_AHEAD = 32
# Of a text that is not tokenised yet, so many characters are taken for a token.
_CHARACTERS_A_TOKEN = 4


def translate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Iterable[str],
    batch_size: int = 32,
    batch_tokens: int | None = None,
    read_ahead: int | None = None,
    **generation_options: Any,
) -> Iterator[str]:
    """Translates sentences of any length, and yields one translation for each, in their order.

    A sentence without a visible character is not worth asking the model for: it comes back as the empty string. A
    translation is one line: line breaks of any kind in what the model says become spaces. How long a translation may
    be, the model's `generation_config` says; where it has neither `max_extra_tokens` nor a limit of its own, 50 tokens
    more than the longest source of the batch. No sentence is cut: those that have more tokens than the model has
    learned positions are translated in pieces, and the log says how many they are.

    Args:
        model: a sequence-to-sequence model; used in eval mode, and left in the mode it was in.
        tokenizer: its tokenizer.
        sentences: text; may be a stream, which is read some thousand sentences ahead.
        batch_size: sentences decoded at a time.
        batch_tokens: source tokens decoded at a time, padding among them, in place of `batch_size`: many short
            sentences or few long ones.
        read_ahead: sentences read ahead, which are sorted by length together. By default as many as make some 32
            batches; 1 translates each as soon as it is there.
        **generation_options: for `model.generate()`, such as `num_beams`; the model's own `generation_config` says
            the rest.

    Yields:
        Translations without special tokens.

    Raises:
        TypeError: a sentence is no string.
        ValueError: `batch_size`, `batch_tokens`, `read_ahead` or `num_beams` is less than 1, a sentence is not valid
            Unicode, or more than one translation is asked for.
    """
    options = _search_options(model, generation_options, 1)
    batching = (batch_size, batch_tokens, read_ahead)
    for (translation,) in _translate(model, tokenizer, sentences, batching, options, False, False):
        yield translation.text


def translate_with_details(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Iterable[str],
    batch_size: int = 32,
    batch_tokens: int | None = None,
    read_ahead: int | None = None,
    nbest: int = 1,
    scores: bool = True,
    alignments: bool = True,
    **generation_options: Any,
) -> Iterator[list[Translation]]:
    """Translates as `translate` does, and tells more: n-best lists, scores, tokens and their alignments.

    Details take one more pass of the decoder over what was found. Of an ensemble, probabilities and attention are the
    means over its members.

    Args:
        model: as in `translate`, and so are the five that follow.
        tokenizer: its tokenizer.
        sentences: text.
        batch_size: sentences decoded at a time.
        batch_tokens: source tokens decoded at a time, in place of `batch_size`.
        read_ahead: sentences read ahead.
        nbest: translations of each sentence. There are at least as many beams, unless `num_beams` says otherwise.
        scores: whether they get `score` and `log_prob`.
        alignments: whether they get `source_tokens`, `tokens` and `alignment`.
        **generation_options: for `model.generate()`.

    Yields:
        For each sentence a list of `nbest` translations, the best first.

    Raises:
        TypeError: a sentence is no string.
        ValueError: as in `translate`, or `nbest` is less than 1 or more than `num_beams`.
    """
    _require_positive("nbest", nbest)
    options = _search_options(model, generation_options, nbest)
    batching = (batch_size, batch_tokens, read_ahead)
    yield from _translate(model, tokenizer, sentences, batching, options, scores, alignments)


@torch.inference_mode()
def _translate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Iterable[str],
    batching: tuple[int, int | None, int | None],
    options: dict[str, Any],
    scores: bool,
    alignments: bool,
) -> Iterator[list[Translation]]:
    batch_size, batch_tokens, read_ahead = batching
    for name, value in (("batch_size", batch_size), ("batch_tokens", batch_tokens), ("read_ahead", read_ahead)):
        _require_positive(name, value)

    def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
        return sorted_batches(lengths, batch_size) if batch_tokens is None else token_batches(lengths, batch_tokens)

    positions = max_source_length(model)
    refuse_training_mode(model)
    for window in _windows(sentences, batch_size, batch_tokens, read_ahead):
        pieces = source_pieces(tokenizer, window, positions)
        counts = [len(each) for each in pieces if len(each) > 1]
        if counts:
            logger.warning(
                f"{len(counts)} sentences have more tokens than the {positions} positions of the model: "
                f"translated in {sum(counts)} pieces"
            )
        for translations in translate_pieces(model, tokenizer, pieces, batches, options, scores, alignments):
            yield [_in_one_line(each) for each in translations]


def _search_options(model: PreTrainedModel, options: dict[str, Any], nbest: int) -> dict[str, Any]:
    """Adds to the options of `generate()` what finds `nbest` translations, and nothing that is so already."""
    if options.get("num_return_sequences", nbest) != nbest:
        raise ValueError(
            f"`num_return_sequences`={options['num_return_sequences']}, but this yields {nbest} translations a "
            "sentence; ask translate_with_details() for more, by `nbest`"
        )
    options, config = dict(options), options.get("generation_config") or model.generation_config
    _require_positive("num_beams", options.get("num_beams", config.num_beams))
    if (config.num_return_sequences or 1) != nbest:
        options["num_return_sequences"] = nbest
    if nbest > (options.get("num_beams", config.num_beams) or 1) and not options.get("do_sample", config.do_sample):
        if "num_beams" in options:
            raise ValueError(
                f"`nbest`={nbest} is more than `num_beams`={options['num_beams']} find; give at least as many beams"
            )
        options["num_beams"] = nbest
    return options


def _windows(
    sentences: Iterable[str], batch_size: int, batch_tokens: int | None, read_ahead: int | None
) -> Iterator[list[str]]:
    """So many sentences as are sorted together: `read_ahead`, or what makes about 32 batches of either kind."""
    limit = (batch_size if batch_tokens is None else batch_tokens) * _BATCHES_READ_AHEAD
    window: list[str] = []
    size = 0
    for sentence in sentences:
        window.append(sentence)
        if read_ahead is not None:
            is_full = len(window) >= read_ahead
        else:
            size += 1 if batch_tokens is None else 1 + len(sentence) // _CHARACTERS_A_TOKEN
            is_full = size >= limit
        if is_full:
            yield window
            window, size = [], 0
    if window:
        yield window


def _in_one_line(translation: Translation) -> Translation:
    lines = translation.text.splitlines()
    return translation if lines in ([], [translation.text]) else replace(translation, text=" ".join(lines))


def _require_positive(name: str, value: int | None) -> None:
    if value is not None and (not isinstance(value, Integral) or value < 1):
        raise ValueError(f"`{name}`={value!r} is not allowed; allowed: an integer of at least 1")
