"""Figure 1 from the outside: what the whole model returns, with and without its head."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import Seq2SeqLMOutput, Seq2SeqModelOutput

from .modeling_compatibility import AnswersToBothCacheNames


@dataclass
class VanillaTransformerSeq2SeqModelOutput(AnswersToBothCacheNames, Seq2SeqModelOutput):
    """Output of `VanillaTransformerModel`: transformers' output, with two names for the cache."""


@dataclass
class VanillaTransformerSeq2SeqLMOutput(AnswersToBothCacheNames, Seq2SeqLMOutput):
    """Output of `VanillaTransformerForConditionalGeneration`: transformers' output and `nll_loss`.

    `logits` is None, and not an item, if the model was called in train mode with labels and without
    `return_logits=True`. The loss is then computed without ever holding the (B, T, V) logits.

    Args:
        nll_loss: scalar, the loss without label smoothing (§5.4), detached; exp(nll_loss) is the perplexity. None
            without labels; divided like `loss`. In eval mode `loss` is the same number.
    """

    nll_loss: torch.Tensor | None = None

    def __getitem__(self, key: Any) -> Any:
        if key == "logits" and key not in self:
            raise KeyError("logits were not computed, as in training on labels; call the model with return_logits=True")
        return super().__getitem__(key)
