"""Perplexity: how probable a model finds given translations, token by token, without label smoothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from ..data.batching import padded_batch, token_batches
from ..loss import IGNORED_LABEL
from ..translation_batches import refuse_training_mode


@dataclass(frozen=True)
class LabelLikelihood:
    """The likelihood of a set of labels, as sums, which can be added up over parts of the set.

    Args:
        nll: negative log-probability of all labels, in nats.
        num_tokens: number of labels, each `</s>` included.
    """

    nll: float
    num_tokens: int

    @property
    def nll_per_token(self) -> float:
        """Nats per token: the mean over all tokens, so that sentences have weight by their length."""
        return self.nll / max(self.num_tokens, 1)

    @property
    def perplexity(self) -> float:
        """exp(nats per token), as in Table 3, whose tokens are word pieces too; infinite where that overflows."""
        return math.exp(self.nll_per_token) if self.nll_per_token < 700 else math.inf


@torch.no_grad()
def label_likelihood(
    model: PreTrainedModel, examples: Sequence[dict[str, Any]], batch_tokens: int = 4096
) -> LabelLikelihood:
    """Computes the likelihood of all labels of `examples`.

    It uses the fused loss, which holds the logits of a few hundred tokens at a time, and so takes less time and memory
    than `score_pairs`, which returns the score of each token.

    Args:
        model: of this package, in eval mode: of sequence pairs, or a masked, causal or prefix language model.
        examples: each with `input_ids` and `labels`, lists of token ids, and what else `padded_batch` takes. The label
            of the first token of a causal language model, which it does not predict, is -100.
        batch_tokens: tokens of a side that are scored at a time, padding included; a longer sentence is scored alone.

    Returns:
        The sums over all labels.

    Raises:
        ValueError: the model is in training mode, or `batch_tokens` is less than 1.
    """
    if batch_tokens < 1:
        raise ValueError(f"`batch_tokens`={batch_tokens} is not allowed; allowed: an integer of at least 1")
    nll, num_tokens = 0.0, 0
    refuse_training_mode(model)
    lengths = [max(len(example["input_ids"]), len(example["labels"])) for example in examples]
    for indices in token_batches(lengths, batch_tokens):
        batch = padded_batch([examples[index] for index in indices], model.config.pad_token_id)
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        tokens = int(batch["labels"].ne(IGNORED_LABEL).sum())
        output = model(**batch, return_logits=False)
        nll += float(output.nll_loss) * tokens
        num_tokens += tokens
    return LabelLikelihood(nll, num_tokens)
