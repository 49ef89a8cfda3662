"""BPE-dropout (Provilkov et al. 2020): a word is cut differently each time it is read. Seeded, so runs can be resumed.

`tokenizers` has a dropout of its own, but its random numbers cannot be seeded. Here is only the merging; how text
becomes words, and what stands around them, is the tokenizer's own work.

The merging is Algorithm 1 of the paper: in each step, every merge that is possible in the word is left out with
probability p, independently; of the others the one learned first is applied (of equal ones, the leftmost); where no
other is left, the word is done. With the possible merges in the order in which they were learned, how many are left
out before the first that is not is one geometric random number. So a step takes one number, drawn in bulk, and one look
into a graph that all texts share: its nodes are the ways to cut a word, its edges the merges from one to another.
"""

import json
import sys
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..tokenization_ids import text_backend

_Symbols = tuple[int, ...]

# Longer words are hardly ever cut the same way twice, so keeping their cuts would be a waste.
_LONGEST_WORD_IN_GRAPH = 32  # symbols
_MOST_NODES = 500_000  # about 200 MB; then the graph starts anew, which costs time and changes no result


class _Node:
    """A way to cut a word: its symbols, the places of its possible merges, first learned first, and where they lead."""

    __slots__ = ("following", "places", "symbols")

    def __init__(self, symbols: _Symbols, places: tuple[int, ...]) -> None:
        self.symbols = symbols
        self.places = places
        self.following: list[_Node | None] = [None] * len(places)


class BpeDropout:
    """Encodes texts as a BPE tokenizer does, but with merges left out at random (Provilkov et al. 2020, §3.2).

    All else is as `text_to_ids` has it: control tokens in a text are text, added tokens stay whole, `</s>` ends it, and
    nothing is truncated or padded. The result depends on text and generator only, not on the texts encoded before. It
    can be copied and pickled.

    What `tokenizers` does with the `dropout` of its own model differs a little from the paper's definition, which is
    followed here: a merge that was left out gets another chance whenever an entry of the queue is met that an earlier
    merge has made void.

    Args:
        tokenizer: a fast tokenizer whose model is BPE; it is not changed.
        p: the probability with which a merge is left out. 0 gives the ids of `text_to_ids`; 1 gives single characters
            (bytes, if the BPE is byte-level). The paper has 0.1.

    Raises:
        ValueError: the tokenizer is no fast BPE tokenizer, or has options that merge in another way; or `p` is not
            between 0 and 1.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, p: float) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"`p`={p} is not a probability, between 0 and 1")
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ValueError(f"BPE-dropout needs a fast tokenizer, and {type(tokenizer).__name__} is none")
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        if model["type"] != "BPE":
            raise ValueError(f"BPE-dropout needs a BPE tokenizer; the model of this one is {model['type']}")
        for option in ("dropout", "ignore_merges"):
            if model.get(option):
                raise ValueError(f"the tokenizer's BPE model has `{option}`={model[option]}; BPE-dropout needs it off")
        self.p = p
        self._backends = {side: text_backend(tokenizer, as_target=side) for side in (False, True)}
        # (left, right) -> (rank, merged)
        self._merges: dict[tuple[int, int], tuple[int, int]] = {}
        self._parts: dict[int, tuple[int, int]] = {}  # merged -> (left, right)
        vocabulary, prefix = model["vocab"], model.get("continuing_subword_prefix") or ""
        for rank, (left, right) in enumerate(model["merges"]):
            merged = vocabulary[left + right[len(prefix) :]]
            pair = vocabulary[left], vocabulary[right]
            self._merges[pair] = rank, merged
            self._parts[merged] = pair
        for added in self._backends[False].get_added_tokens_decoder():
            self._parts.pop(added, None)  # found in the text as a whole, so never cut
        self._clear_graph()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_whole_words": {}, "_nodes": {}}  # large, and soon made again

    def encode(self, text: str, rng: np.random.Generator, as_target: bool = False) -> list[int]:
        """Encodes one text.

        Args:
            text: the text.
            rng: where the randomness comes from. The same state gives the same ids.
            as_target: whether it is what the tokenizer calls `text_target`.

        Returns:
            The ids, with those that the tokenizer adds, such as `</s>`.
        """
        backend = self._backends[as_target]
        backend.encode_special_tokens = True  # passes over control tokens; gets lost when a backend is copied
        return self._cut(backend.encode(text), rng)

    def encode_batch(self, texts: Sequence[str], rng: np.random.Generator, as_target: bool = False) -> list[list[int]]:
        """Encodes texts; the same as `encode` of one after the other with the same generator, but faster.

        Args:
            texts: the texts.
            rng: where the randomness comes from.
            as_target: as of `encode`.

        Returns:
            The ids of each text.
        """
        backend = self._backends[as_target]
        backend.encode_special_tokens = True
        return [self._cut(encoding, rng) for encoding in backend.encode_batch(list(texts))]

    def _cut(self, encoding: Encoding, rng: np.random.Generator) -> list[int]:
        """Cuts the words of an encoded text anew."""
        words = self._words(encoding)
        # A word of n symbols takes fewer than n steps: it has n - 1 merges, or fewer and one step that finds none.
        draws = iter(self._draw(rng, sum(len(word.symbols) for word in words)))
        ids: list[int] = []
        for word in words:
            if len(word.symbols) > _LONGEST_WORD_IN_GRAPH:
                ids += self._cut_long_word(word.symbols, draws)
                continue
            node = word
            while node.places:
                left_out = next(draws)
                if left_out >= len(node.places):
                    break
                node = node.following[left_out] or self._follow(node, left_out)
            ids += node.symbols
        return ids

    def _draw(self, rng: np.random.Generator, size: int) -> list[int]:
        """For each step, how many merges are left out before one is not."""
        if self.p == 1:
            return [sys.maxsize] * size
        return (rng.geometric(1 - self.p, size) - 1).tolist()

    def _words(self, encoding: Encoding) -> list[_Node]:
        """The words of a text before any merge: the encoding says which tokens are of one word."""
        if len(self._nodes) > _MOST_NODES:
            self._clear_graph()
        nodes = []
        ids, words = encoding.ids, encoding.word_ids
        start = 0
        while start < len(ids):
            stop, word = start + 1, words[start]
            # What the post-processor adds is of no word.
            while word is not None and stop < len(ids) and words[stop] == word:
                stop += 1
            tokens = tuple(ids[start:stop])
            nodes.append(self._whole_words.get(tokens) or self._add_word(tokens))
            start = stop
        return nodes

    def _add_word(self, tokens: _Symbols) -> _Node:
        symbols = tuple(symbol for token in tokens for symbol in self._unmerge(token))
        if len(symbols) > _LONGEST_WORD_IN_GRAPH:
            return _Node(symbols, ())
        node = self._whole_words[tokens] = self._node(symbols)
        return node

    def _unmerge(self, token: int) -> list[int]:
        """The symbols that were merged to a token."""
        symbols, rest = [], [token]
        while rest:
            if (parts := self._parts.get(rest[-1])) is None:
                symbols.append(rest.pop())
            else:
                left, right = parts
                rest[-1:] = [right, left]
        return symbols

    def _clear_graph(self) -> None:
        self._whole_words: dict[_Symbols, _Node] = {}  # by the tokenizer's own tokens
        self._nodes: dict[_Symbols, _Node] = {}

    def _node(self, symbols: _Symbols) -> _Node:
        node = self._nodes.get(symbols)
        if node is None:
            places = tuple(place for _, place in self._possible_merges(symbols))
            node = self._nodes[symbols] = _Node(symbols, places)
        return node

    def _follow(self, node: _Node, which: int) -> _Node:
        place, symbols = node.places[which], node.symbols
        _, merged = self._merges[symbols[place], symbols[place + 1]]
        following = self._node((*symbols[:place], merged, *symbols[place + 2 :]))
        node.following[which] = following
        return following

    def _possible_merges(self, symbols: _Symbols) -> list[tuple[int, int]]:
        """The merges that are possible, as rank and place, first learned first."""
        pairs = enumerate(pairwise(symbols))
        return sorted((self._merges[pair][0], place) for place, pair in pairs if pair in self._merges)

    def _cut_long_word(self, symbols: _Symbols, draws: Iterator[int]) -> list[int]:
        """The same without the graph, and without looking at the whole word in each step."""
        ids = list(symbols)
        merges = self._possible_merges(symbols)
        # The neighbours of a symbol, by its place in the word; a merged symbol stands where its left part stood.
        before, after = list(range(-1, len(ids) - 1)), list(range(1, len(ids) + 1))

        def possible(left: int) -> tuple[int, int] | None:
            """The merge of what stands at a place with what comes after it."""
            if left < 0 or after[left] == len(ids):
                return None
            found = self._merges.get((ids[left], ids[after[left]]))
            return None if found is None else (found[0], left)

        while merges:
            left_out = next(draws)
            if left_out >= len(merges):
                break
            _, place = merges[left_out]
            gone = after[place]
            for left in (before[place], place, gone):
                if (merge := possible(left)) is not None:
                    del merges[bisect_left(merges, merge)]
            ids[place] = self._merges[ids[place], ids[gone]][1]
            ids[gone] = -1
            after[place] = after[gone]
            if after[place] < len(ids):
                before[after[place]] = place
            for left in (before[place], place):
                if (merge := possible(left)) is not None:
                    insort(merges, merge)
        return [symbol for symbol in ids if symbol >= 0]


__all__ = ["BpeDropout"]
