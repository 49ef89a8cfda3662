"""One model of a service: its name, its translator, its languages, and the queue in front of it."""

import asyncio
import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from ..evaluation.pair_scores import PairScore, score_pairs
from ..inference.translator import Translator
from ..tokenization_ids import text_to_ids
from ..tokenization_tags import tagged, tags_to_add
from ..translation_batches import Translation
from ..translation_pieces import source_pieces
from .errors import Refusal
from .languages import Languages
from .limits import Limits
from .metrics import Metrics
from .token_batcher import TokenBatcher


@dataclass(frozen=True)
class TranslateOptions:
    """Options of a translation. Texts of a batch have the same.

    Args:
        nbest: translations of each text.
        num_beams: beams of the search; None for the model's own.
        scores: whether translations get scores.
        alignments: whether they get alignments.
        tag: tags before each text; None for none.
    """

    nbest: int = 1
    num_beams: int | None = None
    scores: bool = False
    alignments: bool = False
    tag: str | None = None


@dataclass(frozen=True)
class ScoreOptions:
    """Options of scoring.

    Args:
        tag: tags before each source; None for none.
    """

    tag: str | None = None


class ServedModel:
    """A model that answers many requests at a time.

    Tokenizers change their state while they read, so each of the threads here has one of its own: the one that decodes,
    the one that counts tokens, and those that stream.

    Args:
        name: by which requests ask for it.
        translator: of the model.
        languages: see `Languages.of`.
        limits: of the service.
        metrics: of the service.
    """

    def __init__(
        self, name: str, translator: Translator, languages: Languages, limits: Limits, metrics: Metrics
    ) -> None:
        self.name, self.translator, self.languages = name, translator, languages
        self.streaming_tokenizer = copy.deepcopy(translator.tokenizer)
        self._counting_tokenizer = copy.deepcopy(translator.tokenizer)
        self._limits, self._max_source_length = limits, translator.engine.max_source_length
        self._batcher = TokenBatcher(name, self._work, limits, metrics)
        self._counting = ThreadPoolExecutor(1, thread_name_prefix=f"count {name}")

    def start(self) -> None:
        """Begins to serve, in the running event loop."""
        self._batcher.start()

    async def close(self) -> None:
        """Finishes what was accepted, and ends."""
        await self._batcher.close()
        self._counting.shutdown()

    def tag_for(self, source: str | None, target: str | None, tag: str | None) -> str | None:
        """`Languages.tag_for` with a `Refusal` where there is no such language or tag."""
        try:
            return self.languages.tag_for(source, target, tag)
        except ValueError as error:
            raise Refusal(422, "unknown_language", str(error)) from error

    async def translate(self, texts: Sequence[str], options: TranslateOptions) -> list[list[Translation]]:
        """Translates texts, together with those of other requests.

        Args:
            texts: them.
            options: of all of them.

        Returns:
            For each text its translations, the best first; sampled without beams, in the order drawn.

        Raises:
            Refusal: the queue is full, all of them together are too much for one request, or a text is too long or
                cannot be translated by this model.
        """
        beams = options.num_beams or max(options.nbest, self.translator.engine.generation_config.num_beams or 1)
        return await self._submit(options, texts, await self._count(texts, options.tag), beams)

    async def score(self, pairs: Sequence[tuple[str, str]], options: ScoreOptions) -> list[PairScore]:
        """Scores translations of given texts.

        Args:
            pairs: of text and translation.
            options: of all of them.

        Returns:
            A score for each.

        Raises:
            Refusal: as `translate`.
        """
        sources = await self._count([source for source, _ in pairs], options.tag)
        targets = await self._count([target for _, target in pairs], None)
        return await self._submit(options, pairs, [max(both) for both in zip(sources, targets, strict=True)])

    async def pieces_of(self, text: str, tag: str | None) -> list[list[int]]:
        """Tokenises one text that will be streamed.

        Args:
            text: it.
            tag: tags before it.

        Returns:
            The token ids of its pieces, as `source_pieces` makes them.

        Raises:
            Refusal: it is too long, or cannot be cut into pieces that fit the model.
        """

        def tokenize() -> list[list[int]]:
            return source_pieces(self._counting_tokenizer, [text], self._max_source_length, tag)[0]

        try:
            pieces = await asyncio.get_running_loop().run_in_executor(self._counting, tokenize)
        except ValueError as error:
            raise Refusal(422, "untranslatable", str(error)) from error
        self._check_tokens(sum(map(len, pieces)))
        return pieces

    async def _count(self, texts: Sequence[str], tag: str | None) -> list[int]:
        def count() -> list[int]:
            tokens = tags_to_add(self._counting_tokenizer, tag)
            return [len(ids) for ids in text_to_ids(self._counting_tokenizer, [tagged(text, tokens) for text in texts])]

        counts = await asyncio.get_running_loop().run_in_executor(self._counting, count)
        self._check_tokens(max(counts))
        return counts

    def _check_tokens(self, tokens: int) -> None:
        """Refuses what would take more memory than a batch: a character may be several tokens."""
        if tokens > self._limits.max_batch_tokens:
            raise Refusal(
                413,
                "text_too_long",
                f"a text of {tokens} tokens is longer than the {self._limits.max_batch_tokens} that this service takes",
            )

    async def _submit(self, options: Any, payloads: Sequence[Any], tokens: Sequence[int], beams: int = 1) -> list[Any]:
        if beams * sum(tokens) > self._limits.max_beam_tokens:
            raise Refusal(
                413,
                "too_much_work",
                f"{sum(tokens)} tokens with {beams} beam{'' if beams == 1 else 's'} are more than the "
                f"{self._limits.max_beam_tokens} tokens times beams that one request may have; send fewer texts at a "
                "time, or ask for fewer beams",
            )
        try:
            return await self._batcher.submit(options, payloads, tokens, beams)
        except ValueError as error:
            raise Refusal(422, "untranslatable", str(error)) from error

    def _work(self, options: TranslateOptions | ScoreOptions, payloads: list[Any]) -> list[Any]:
        batching = {"batch_tokens": self._limits.max_batch_tokens, "read_ahead": len(payloads)}
        if isinstance(options, ScoreOptions):
            model, tokenizer = self.translator.model, self.translator.tokenizer
            return list(score_pairs(model, tokenizer, payloads, tag=options.tag, **batching))
        given: dict[str, Any] = {name: value for name, value in asdict(options).items() if value is not None}
        return list(self.translator.translate_with_details(payloads, **given, **batching))


class ModelTable:
    """The models of a service by name. A name from a request is looked up here and nowhere else.

    Args:
        models: them; the first is used where a request leaves it open.

    Raises:
        ValueError: there is none, or two have the same name.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = {model.name: model for model in models}
        if not models or len(self._models) < len(models):
            names = ", ".join(model.name for model in models) or "none"
            raise ValueError(f"models have names of their own, and there is at least one; these are: {names}")

    def __iter__(self) -> Any:
        return iter(self._models.values())

    def choose(self, name: str | None, source: str | None = None, target: str | None = None) -> ServedModel:
        """Finds the model of a request.

        Args:
            name: of the model; None for the first that has the languages, or the first.
            source: language to translate from; None if the request does not say.
            target: language to translate into; likewise.

        Returns:
            The model.

        Raises:
            Refusal: there is none of this name.
        """
        if name is None:
            models = list(self._models.values())
            return next((model for model in models if model.languages.have(source, target)), models[0])
        if name not in self._models:
            raise Refusal(404, "unknown_model", f"there is no model {name!r:.80}; there is {', '.join(self._models)}")
        return self._models[name]


__all__ = ["ModelTable", "ScoreOptions", "ServedModel", "TranslateOptions"]
