"""§3.2.3 and §3.5 for a page: the attention behind one hypothesis of a search, and the encoding of positions.

`attention_of(...).as_dict()` is this, ready for `json.dumps`, with S source tokens, T target tokens, numbers rounded to
4 digits after the point, and rows that sum to 1:

```
{
  "text": "Ein Hund rennt.",                     the source
  "translation": "A dog runs.",                  the target without special tokens
  "source_tokens": ["Ein", "·Hund", ...],        S
  "target_tokens": ["A", "·dog", ..., "</s>"],   T: the rows of "cross" and "decoder", which predict them
  "read_tokens": ["<s>", "A", "·dog", ...],      T: the columns of "decoder", one token behind
  "cross": ...,                                  [layer][head][T][S]
  "decoder": ...,                                [layer][head][T][T], 0 above the diagonal
  "encoder": ...,                                [layer][head][S][S]
  "alignment": ...                               [T][S], the mean over the heads of the second-to-last layer of "cross"
}
```
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..lab.attention_maps import AttentionMaps, attention_maps
from ..positions import NoPositions, refuse_unlearned_positions
from .search_tree import checked_ids

_DIGITS = 4


@dataclass(frozen=True)
class AttentionRecord:
    """§3.2.3: the attention of every head over one text and one hypothesis.

    Args:
        maps: the weights and the tokens.
    """

    maps: AttentionMaps

    def as_dict(self) -> dict[str, Any]:
        """The record as the module's docstring describes it, for `json.dumps`."""
        maps = self.maps
        return {
            "text": maps.sentence,
            "translation": maps.translation,
            "source_tokens": list(maps.source),
            "target_tokens": list(maps.predicted),
            "read_tokens": list(maps.read),
            **{kind: _rounded(maps.weights[kind]) for kind in ("cross", "decoder", "encoder")},
            "alignment": _rounded(maps.alignment()),
        }


def attention_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, target_ids: Sequence[int]
) -> AttentionRecord:
    """§3.2.3: what each head attends to while the model predicts the tokens of a hypothesis.

    Args:
        model: a sequence-to-sequence model in eval mode that returns attention, as those of this package do.
        tokenizer: its tokenizer.
        text: the source, with its tags.
        target_ids: T tokens without the start token, such as `token_ids` of a `SearchHypothesis`, or those up to any
            node.

    Returns:
        The weights and the tokens.

    Raises:
        TypeError: the text is not a string.
        ValueError: there is no target token, or one is not in the vocabulary; or as `attention_maps`.
    """
    ids = checked_ids(model, target_ids, "target_ids")
    if not ids:
        raise ValueError("`target_ids` has no token, so nothing attends; give those of a hypothesis")
    return AttentionRecord(attention_maps(model, tokenizer, text, target=ids))


def positions_of(model: PreTrainedModel, length: int) -> list[list[float]]:
    """§3.5: what the encoder adds to the embeddings at each position, by default sinusoids.

    Args:
        model: of this package.
        length: positions, from 0.

    Returns:
        [position][dimension], rounded to 4 digits after the point.

    Raises:
        ValueError: the model adds nothing, because it knows positions in another way or not at all; or `length` is less
            than 1 or more than it has learned.
    """
    if length < 1:
        raise ValueError(f"`length`={length} is not allowed; allowed: at least 1")
    add = getattr(model.get_encoder(), "embed_positions", None)
    if add is None or isinstance(add, NoPositions):
        asked = getattr(model.config, "position_encoding", None)
        raise ValueError(
            f"this {type(model).__name__} with `position_encoding`={asked!r} adds no encoding of positions to its "
            "embeddings, so there is none to show"
        )
    numbers = torch.arange(length, device=model.device)[None]
    refuse_unlearned_positions(model.config, numbers, length)
    with torch.no_grad():
        return _rounded(add(torch.zeros(1, length, model.config.d_model, device=model.device), numbers)[0])


def _rounded(values: torch.Tensor) -> list[Any]:
    # In float64 a quotient is the number that is written with these digits.
    return (values.cpu().double() * 10**_DIGITS).round().div(10**_DIGITS).tolist()


__all__ = ["AttentionRecord", "attention_of", "positions_of"]
