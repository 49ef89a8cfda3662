"""Learning from monolingual text with a decoder: each next token (GPT), of all the text or of what follows a prefix.

A text begins with `<s>`, from which its first word is predicted, as in the decoder of a translation model:

    text            a dog runs </s>
    input           <s> a dog runs </s>
    labels          -   a dog runs </s>
    after a prefix  -   -  -  runs </s>      (`<s> a dog` is the prefix, whose tokens see each other)

Labels stand at the places of their own tokens, as transformers has it: the model shifts them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...loss import IGNORED_LABEL
from .amounts import Counts, without_end


@dataclass(frozen=True)
class CausalLanguageModelling:
    """Language modelling: every token of a text, `</s>` included, from those before it (Radford et al. 2018, §3.1).

    Args:
        bos_token_id: the id of `<s>`, which begins every text.
        eos_token_id: the id of `</s>`, which ends it.
    """

    bos_token_id: int
    eos_token_id: int

    def lengths(self, num_tokens: Counts) -> tuple[np.ndarray, np.ndarray]:
        """How long input and labels of texts are; `num_tokens` are their lengths without `<s>` and `</s>`."""
        return np.asarray(num_tokens) + 2, np.asarray(num_tokens) + 2

    def __call__(self, tokens: Any, random: np.random.Generator) -> dict[str, Any]:
        """Makes an example of a text; nothing is drawn.

        Args:
            tokens: its ids, without `</s>`.
            random: not used.

        Returns:
            `input_ids`, and `labels` of the same length, -100 where nothing is to be predicted.
        """
        ids = [self.bos_token_id, *without_end(tokens, self.eos_token_id), self.eos_token_id]
        return {"input_ids": ids, "labels": [IGNORED_LABEL, *ids[1:]]}


@dataclass(frozen=True)
class PrefixLanguageModelling(CausalLanguageModelling):
    """Prefix language modelling: what follows a prefix, whose own tokens all see each other (T5, §3.2.1 and §3.3.1).

    Where the prefix ends is drawn: with n tokens, after any of the first n - 1, with equal probability. In a text of
    one token, the prefix is `<s>` alone.
    """

    def __call__(self, tokens: Any, random: np.random.Generator) -> dict[str, Any]:
        """Divides a text.

        Args:
            tokens: its ids, without `</s>`.
            random: where the randomness comes from.

        Returns:
            `input_ids`; `labels` of the same length, -100 up to the end of the prefix; and `prefix_length`, how many
            tokens the prefix has, `<s>` included.
        """
        made = super().__call__(tokens, random)
        count = len(made["input_ids"]) - 2
        length = 1 + (int(random.integers(1, count)) if count > 1 else 0)
        labels = [IGNORED_LABEL] * length + made["input_ids"][length:]
        return {"input_ids": made["input_ids"], "labels": labels, "prefix_length": length}


__all__ = ["CausalLanguageModelling", "PrefixLanguageModelling"]
