"""§6.1 in use: text in, translations out, one for one and in order."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any
from weakref import WeakSet

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..data.batching import sorted_batches, token_batches
from ..decoding_config import chosen_values
from ..translation_batches import Engine, TorchEngine, Translation, number_wanted, translate_pieces
from ..translation_pieces import source_pieces

logger = logging.get_logger(__name__)

# Engines of which a call has warned of tokens that they do not know, or of sentences in pieces.
_WARNED_OF_UNKNOWN, _WARNED_OF_PIECES = WeakSet[Engine](), WeakSet[Engine]()
# Batches that are read ahead and sorted by length together: little padding, bounded memory, and still a stream.
_BATCHES_READ_AHEAD = 32
# An estimate, for text that is not tokenised yet.
_CHARACTERS_PER_TOKEN = 4


def translate(
    model: PreTrainedModel | Engine,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Iterable[str],
    batch_size: int = 32,
    batch_tokens: int | None = None,
    read_ahead: int | None = None,
    tag: str | None = None,
    **generation_options: Any,
) -> Iterator[str]:
    """Translates sentences of any length, and yields one translation for each, in their order.

    The translation of a sentence without a visible character is the empty string; the model is not asked. A translation
    is one line: line breaks of any kind in the model's output become spaces, and so do NUL characters, for which
    training would refuse it. The model's `generation_config` limits the length of a translation; if it has neither
    `max_extra_tokens` nor another limit, the limit is 50 tokens more than the longest source of the batch. No sentence
    is cut: those that have more tokens than the model has learned positions are translated in pieces, and the log says
    how many.

    Args:
        model: a sequence-to-sequence model, or an ensemble, in eval mode; or an engine, as a `Translator` has one.
        tokenizer: its tokenizer.
        sentences: text; may be a stream, of which `read_ahead` sentences are read at a time.
        batch_size: sentences decoded at a time.
        batch_tokens: source tokens decoded at a time, padding included, instead of `batch_size` sentences.
        read_ahead: sentences that are read and sorted by length together. The default is enough for about 32 batches;
            with 1, each sentence is translated before the next one is read.
        tag: what to put in front of each sentence, such as "2de" for the token `<2de>`, for a model that has learned
            tags; a sentence may also bring its own.
        **generation_options: for `model.generate()`, such as `num_beams`; others are taken from the model's
            `generation_config`.

    Yields:
        Translations without special tokens.

    Raises:
        TypeError: a sentence is not a string.
        ValueError: the model is in training mode; `batch_size`, `batch_tokens`, `read_ahead` or `num_beams` is less
            than 1; a sentence is not valid Unicode; the tokenizer has no such tag; or more than one translation of each
            is requested.
    """
    engine = _engine(model, tokenizer)
    options = search_options(engine.generation_config, generation_options)
    batching = (batch_size, batch_tokens, read_ahead)
    for (translation,) in _translate(engine, tokenizer, sentences, tag, batching, options, False, False):
        yield translation.text


def translate_with_details(
    model: PreTrainedModel | Engine,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Iterable[str],
    batch_size: int = 32,
    batch_tokens: int | None = None,
    read_ahead: int | None = None,
    nbest: int = 1,
    scores: bool = True,
    alignments: bool = True,
    tag: str | None = None,
    **generation_options: Any,
) -> Iterator[list[Translation]]:
    """Translates as `translate` does, and returns more: n-best lists, scores, tokens and their alignments.

    With torch, scores and alignments take one more pass of the decoder over the translations. For an ensemble,
    probabilities and attention are means over its members.

    Args:
        model: as in `translate`, and so are the five that follow.
        tokenizer: its tokenizer.
        sentences: text.
        batch_size: sentences decoded at a time.
        batch_tokens: source tokens decoded at a time, instead of `batch_size` sentences.
        read_ahead: sentences read ahead.
        nbest: translations of each sentence. Unless `num_beams` is given, at least as many beams are used.
        scores: whether translations get `score` and `log_prob`.
        alignments: whether translations get `source_tokens`, `tokens` and `alignment`.
        tag: as in `translate`.
        **generation_options: for `model.generate()`.

    Yields:
        For each sentence a list of `nbest` translations, the best first; sampled without beams, in the order drawn.

    Raises:
        TypeError: a sentence is not a string.
        ValueError: as in `translate`; or `nbest` is less than 1 or more than `num_beams`.
    """
    engine = _engine(model, tokenizer)
    options = search_options(engine.generation_config, generation_options, nbest)
    batching = (batch_size, batch_tokens, read_ahead)
    yield from _translate(engine, tokenizer, sentences, tag, batching, options, scores, alignments)


@torch.inference_mode()
def _translate(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Iterable[str],
    tag: str | None,
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

    positions = engine.max_source_length
    unknown, counts = 0, list[int]()
    unk_token_id: Any = getattr(tokenizer, "unk_token_id", None)
    for window in windows(sentences, batch_size, batch_tokens, read_ahead):
        pieces = source_pieces(tokenizer, window, positions, tag)
        unknown += sum([ids.count(unk_token_id) for each in pieces for ids in each])
        counts += [len(each) for each in pieces if len(each) > 1]
        for translations in translate_pieces(engine, pieces, batches, options, scores, alignments):
            yield [_in_one_line(each) for each in translations]
    if counts:
        _say(engine, _WARNED_OF_PIECES, f"{len(counts)} sentences have more tokens than the {positions} positions of "
            f"the model: translated in {sum(counts)} pieces")  # fmt: skip
    if unknown:
        _say(engine, _WARNED_OF_UNKNOWN, f"{unknown} tokens of the sentences are {tokenizer.unk_token}: not in the "
            "model's vocabulary")  # fmt: skip


def _say(engine: Engine, warned: WeakSet[Engine], sentence: str) -> None:
    """Warns in the first call that an engine has with such sentences: a service makes a call for each batch."""
    logger.log(logging.INFO if engine in warned else logging.WARNING, sentence)
    warned.add(engine)


def _engine(model: PreTrainedModel | Engine, tokenizer: PreTrainedTokenizerBase) -> Engine:
    return model if isinstance(model, Engine) else TorchEngine(model, tokenizer)


def search_options(defaults: GenerationConfig, options: Mapping[str, Any], nbest: int = 1) -> dict[str, Any]:
    """Adds to the options of `generate()` what `nbest` translations need and neither they nor the config have.

    Args:
        defaults: the model's `generation_config`.
        options: those that a call gives; a `generation_config` among them comes before the model's, field by field.
        nbest: translations of each sentence.

    Returns:
        The options that the search has.

    Raises:
        ValueError: `nbest` or `num_beams` is less than 1, or `nbest` is more than `num_beams`; or
            `num_return_sequences` says otherwise.
    """
    _require_positive("nbest", nbest)
    if options.get("num_return_sequences", nbest) != nbest:
        raise ValueError(
            f"`num_return_sequences`={options['num_return_sequences']}, but this function yields {nbest} per "
            "sentence; for more, call translate_with_details() with `nbest`"
        )
    options = dict(options)
    # A field that the config of a call leaves open is the model's, as generate() has it.
    places = [options, chosen_values(options.get("generation_config")), chosen_values(defaults)]
    num_beams, do_sample = (
        next((place[name] for place in places if place.get(name) is not None), None)
        for name in ("num_beams", "do_sample")
    )
    _require_positive("num_beams", num_beams)
    if number_wanted(options, defaults) != nbest:
        options["num_return_sequences"] = nbest
    if nbest > (num_beams or 1) and not do_sample:
        if "num_beams" in options:
            raise ValueError(
                f"`nbest`={nbest} is more than `num_beams`={options['num_beams']}; give at least as many beams"
            )
        options["num_beams"] = nbest
    return options


def windows(
    sentences: Iterable[str], batch_size: int = 32, batch_tokens: int | None = None, read_ahead: int | None = None
) -> Iterator[list[str]]:
    """Divides sentences into those that are sorted by length and decoded together.

    What is in a batch depends on its window only. So text that is cut between windows is decoded in the same batches.

    Args:
        sentences: a stream.
        batch_size: as in `translate`, and so are the next two.
        batch_tokens: source tokens decoded at a time, instead.
        read_ahead: sentences of a window; None for enough for about 32 batches of either kind.

    Yields:
        Some sentences at a time, in their order.
    """
    limit = (batch_size if batch_tokens is None else batch_tokens) * _BATCHES_READ_AHEAD
    window: list[str] = []
    size = 0
    for sentence in sentences:
        window.append(sentence)
        if read_ahead is not None:
            is_full = len(window) >= read_ahead
        else:
            size += 1 if batch_tokens is None else 1 + len(sentence) // _CHARACTERS_PER_TOKEN
            is_full = size >= limit
        if is_full:
            yield window
            window, size = [], 0
    if window:
        yield window


def _in_one_line(translation: Translation) -> Translation:
    text = " ".join(translation.text.replace("\0", " ").splitlines())
    return translation if text == translation.text else replace(translation, text=text)


def _require_positive(name: str, value: int | None) -> None:
    if value is not None and (not isinstance(value, Integral) or value < 1):
        raise ValueError(f"`{name}`={value!r} is not allowed; allowed: an integer of at least 1")
