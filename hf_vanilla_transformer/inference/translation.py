"""§6.1 in use: text in, translations out, one for one and in order."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..decoding import MAX_EXTRA_TOKENS
from .batching import evaluating, padded_batch, sorted_batches, token_batches

# So many batches are read ahead and sorted by length together: little padding, bounded memory, and still a stream.
_BATCHES_READ_AHEAD = 32


@torch.inference_mode()
def translate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Iterable[str],
    batch_size: int = 32,
    batch_tokens: int | None = None,
    **generation_options: Any,
) -> Iterator[str]:
    """Translates sentences of any length, and yields one translation for each, in their order.

    A sentence without a visible character is not worth asking the model for: it comes back as the empty string. How
    long a translation may be, the model's `generation_config` says; where it has neither `max_extra_tokens` nor a limit
    of its own, 50 tokens more than the longest source of the batch.

    Args:
        model: a sequence-to-sequence model; used in eval mode, and left in the mode it was in.
        tokenizer: its tokenizer.
        sentences: text; may be a stream, which is read some thousand sentences ahead.
        batch_size: sentences decoded at a time.
        batch_tokens: source tokens decoded at a time, padding among them, in place of `batch_size`: many short
            sentences or few long ones.
        **generation_options: for `model.generate()`, such as `num_beams`; the model's own `generation_config` says
            the rest.

    Yields:
        Translations without special tokens.

    Raises:
        ValueError: `batch_size` or `batch_tokens` is less than 1.
    """
    for name, value in (("batch_size", batch_size), ("batch_tokens", batch_tokens)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}`={value}, but a batch holds something; allowed: an integer of at least 1")
    stream = iter(sentences)
    with evaluating(model):
        while window := list(islice(stream, batch_size * _BATCHES_READ_AHEAD)):
            yield from _translate_window(model, tokenizer, window, batch_size, batch_tokens, generation_options)


def _translate_window(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    window: list[str],
    batch_size: int,
    batch_tokens: int | None,
    generation_options: dict[str, Any],
) -> list[str]:
    translations = [""] * len(window)
    visible = [index for index, sentence in enumerate(window) if sentence.strip()]
    if not visible:
        return translations
    sources = tokenizer([window[index] for index in visible])["input_ids"]
    lengths = [len(source) for source in sources]
    batches = sorted_batches(lengths, batch_size) if batch_tokens is None else token_batches(lengths, batch_tokens)
    config = model.generation_config
    has_limit = any(
        getattr(config, name, None) is not None for name in ("max_extra_tokens", "max_new_tokens", "max_length")
    )
    for batch_indices in batches:
        batch = padded_batch([{"input_ids": sources[index]} for index in batch_indices], model.config.pad_token_id)
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        options = {} if has_limit else {"max_new_tokens": batch["input_ids"].shape[1] + MAX_EXTRA_TOKENS}
        outputs = model.generate(**batch, **{**options, **generation_options})
        texts = tokenizer.batch_decode(outputs, skip_special_tokens=True)
        for index, text in zip(batch_indices, texts, strict=True):
            translations[visible[index]] = text
    return translations
