"""§6.1 beam search of one text as a tree of hypotheses: what was considered, kept, pruned, finished and reranked.

`SearchRecord.as_dict()` is this, ready for `json.dumps`; log-probabilities are in nats, and all numbers are
rounded to 6 digits after the point:

```
{
  "text": "Ein Hund rennt.",                  the source
  "source_tokens": ["Ein", "·Hund", ..., "</s>"],    as people read them: · is a space
  "forced": 0,                                tokens of the prefix, the start token not counted
  "forced_log_prob": 0.0,                     sum of their log-probabilities; 0 without a prefix
  "settings": {
    "num_beams": 4,
    "penalty": "gnmt",                        or "power", transformers' own
    "length_penalty": 0.6,                    alpha of ((5 + n) / 6)^alpha, or the power of n^power
    "max_new_tokens": 54                      limit of the tokens after the prefix, the end token included
  },
  "nodes": [                                  a parent stands before its children, and its id is its place in this list
    {
      "id": 3,
      "parent": 0,                            null for the root, which is the start token
      "step": 1,                              tokens from the root to here: 0 for the root
      "token": "·dog",
      "token_id": 411,
      "log_prob": -0.7,                       of this token after those before it; 0.0 for the root
      "score": -0.9,                          sum of log_prob from the root to here, without a penalty
      "state": "open",                        "forced": the root and the prefix
                                              "open": was a beam; whether its continuations were pruned, they tell
                                              "pruned": was considered and not kept, or was finished and outscored
                                              "finished": the end of one of "hypotheses"
      "ends": false,                          whether it ends a translation: by the end token, or at the limit
      "next": [[17, "·runs", 0.61], ...]      id, token and probability of the most probable next tokens, the best
    },                                        first; [] if nothing was looked up after it
    ...
  ],
  "hypotheses": [                             the best first, at most num_beams
    {
      "node": 12,
      "token_ids": [411, 17, 5, 2],           with the prefix and the end token, without the start token
      "tokens": ["A", "·dog", "·runs", ".", "</s>"],
      "text": "A dog runs.",
      "log_prob": -1.2,                       the score of its node
      "length": 5,                            of token_ids
      "score": -0.9,                          what ranks it
      "rank": 1,
      "rank_without_penalty": 2               if log_prob alone ranked it
    },
    ...
  ]
}
```

With a prefix, the search ranks by what it has added, as `generate(decoder_input_ids=...)` does: with a = log_prob -
forced_log_prob and n = length - forced, score = a / ((5 + n) / 6)^alpha. To continue elsewhere, search with
`prefix_ids` = the tokens from the root (without it) to a node, and one id out of its "next".
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

_DIGITS = 6
State = Literal["forced", "open", "pruned", "finished"]


@dataclass(frozen=True)
class SearchNode:
    """§6.1: one token of the tree, and with the tokens before it a partial hypothesis.

    Args:
        id: its place among the nodes.
        parent: the id of the node before it; None for the root, which is the start token.
        step: tokens from the root to here.
        token: as people read it.
        token_id: of the vocabulary.
        log_prob: of this token after those before it, in nats, as the search sees it: after logits processors, if the
            `generation_config` asks for any. That of a forced token is the model's.
        score: the sum of `log_prob` from the root to here.
        state: "forced" (the root and the prefix), "open" (was a beam), "pruned" (considered and not kept, or finished
            and outscored), or "finished".
        ends: whether it ends a translation.
        next: id, token and probability of the most probable next tokens; empty unless they were looked up.
    """

    id: int
    parent: int | None
    step: int
    token: str
    token_id: int
    log_prob: float
    score: float
    state: State
    ends: bool
    next: tuple[tuple[int, str, float], ...]


@dataclass(frozen=True)
class SearchHypothesis:
    """§6.1: a finished translation.

    Args:
        node: the id of its last node.
        token_ids: with the prefix and the end token, without the start token.
        tokens: as people read them.
        text: without special tokens.
        log_prob: of all its tokens, those of the prefix included, in nats.
        length: of `token_ids`.
        score: what ranks it: the log-probability of what follows the prefix, divided by the length penalty for it.
        rank: from 1.
        rank_without_penalty: if `log_prob` ranked it.
    """

    node: int
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    text: str
    log_prob: float
    length: int
    score: float
    rank: int
    rank_without_penalty: int


@dataclass(frozen=True)
class SearchRecord:
    """§6.1: the whole search for translations of one text.

    Args:
        text: the source.
        source_tokens: its tokens as people read them; the last is usually `</s>`.
        forced: how many tokens the prefix has.
        forced_log_prob: the sum of their log-probabilities.
        settings: `num_beams`, `penalty` ("gnmt" or "power"), `length_penalty` (alpha or the power) and
            `max_new_tokens`.
        nodes: of the tree, parents before children.
        hypotheses: the finished ones, the best first.
    """

    text: str
    source_tokens: tuple[str, ...]
    forced: int
    forced_log_prob: float
    settings: dict[str, Any]
    nodes: tuple[SearchNode, ...]
    hypotheses: tuple[SearchHypothesis, ...]

    def token_ids_of(self, node: int) -> tuple[int, ...]:
        """The tokens from the root to a node, without the start token: what `prefix_ids` takes.

        Args:
            node: its id.
        """
        ids: list[int] = []
        while (parent := self.nodes[node].parent) is not None:
            ids.append(self.nodes[node].token_id)
            node = parent
        return tuple(reversed(ids))

    def as_dict(self) -> dict[str, Any]:
        """The record as the module's docstring describes it, for `json.dumps`."""
        return _as_json(asdict(self))


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(each) for each in value]
    return round(value, _DIGITS) if isinstance(value, float) else value


__all__ = ["SearchHypothesis", "SearchNode", "SearchRecord", "State"]
