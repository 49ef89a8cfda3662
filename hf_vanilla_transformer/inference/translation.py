"""§6.1 in use: text in, translations out, one for one and in order."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .batching import evaluating, padded_batch, sorted_batches

# The paper decodes at most this many tokens more than the source has (§6.1).
MAX_EXTRA_TOKENS = 50

# So many batches are read ahead and sorted by length together: little padding, bounded memory, and still a stream.
_BATCHES_READ_AHEAD = 32


@torch.inference_mode()
def translate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Iterable[str],
    batch_size: int = 32,
    **generation_options: Any,
) -> Iterator[str]:
    """Translates sentences of any length, and yields one translation for each, in their order.

    A sentence without a visible character is not worth asking the model for: it comes back as the empty string. A
    translation may be 50 tokens longer than the longest source of its batch.

    Args:
        model: a sequence-to-sequence model; used in eval mode, and left in the mode it was in.
        tokenizer: its tokenizer.
        sentences: text; may be a stream, which is read some thousand sentences ahead.
        batch_size: sentences decoded at a time.
        **generation_options: for `model.generate()`, such as `num_beams`; the model's own `generation_config` says
            the rest.

    Yields:
        Translations without special tokens.
    """
    stream = iter(sentences)
    with evaluating(model):
        while window := list(islice(stream, batch_size * _BATCHES_READ_AHEAD)):
            yield from _translate_window(model, tokenizer, window, batch_size, generation_options)


def _translate_window(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    window: list[str],
    batch_size: int,
    generation_options: dict[str, Any],
) -> list[str]:
    translations = [""] * len(window)
    visible = [index for index, sentence in enumerate(window) if sentence.strip()]
    if not visible:
        return translations
    sources = tokenizer([window[index] for index in visible])["input_ids"]
    for batch_indices in sorted_batches([len(source) for source in sources], batch_size):
        batch = padded_batch([{"input_ids": sources[index]} for index in batch_indices], model.config.pad_token_id)
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        options = {"max_new_tokens": batch["input_ids"].shape[1] + MAX_EXTRA_TOKENS, **generation_options}
        outputs = model.generate(**batch, **options)
        texts = tokenizer.batch_decode(outputs, skip_special_tokens=True)
        for index, text in zip(batch_indices, texts, strict=True):
            translations[visible[index]] = text
    return translations
