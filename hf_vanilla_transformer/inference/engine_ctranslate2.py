"""§6.1 by CTranslate2: the search runs in its kernels; hypotheses are ranked, limited and aligned as ours are."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging

from ..interop.ctranslate2 import vocabulary_tokens
from ..translation_batches import Translation, alignment_fields
from .engine_options import SearchPlan, plan_search

logger = logging.get_logger(__name__)

# Rows of the table of positions of a converted model: enough for what a service takes by itself, so that all verbs
# share one conversion. Twice as many, as often as it takes, if a source needs more.
_POSITIONS = 4096
# A hypothesis that is less probable than this, in nats, only fills a place.
_IMPOSSIBLE = -1e8


class CTranslate2Engine:
    """Translates on a CPU with CTranslate2. Threads may share an engine: their batches run side by side.

    Results are those of `TorchEngine` up to rounding: scores, n-best lists, limits and alignments are ours. One thing
    differs: CTranslate2 cannot end a search where no open beam can win any more, so it ends at a number of finished
    hypotheses instead, chosen so that the best is hardly ever missed (`engine_options` says how often). If it is
    missed, the translation scores less by the model than torch's. The log says so once.

    Each of torch's threads translates batches of its own, which takes less time than two threads for one batch. A batch
    that is alone is shared out, and sentences that are finished leave theirs. So a single sentence has one thread.

    Args:
        convert: makes or finds a converted model with at least so many positions, and returns its folder.
        config: of the model.
        generation_config: of the model.
        tokenizer: of the model.
        quantization: "float32" or "int8".
        longest_source: tokens of the longest source that is to come, as far as that is known: what is not longer needs
            no other conversion.

    Raises:
        ImportError: ctranslate2 is not installed.
        OSError: as `convert`.
    """

    name = "ctranslate2"

    def __init__(
        self,
        convert: Callable[[int], Path],
        config: PreTrainedConfig,
        generation_config: GenerationConfig,
        tokenizer: PreTrainedTokenizerBase,
        quantization: str = "float32",
        longest_source: int = 1,
    ) -> None:
        self.generation_config, self.quantization = generation_config, quantization
        self.max_source_length: int | None = config.num_learned_positions
        self.num_threads = torch.get_num_threads()
        self._ctranslate2, self._convert, self.tokenizer = import_module("ctranslate2"), convert, tokenizer
        self._tokens = vocabulary_tokens(tokenizer, config.vocab_size)
        self._ids = {token: number for number, token in enumerate(self._tokens)}
        self._special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        self._token_ids = {name: getattr(config, name) for name in ("eos_token_id", "decoder_start_token_id")}
        self._growing, self._num_positions, self._translator = Lock(), 0, None
        plan, _ = plan_search({}, generation_config, self._token_ids)
        limits = [] if plan is None else plan.longest.of_sources([longest_source], None)
        self._with_positions(self.max_source_length or max(_POSITIONS, longest_source, *limits))

    def obstacles(self, options: dict[str, Any]) -> list[str]:
        """Names what CTranslate2 cannot do of a search.

        Args:
            options: for `generate()`.

        Returns:
            A phrase each; none if `translate_batches` takes these options.

        Raises:
            ValueError: an option is not allowed.
        """
        return plan_search(options, self.generation_config, self._token_ids)[1]

    def translate_batches(
        self,
        batches: Iterable[Sequence[Sequence[int]]],
        options: dict[str, Any],
        scores: bool = False,
        alignments: bool = False,
    ) -> Iterator[list[list[Translation]]]:
        """Translates batches side by side; see `Engine`.

        Raises:
            ValueError: an option is not allowed, or CTranslate2 does not have it; the message names it.
        """
        plan, obstacles = plan_search(options, self.generation_config, self._token_ids)
        if plan is None:
            raise ValueError(f"CTranslate2 does not have {', '.join(obstacles)}; use the engine torch")
        if not plan.is_exact:
            logger.warning_once(
                "CTranslate2 ends its beam search at a number of finished translations, and not where no other can win "
                "any more: now and then it finds another translation or n-best list than the engine torch"
            )
        batches = list(batches)
        is_greedy = plan.ranking.num_beams == 1
        wants_scores = scores or not is_greedy
        started = [(batch, self._start(plan, batch, len(batches), wants_scores, alignments)) for batch in batches]
        for batch, parts in started:
            found: list[list[Translation]] = [[] for _ in batch]
            for part in parts:
                for index, source, hypotheses in zip(part.indices, part.sources, self._wait(plan, part), strict=True):
                    found[index] = [
                        self._translation(plan, source, hypothesis, scores, alignments) for hypothesis in hypotheses
                    ]
            yield found

    def _start(
        self, plan: SearchPlan, batch: Sequence[Sequence[int]], num_batches: int, scores: bool, alignments: bool
    ) -> list["_Part"]:
        """Cuts a batch into as few parts of like lengths as give work to every thread, and starts them."""
        limits = plan.longest.of_sources([len(source) for source in batch], self.max_source_length)
        order = sorted(range(len(batch)), key=lambda index: -len(batch[index]))
        size = math.ceil(len(order) / max(1, self.num_threads // num_batches))
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        arguments = {**plan.arguments(), "return_scores": scores, "return_attention": alignments}
        return [
            self._started(part, [batch[index] for index in part], [limits[index] for index in part], arguments)
            for part in parts
        ]

    def _started(
        self, indices: list[int], sources: list[Sequence[int]], limits: list[int], arguments: dict[str, Any]
    ) -> "_Part":
        limit = max(limits)
        translator = self._with_positions(max(limit, *map(len, sources)))
        tokens = [[self._tokens[number] for number in source] for source in sources]
        arguments = {**arguments, "asynchronous": True}
        results, first = translator.translate_batch(tokens, **arguments, max_decoding_length=limit), None
        if arguments["return_attention"] and arguments["beam_size"] > 1:
            # With beams, the attention that it returns for the first token is that of another source of the batch.
            greedy = {"beam_size": 1, "num_hypotheses": 1, "patience": 1}
            first = translator.translate_batch(tokens, **{**arguments, **greedy}, max_decoding_length=1)
        return _Part(indices, sources, limits, arguments, results, first)

    def _wait(self, plan: SearchPlan, part: "_Part") -> list[list["_Hypothesis"]]:
        """The n-best list of each source of a part."""
        found: list[list[_Hypothesis]] = [[] for _ in part.sources]
        limit, again = max(part.limits), dict[int, list[int]]()
        for row, result in enumerate(part.results):
            first = None if part.first is None else part.first[row].result().attention[0][0]
            found[row] = self._hypotheses(plan, result.result(), first)
            # CTranslate2 has one limit for a batch. A search that went on beyond its own begins anew.
            longest = max((len(each.ids) for each in found[row]), default=limit)
            if part.limits[row] < limit and (len(found[row]) < plan.candidates or longest >= part.limits[row]):
                again.setdefault(part.limits[row], []).append(row)
        repeated = [
            self._started(rows, [part.sources[row] for row in rows], [limit] * len(rows), part.arguments)
            for limit, rows in again.items()
        ]
        for each in repeated:
            for row, hypotheses in zip(each.indices, self._wait(plan, each), strict=True):
                found[row] = hypotheses
        wanted = plan.ranking.num_wanted
        return [(row + [_Hypothesis(-math.inf, -math.inf, [], [])] * wanted)[:wanted] for row in found]

    def _hypotheses(self, plan: SearchPlan, result: Any, first: list[float] | None) -> list["_Hypothesis"]:
        """All that a search has found, the best first; `first` is the attention at the first token, if known better."""
        found = []
        all_scores, all_attention = result.scores, result.attention  # each time copies all of them
        for index, tokens in enumerate(result.hypotheses):
            log_prob = all_scores[index] if all_scores else 0.0
            if log_prob <= _IMPOSSIBLE:
                continue
            # Without beams nothing is ranked.
            score = log_prob if plan.ranking.num_beams == 1 else plan.ranking.score(log_prob, len(tokens))
            attention = all_attention[index] if all_attention else []
            if first is not None:
                attention = [first, *attention[1:]]
            found.append(_Hypothesis(score, log_prob, [self._ids[token] for token in tokens], attention))
        return sorted(found, key=lambda hypothesis: -hypothesis.score)

    def _translation(
        self, plan: SearchPlan, source: Sequence[int], hypothesis: "_Hypothesis", scores: bool, alignments: bool
    ) -> Translation:
        fields: list[Any] = [hypothesis.score, hypothesis.log_prob] if scores else [None, None]
        if alignments:
            attention = torch.tensor(hypothesis.attention).view(len(hypothesis.ids), len(source))
            source_ids, target_ids = torch.tensor(source), torch.tensor(hypothesis.ids, dtype=torch.long)
            fields += alignment_fields(self.tokenizer, source_ids, target_ids, attention, self._special)
        return Translation(self.tokenizer.decode(hypothesis.ids, skip_special_tokens=True), *fields)

    def _with_positions(self, needed: int) -> Any:
        """A translator of CTranslate2 whose table of positions has at least so many rows."""
        with self._growing:
            if needed > self._num_positions:
                if self.max_source_length is None:
                    needed = max(_POSITIONS, 2 ** math.ceil(math.log2(needed)))
                self._translator = self._ctranslate2.Translator(
                    str(self._convert(needed)),
                    compute_type=self.quantization,
                    inter_threads=self.num_threads,
                    intra_threads=1,
                    max_queued_batches=-1,
                )
                self._num_positions = needed
            return self._translator


class _Hypothesis(NamedTuple):
    score: float
    log_prob: float
    ids: list[int]
    attention: list[list[float]]


class _Part(NamedTuple):
    """What runs as one batch: places of its sources in the batch that they are of, and results to wait for."""

    indices: list[int]
    sources: list[Sequence[int]]
    limits: list[int]
    arguments: dict[str, Any]
    results: list[Any]
    first: list[Any] | None


__all__ = ["CTranslate2Engine"]
