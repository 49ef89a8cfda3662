"""One model of the page: what the page says of it, and its answers, ready for JSON.

Whatever a visitor may have caused is answered by `{"error": a sentence}`, which the page shows where it shows results.
"""

import copy
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..decoding_config import LengthLimits, chosen_values, settled
from ..inference.loading import load_translator
from ..inference.shipped import place_of_model
from ..publishing.card_checks import card_examples
from ..tokenization_ids import tokens_in_text
from ..translation_pieces import max_source_length, source_pieces
from .limits import Limits
from .search_attention import attention_of, positions_of
from .search_tree import record_search

# What the shipped checkpoints do; other models are called by their names.
_TITLES = {
    "multi30k-de-en-tiny": "German to English: captions of pictures",
    "multi30k-en-de-tiny": "English to German: captions of pictures",
    "multi30k-en-fr-tiny": "English to French: captions of pictures",
    "g2p-15-languages": "Pronunciation of words in 15 languages",
}
_MAX_PENALTY = 3.0


class PageModel:
    """A model as the page shows it.

    Args:
        name: by which the page asks for it.
        model: in eval mode.
        tokenizer: its tokenizer.
        limits: of the page.
        examples: texts to begin with, with their tags.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        limits: Limits,
        examples: Sequence[str] = (),
    ) -> None:
        self.name, self.model, self.limits = name, model, limits
        # It changes its state while it reads: nobody else may use it meanwhile.
        self._tokenizer, self._lock = copy.deepcopy(tokenizer), Lock()
        self.tags = tuple(tokens_in_text(tokenizer))
        self.examples = [_split_tag(text, self.tags) for text in examples]

    @classmethod
    def load(cls, folder: str, name: str, limits: Limits, device: str = "auto") -> "PageModel":
        """Loads a model and the examples of its card.

        Args:
            folder: of the model; or its name, as `load_translator` takes it.
            name: by which the page asks for it.
            limits: of the page.
            device: as of `load_translator`.

        Returns:
            The model.

        Raises:
            FileNotFoundError: there is no such model.
            ValueError: it cannot be loaded.
        """
        model, tokenizer = load_translator([folder], device)
        place = Path(place_of_model(folder))
        examples = [text for text, _ in card_examples(place)] if place.is_dir() else []
        return cls(name, model, tokenizer, limits, examples)

    def describe(self) -> dict[str, Any]:
        """What the page has to know to offer the model, for `json.dumps`."""
        own = self.model.generation_config
        alpha, _ = settled("gnmt_length_penalty", [{}, chosen_values(own)])
        return {
            "name": self.name,
            "title": _TITLES.get(self.name, self.name),
            "parameters": self.model.num_parameters(),
            "tags": list(self.tags),
            "ends": own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id],
            "examples": self.examples,
            "num_beams": self._own_beams(),
            "length_penalty": alpha,
            "position_encoding": getattr(self.model.config, "position_encoding", ""),
            "max_beams": self.limits.max_beams,
            "max_penalty": _MAX_PENALTY,
            "max_characters": self.limits.max_characters,
        }

    def search(
        self,
        text: str,
        tag: str = "",
        num_beams: int | None = None,
        length_penalty: float | None = None,
        prefix_ids: Sequence[int] = (),
    ) -> dict[str, Any]:
        """§6.1: translates a text, and shows the search.

        Args:
            text: without its tag.
            tag: one of `tags`; empty for none.
            num_beams: of the search; None for the model's own, or as many as the page allows.
            length_penalty: alpha of ((5 + n) / 6)^alpha; None for the model's own.
            prefix_ids: tokens that translations begin with, without the start token; they count among those that a
                translation may have.

        Returns:
            `SearchRecord.as_dict()` with `seconds` that it took; or `error`.
        """

        def work(source: str, longest: int) -> dict[str, Any]:
            if num_beams is not None and not _is_integer(num_beams, 1, self.limits.max_beams):
                raise ValueError(f"there are 1 to {self.limits.max_beams} beams, and {num_beams!r:.40} were asked for")
            if length_penalty is not None and not _is_number(length_penalty, _MAX_PENALTY):
                raise ValueError(f"alpha is a number from 0 to {_MAX_PENALTY:g}, and not {length_penalty!r:.40}")
            prefix = _checked(prefix_ids, longest - 1)
            begun = time.perf_counter()
            record = record_search(
                self.model,
                self._tokenizer,
                source,
                num_beams=self._own_beams() if num_beams is None else num_beams,
                length_penalty=length_penalty,
                prefix_ids=prefix,
                max_new_tokens=longest - len(prefix) if prefix else None,
            ).as_dict()
            return {**record, "seconds": round(time.perf_counter() - begun, 3)}

        return self._answer(text, tag, work)

    def attention(self, text: str, tag: str, target_ids: Sequence[int]) -> dict[str, Any]:
        """§3.2.3: what each head attends to while it predicts the tokens of a hypothesis.

        Args:
            text: without its tag.
            tag: as of `search`.
            target_ids: of the hypothesis, without the start token.

        Returns:
            `AttentionRecord.as_dict()`, or `error`.
        """

        def work(source: str, longest: int) -> dict[str, Any]:
            return attention_of(self.model, self._tokenizer, source, _checked(target_ids, longest)).as_dict()

        return self._answer(text, tag, work)

    def positions(self, length: int) -> dict[str, Any]:
        """§3.5: what is added to the embeddings at each position.

        Args:
            length: positions, from 0.

        Returns:
            `positions`, [position][dimension]; or `error`.
        """
        try:
            if not _is_integer(length, 1, self.limits.max_tokens):
                raise ValueError(f"the page shows 1 to {self.limits.max_tokens} positions")
            return {"positions": positions_of(self.model, length)}
        except ValueError as error:
            return {"error": str(error)}

    def _answer(self, text: str, tag: str, work: Callable[[str, int], dict[str, Any]]) -> dict[str, Any]:
        """Puts the tag before a text of an allowed length, and works on it."""
        try:
            source = self._source(text, tag)
            with self._lock:
                return work(source, self._longest(self._count_tokens(source)))
        except (TypeError, ValueError) as error:
            return {"error": str(error)}

    def _source(self, text: Any, tag: Any) -> str:
        if not isinstance(text, str) or not isinstance(tag, str):
            raise TypeError("text and tag are strings")
        if tag and tag not in self.tags:
            raise ValueError(f"this model has no tag {tag!r:.40}; it has {', '.join(self.tags) or 'none'}")
        if len(text) > (most := self.limits.max_characters):
            raise ValueError(f"the text has {len(text)} characters, and the page takes at most {most}; shorten it")
        if not text.strip():
            raise ValueError("there is no text yet; type some")
        return f"{tag} {text}" if tag else text

    def _count_tokens(self, source: str) -> int:
        (pieces,) = source_pieces(self._tokenizer, [source], None)
        count, most = sum(map(len, pieces)), self.limits.max_tokens
        if count > most:
            raise ValueError(f"the text has {count} tokens, and the page takes at most {most}; shorten it")
        return count

    def _own_beams(self) -> int:
        return min(self.model.generation_config.num_beams or 1, self.limits.max_beams)

    def _longest(self, source_length: int) -> int:
        """How many tokens a translation of so many source tokens may have, as `generate()` has it without a prefix."""
        longest = LengthLimits.of([{}, chosen_values(self.model.generation_config)])
        return longest.of_sources([source_length], max_source_length(self.model))[0]


def _split_tag(text: str, tags: Sequence[str]) -> dict[str, str]:
    first, _, rest = text.partition(" ")
    return {"tag": first, "text": rest} if first in tags else {"tag": "", "text": text}


def _checked(ids: Any, most: int) -> list[int]:
    """Refuses what is no list, or is too long; what is no token is refused by whoever reads them."""
    if not isinstance(ids, list | tuple):
        raise ValueError("tokens are given as a list of numbers")
    if len(ids) > most:
        raise ValueError(f"at most {most} tokens can be given with this text, and {len(ids)} were")
    return list(ids)


def _is_integer(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: Any, most: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value <= most


__all__ = ["PageModel"]
