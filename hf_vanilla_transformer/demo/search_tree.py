"""§6.1 beam search of one text, recorded as a tree while `generate()` runs it. What a record holds: `search_record`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..configuration_variants import require_tokens
from ..decoding import PaperGenerationMixin
from ..decoding_beam_search import BeamSearch, Position
from ..lab.attention_maps import token_labels, whole_source
from ..translation_batches import length_limit, refuse_training_mode
from ..translation_scoring import shift_right
from .search_record import SearchHypothesis, SearchNode, SearchRecord, State


def record_search(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    num_beams: int | None = None,
    length_penalty: float | None = None,
    prefix_ids: Sequence[int] = (),
    max_new_tokens: int | None = None,
    candidates: int = 8,
) -> SearchRecord:
    """§6.1: translates a text by the model's own `generate()`, and records the search.

    The best hypothesis is what `generate()` returns for these settings. With one beam that is greedy search.

    Args:
        model: a sequence-to-sequence model of this package, or an ensemble; in eval mode.
        tokenizer: its tokenizer.
        text: the source, with its tags, as in `<fre> bonjour`.
        num_beams: of the search; None for the model's own.
        length_penalty: alpha of ((5 + n) / 6)^alpha; None for the model's own penalty.
        prefix_ids: tokens that translations begin with, without the start token.
        max_new_tokens: limit of the tokens after the prefix, the end token included; None for the model's own.
        candidates: how many next tokens to record of each beam.

    Returns:
        The tree and the finished hypotheses.

    Raises:
        TypeError: the text is not a string.
        ValueError: the model is in training mode, of another package, or does not translate text; the text is blank or
            needs more positions than the model has learned; `prefix_ids` has an id that is not in the vocabulary, or an
            end token; or an option has a value that is not allowed.
    """
    if not (isinstance(model, PaperGenerationMixin) and model.config.is_encoder_decoder):
        raise ValueError(f"a {type(model).__name__} has no search to record; give an encoder-decoder of this package")
    require_tokens(model.config, "recording a search")
    refuse_training_mode(model)
    for name, value in (("num_beams", num_beams), ("max_new_tokens", max_new_tokens), ("candidates", candidates)):
        if value is not None and (not isinstance(value, Integral) or value < 1):
            raise ValueError(f"`{name}`={value!r} is not allowed; allowed: an integer of at least 1")
    prefix = checked_ids(model, prefix_ids, "prefix_ids")
    ends = model.generation_config.eos_token_id
    if at := [place for place, token in enumerate(prefix) if token in (ends if isinstance(ends, list) else [ends])]:
        raise ValueError(f"`prefix_ids` has the end token {prefix[at[0]]} at {at[0]}, and nothing follows an end")
    source = torch.tensor([whole_source(model, tokenizer, text)], device=model.device)  # (1, S)
    inputs = {"input_ids": source, "attention_mask": torch.ones_like(source)}
    # Of the last token, which stands for the first that is searched, only the place is used.
    read = shift_right(model, torch.tensor([[*prefix, 0]], device=model.device))  # (1, P + 1)
    recorder = _Recorder(int(read[0, 0]), candidates)
    if prefix:
        with torch.no_grad():
            logits = model(**inputs, decoder_input_ids=read, use_cache=False, return_dict=True).logits[0, :-1]
        recorder.force(prefix, logits.float().log_softmax(-1))
    given = {
        "num_beams": num_beams,
        "gnmt_length_penalty": length_penalty,
        "max_new_tokens": max_new_tokens,
        "decoder_input_ids": read if prefix else None,
    }
    options = {name: value for name, value in given.items() if value is not None}
    model.generate(
        **inputs,
        **length_limit(model, source.shape[1], options),
        **options,
        do_sample=False,
        num_return_sequences=1,
        custom_generate=partial(type(model)._beam_search, observer=recorder.observe),
    )
    return recorder.finish(tokenizer, text, source[0].tolist())


def checked_ids(model: PreTrainedModel, ids: Sequence[int], name: str) -> list[int]:
    """Refuses what is no token of the target.

    Args:
        model: its config says how many there are.
        ids: of tokens.
        name: of the argument that they come from.

    Returns:
        The ids.

    Raises:
        ValueError: one of them is not in the vocabulary.
    """
    count = model.config.vocab_size
    for place, token in enumerate(ids):
        if not isinstance(token, Integral) or isinstance(token, bool) or not 0 <= token < count:
            raise ValueError(f"`{name}` has {token!r:.40} at {place}, which is no token id; allowed: 0 to {count - 1}")
    return [int(token) for token in ids]


@dataclass
class _Growing:
    """A node while the search goes on."""

    parent: int | None
    token_id: int
    log_prob: float
    score: float
    state: State
    ends: bool = False
    next: list[tuple[int, float]] = field(default_factory=list)


class _Recorder:
    """Makes a tree out of what an observer of the search of one sentence is told.

    Args:
        start: the start token.
        candidates: next tokens to record.
    """

    def __init__(self, start: int, candidates: int) -> None:
        self.nodes = [_Growing(None, start, 0.0, 0.0, "forced")]
        self.candidates, self.forced = candidates, 0
        self.children: dict[tuple[int, int], int] = {}  # by parent and token
        self.beams: list[int | None] = []  # the node of each; None where a beam is impossible
        self.search: BeamSearch | None = None

    def force(self, prefix: list[int], log_probs: torch.Tensor) -> None:
        """Adds the prefix (P tokens) with log_probs (P, V) of each of them and its alternatives."""
        for token, each in zip(prefix, log_probs, strict=True):
            parent = len(self.nodes) - 1
            self._look_up(parent, each)
            self._add(parent, token, float(each[token]), self.nodes[parent].score + float(each[token]), "forced")
        self.forced = len(prefix)

    def observe(self, search: BeamSearch, position: Position) -> None:
        """Adds what the search considered at one position; it is an `Observer`."""
        if self.search is None:
            # All beams begin as the prefix, which is continued once.
            self.search, self.beams = search, [len(self.nodes) - 1] + [None] * (search.num_beams - 1)
        base = self.nodes[self.forced].score
        log_probs = position.log_probs[0]
        for node, each in zip(self.beams, log_probs, strict=True):
            if node is not None:
                self._look_up(node, each)
        columns = (position.totals, position.parents, position.tokens, position.ends)
        for total, beam, token, ends in zip(*(each[0].tolist() for each in columns), strict=True):
            parent = self.beams[beam]
            if total == -torch.inf or parent is None:
                continue
            log_prob = float(log_probs[beam, token])
            self.children[parent, token] = self._add(parent, token, log_prob, base + total, "pruned")
            self.nodes[-1].ends = ends
        kept = (search.totals, search.beam_indices[..., -1], search.sequences[..., -1])
        earlier, self.beams = self.beams, []
        for total, beam, token in zip(*(each[0].tolist() for each in kept), strict=True):
            parent = earlier[beam]
            node = None if total == -torch.inf or parent is None else self.children[parent, token]
            if node is not None:
                self.nodes[node].state = "open"
            self.beams.append(node)

    def finish(self, tokenizer: PreTrainedTokenizerBase, text: str, source: list[int]) -> SearchRecord:
        """Returns the record of a search that has ended."""
        assert self.search is not None
        found = [(each, self._last_node(each.tokens.tolist())) for each in self.search.finished[0]]
        for _, node in found:
            self.nodes[node].state = "finished"
        by_log_prob = sorted((node for _, node in found), key=lambda node: -self.nodes[node].score)
        ids = sorted({each for grown in self.nodes for each in (grown.token_id, *(token for token, _ in grown.next))})
        labels = dict(zip(ids, token_labels(tokenizer, ids), strict=True))
        nodes: list[SearchNode] = []
        for number, grown in enumerate(self.nodes):
            step = 0 if grown.parent is None else nodes[grown.parent].step + 1
            following = tuple((token, labels[token], probability) for token, probability in grown.next)
            own = (grown.token_id, grown.log_prob, grown.score, grown.state, grown.ends)
            nodes.append(SearchNode(number, grown.parent, step, labels[grown.token_id], *own, following))
        prefix = [grown.token_id for grown in self.nodes[1 : self.forced + 1]]
        hypotheses = []
        for rank, (each, node) in enumerate(found, start=1):
            token_ids = (*prefix, *each.tokens.tolist())
            decoded = tokenizer.decode(list(token_ids), skip_special_tokens=True)
            hypotheses.append(
                SearchHypothesis(
                    node,
                    token_ids,
                    tuple(labels[token] for token in token_ids),
                    " ".join(decoded.splitlines()),
                    self.nodes[node].score,
                    len(token_ids),
                    each.score,
                    rank,
                    by_log_prob.index(node) + 1,
                )
            )
        ranking = self.search.ranking
        settings = {
            "num_beams": ranking.num_beams,
            "penalty": "power" if ranking.alpha is None else "gnmt",
            "length_penalty": ranking.power if ranking.alpha is None else ranking.alpha,
            "max_new_tokens": int(self.search.limits[0]),
        }
        forced_log_prob = self.nodes[self.forced].score
        labelled = tuple(token_labels(tokenizer, source))
        return SearchRecord(text, labelled, self.forced, forced_log_prob, settings, tuple(nodes), tuple(hypotheses))

    def _add(self, parent: int, token: int, log_prob: float, score: float, state: State) -> int:
        self.nodes.append(_Growing(parent, token, log_prob, score, state))
        return len(self.nodes) - 1

    def _look_up(self, node: int, log_probs: torch.Tensor) -> None:
        best = log_probs.topk(min(self.candidates, len(log_probs)))
        pairs = zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
        self.nodes[node].next = [(token, probability) for token, probability in pairs if probability > 0]

    def _last_node(self, tokens: list[int]) -> int:
        node = self.forced  # the nodes of the prefix are the first
        for token in tokens:
            node = self.children[node, token]
        return node


__all__ = ["checked_ids", "record_search"]
