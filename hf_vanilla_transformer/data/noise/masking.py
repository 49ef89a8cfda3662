"""Learning from monolingual text with an encoder: masked language modelling (BERT, Devlin et al. 2019, §3.1 and A.1).

Some tokens of a text are covered, and the encoder says at their places which they were:

    text    my dog is hairy </s>
    input   my dog is <mask> </s>
    labels  -  -   -  hairy  -

As in BERT's code, their number follows from the length of the text (15 % of it, at least one), which of them is drawn,
and of those that are drawn, 80 % become `<mask>`, 10 % a random token, and 10 % stay as they are: the encoder is asked
about words that it sees, too, and cannot know which.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...loss import IGNORED_LABEL
from .amounts import Counts, noise_counts, sorted_choice, without_end

# The shares of the predicted tokens that are covered, and that are replaced by any other; the rest stays.
MASKED, REPLACED = 0.8, 0.1


@dataclass(frozen=True)
class MaskedLanguageModelling:
    """BERT's first objective: what stood at the places that are masked.

    Args:
        mask_token_id: the id of `<mask>`.
        eos_token_id: the id of `</s>`, which ends every text and is never masked.
        words: ids that a random token is drawn from, each with equal probability.
        noise_density: the share of the tokens that are predicted.
    """

    mask_token_id: int
    eos_token_id: int
    words: Sequence[int]
    noise_density: float = 0.15

    def lengths(self, num_tokens: Counts) -> tuple[np.ndarray, np.ndarray]:
        """How long input and labels of texts are, `</s>` included; `num_tokens` are their lengths without it."""
        noise_counts(num_tokens, self.noise_density, 0)
        return np.asarray(num_tokens) + 1, np.asarray(num_tokens) + 1

    def __call__(self, tokens: Any, random: np.random.Generator) -> dict[str, Any]:
        """Masks a text.

        Args:
            tokens: its ids, without `</s>`.
            random: where the randomness comes from.

        Returns:
            `input_ids`, and `labels` of the same length: the ids that are to be predicted, and -100 elsewhere.
        """
        ids = [*without_end(tokens, self.eos_token_id), self.eos_token_id]
        count = len(ids) - 1
        chosen = sorted_choice(random, count, int(noise_counts(count, self.noise_density, 0)))
        labels = [IGNORED_LABEL] * len(ids)
        fates, others = random.random(len(chosen)), random.integers(len(self.words), size=len(chosen))
        for place, fate, other in zip(chosen.tolist(), fates.tolist(), others.tolist(), strict=True):
            labels[place] = ids[place]
            if fate < MASKED:
                ids[place] = self.mask_token_id
            elif fate < MASKED + REPLACED:
                ids[place] = int(self.words[other])
        return {"input_ids": ids, "labels": labels}


__all__ = ["MASKED", "REPLACED", "MaskedLanguageModelling"]
