"""§6.1 in use: tokenised sentences in, translations out; with scores and token alignments (§3.2.3) on request."""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from .decoding_config import LengthLimits, chosen_values
from .loss import IGNORED_LABEL
from .translation_pieces import max_source_length
from .translation_scoring import forced_pass


@dataclass(frozen=True)
class Translation:
    """One translation of one sentence.

    Args:
        text: without special tokens.
        score: the score that ranks it in beam search: its log-probability, after any logits processors, divided by the
            length penalty of §6.1 (or by transformers' own, if `length_penalty` was given). Without beams nothing is
            ranked, and it is the log-probability. This and the next are None unless scores were requested.
        log_prob: log-probability in nats, by the model alone, of all tokens including `</s>`; no penalty.
        source_tokens: tokens of the source without special ones. This and the next two are None unless alignments were
            requested.
        tokens: tokens of the translation, likewise.
        alignment: pairs of indices (source token, token of the translation) into these lists: for each token of the
            translation, the source token that the decoder attended to most when it predicted that token, by
            `translation_scoring.alignment_attention`. Special tokens and padding are ignored.
    """

    text: str
    score: float | None = None
    log_prob: float | None = None
    source_tokens: tuple[str, ...] | None = None
    tokens: tuple[str, ...] | None = None
    alignment: tuple[tuple[int, int], ...] | None = None


@runtime_checkable
class Engine(Protocol):
    """What translates batches of token ids. All around that, from reading text to joining pieces, is shared."""

    @property
    def name(self) -> str:
        """What people call it, such as "torch"."""
        ...

    @property
    def generation_config(self) -> GenerationConfig:
        """The defaults of the options of a search."""
        ...

    @property
    def max_source_length(self) -> int | None:
        """Maximum tokens of a source; None for no limit."""
        ...

    def translate_batches(
        self,
        batches: Iterable[Sequence[Sequence[int]]],
        options: dict[str, Any],
        scores: bool = False,
        alignments: bool = False,
    ) -> Iterable[list[list[Translation]]]:
        """Translates batches of sources.

        Args:
            batches: the token ids of each source, `</s>` included.
            options: for `generate()`. If neither they nor `generation_config` limit the length of a translation, it may
                have 50 tokens more than the longest source of its batch.
            scores: whether translations get `score` and `log_prob`.
            alignments: whether they get `source_tokens`, `tokens` and `alignment`.

        Yields:
            For each batch the n-best list of each source, with n = `num_return_sequences`: the best first; sampled
            without beams, in the order drawn. If a search finds fewer, the last are empty and impossible (score minus
            infinity).
        """
        ...


@dataclass(frozen=True)
class TorchEngine:
    """Translates by `model.generate()`, with every option that it has. Threads that share an engine take turns.

    Args:
        model: a sequence-to-sequence model, or an ensemble; in eval mode.
        tokenizer: its tokenizer.

    Raises:
        ValueError: the model is in training mode.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str = field(default="torch", init=False)
    _turn: Any = field(default_factory=Lock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        refuse_training_mode(self.model)

    @property
    def generation_config(self) -> GenerationConfig:
        """The model's."""
        return self.model.generation_config

    @property
    def max_source_length(self) -> int | None:
        """The learned positions of the model; None for any other kind."""
        return max_source_length(self.model)

    def translate_batches(
        self,
        batches: Iterable[Sequence[Sequence[int]]],
        options: dict[str, Any],
        scores: bool = False,
        alignments: bool = False,
    ) -> Iterator[list[list[Translation]]]:
        """Translates one batch after the other; see `Engine`."""
        for batch in batches:
            with self._turn, torch.no_grad():
                found = _translate_batch(self.model, self.tokenizer, batch, options, scores, alignments)
            yield found


def translate_pieces(
    engine: Engine,
    sentences: Sequence[Sequence[Sequence[int]]],
    make_batches: Callable[[Sequence[int]], Iterable[Sequence[int]]],
    options: dict[str, Any],
    scores: bool = False,
    alignments: bool = False,
) -> list[list[Translation]]:
    """Translates tokenised sentences.

    If a sentence is in pieces, its n-th translation is the n-th of each piece, joined by a space; its scores are their
    sums. Sentences without a piece skip the model: their translation is empty and certain (score 0).

    Args:
        engine: what translates the pieces.
        sentences: the output of `source_pieces`.
        make_batches: groups pieces, given the length of each; returns indices.
        options: for `generate()`, as `Engine.translate_batches` takes them.
        scores: whether translations get `score` and `log_prob`.
        alignments: whether they get `source_tokens`, `tokens` and `alignment`.

    Returns:
        For each sentence its n-best list, in the order of the engine.
    """
    sources = [piece for pieces in sentences for piece in pieces]
    translated: list[list[Translation]] = [[] for _ in sources]
    groups = [list(indices) for indices in make_batches([len(source) for source in sources])]
    batches = ([sources[index] for index in indices] for indices in groups)
    for indices, found in zip(groups, engine.translate_batches(batches, options, scores, alignments), strict=True):
        for index, translations in zip(indices, found, strict=True):
            translated[index] = translations
    in_order = iter(translated)
    count = number_wanted(options, engine.generation_config)
    nothing = Translation("", *((0.0, 0.0) if scores else (None, None)), *(((), (), ()) if alignments else ()))
    return [_joined([next(in_order) for _ in pieces]) if pieces else [nothing] * count for pieces in sentences]


def number_wanted(options: dict[str, Any], generation_config: GenerationConfig) -> int:
    """How many translations of each source are asked for: `num_return_sequences` of a call, its config or the model's.

    Args:
        options: of the call.
        generation_config: the model's.

    Returns:
        The number; 1 where nobody says.
    """
    configs = (options.get("generation_config"), generation_config)
    counts = [options.get("num_return_sequences"), *(getattr(each, "num_return_sequences", None) for each in configs)]
    return next((each for each in counts if each is not None), 1)


def _joined(parts: list[list[Translation]]) -> list[Translation]:
    whole = parts[0]
    for part in parts[1:]:
        whole = [_concatenated(first, second) for first, second in zip(whole, part, strict=True)]
    return whole


def _concatenated(first: Translation, second: Translation) -> Translation:
    def added(one: Any, other: Any) -> Any:
        return None if one is None else one + other

    alignment = second.alignment
    if alignment is not None and first.source_tokens is not None and first.tokens is not None:
        alignment = tuple(
            (source + len(first.source_tokens), target + len(first.tokens)) for source, target in alignment
        )
    return Translation(
        " ".join(text for text in (first.text.strip(), second.text.strip()) if text),
        added(first.score, second.score),
        added(first.log_prob, second.log_prob),
        added(first.source_tokens, second.source_tokens),
        added(first.tokens, second.tokens),
        added(first.alignment, alignment),
    )


def _translate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[Sequence[int]],
    options: dict[str, Any],
    scores: bool,
    alignments: bool,
) -> list[list[Translation]]:
    padding = model.config.pad_token_id or 0
    rows = [torch.tensor(source, dtype=torch.long, device=model.device) for source in sources]
    inputs = {
        "input_ids": pad_sequence(rows, batch_first=True, padding_value=padding),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
    }
    details = scores or alignments
    limit = length_limit(model, inputs["input_ids"].shape[1], options)
    # Without this, greedy search is faster, because finished sentences leave the batch.
    extra: dict[str, Any] = {"return_dict_in_generate": True} if details else {}
    if scores and not hasattr(model.generation_config, "gnmt_length_penalty"):
        extra["output_scores"] = True  # transformers' own beam search returns its scores only with those of each step
    output = model.generate(**inputs, **limit, **{**options, **extra})
    sequences = getattr(output, "sequences", output)  # options and configs may request a dict
    translations = [Translation(text) for text in tokenizer.batch_decode(sequences, skip_special_tokens=True)]
    count = len(sequences) // len(sources)
    if details:
        inputs = {name: tensor.repeat_interleave(count, dim=0) for name, tensor in inputs.items()}
        translations = _with_details(model, tokenizer, inputs, output, translations, scores, alignments)
    return [translations[start : start + count] for start in range(0, len(translations), count)]


def _with_details(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    inputs: dict[str, torch.Tensor],
    output: Any,
    translations: list[Translation],
    scores: bool,
    alignments: bool,
) -> list[Translation]:
    labels = _labels(model, output)
    log_probs, attention = forced_pass(
        model, inputs["input_ids"], inputs["attention_mask"], output.sequences[:, :-1], labels, alignments
    )
    totals = log_probs.cpu().double().sum(1).tolist()  # mps has no float64
    ranked = getattr(output, "sequences_scores", None)
    ranked = totals if ranked is None else ranked.tolist()
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    lengths = inputs["attention_mask"].sum(1).tolist()
    detailed = []
    for row, translation in enumerate(translations):
        # This score marks a hypothesis that was not found.
        total = totals[row] if ranked[row] != -torch.inf else -torch.inf
        fields: list[Any] = [ranked[row], total] if scores else [None, None]
        if attention is not None:
            source = inputs["input_ids"][row, : lengths[row]]
            fields += alignment_fields(tokenizer, source, labels[row], attention[row], special)
        detailed.append(Translation(translation.text, *fields))
    return detailed


def alignment_fields(
    tokenizer: PreTrainedTokenizerBase,
    source: torch.Tensor,
    target: torch.Tensor,
    attention: torch.Tensor,
    special: Container[int],
) -> list[Any]:
    """§3.2.3: `source_tokens`, `tokens` and `alignment` of a `Translation`.

    Args:
        tokenizer: of both sides.
        source: (S,) token ids.
        target: (T,) token ids; -100 as padding.
        attention: (T, S or more) of each target token to the source, by `translation_scoring.alignment_attention`.
        special: ids that are left out.

    Returns:
        The three.
    """
    sources = [place for place, token in enumerate(source.tolist()) if token not in special]
    targets = [place for place, token in enumerate(target.tolist()) if token not in special and token != IGNORED_LABEL]
    pairs: tuple[tuple[int, int], ...] = ()
    if sources and targets:
        best = attention[targets][:, sources].argmax(-1).tolist()
        pairs = tuple((place, index) for index, place in enumerate(best))
    names = (tuple(tokenizer.convert_ids_to_tokens(side)) for side in (source[sources], target[targets]))
    return [*names, pairs]


def _labels(model: PreTrainedModel, output: Any) -> torch.Tensor:
    """The chosen tokens (rows, T), without the start token; -100 after their end."""
    labels = output.sequences[:, 1:].clone()
    chosen_from = getattr(output, "beam_indices", None)
    if chosen_from is not None:  # exact, even if `<pad>` was chosen as a token
        prefix = labels.shape[1] - chosen_from.shape[1]
        return labels.masked_fill_(nn.functional.pad(chosen_from, (prefix, 0)).lt(0), IGNORED_LABEL)
    ends = model.generation_config.eos_token_id
    ends = torch.tensor([] if ends is None else ends, device=labels.device).flatten()
    has_ended = torch.isin(labels, ends).int().cumsum(1).gt(0)
    is_padding = labels.eq(-1 if model.config.pad_token_id is None else model.config.pad_token_id)
    is_tail = is_padding.flip(1).int().cumprod(1).flip(1).bool()
    after_end = nn.functional.pad(has_ended, (1, -1))
    return labels.masked_fill_(after_end | (is_tail & ~has_ended), IGNORED_LABEL)


def length_limit(model: PreTrainedModel, source_length: int, options: dict[str, Any]) -> dict[str, Any]:
    """§6.1 "maximum output length": the limit that a call needs where neither it nor the model has one.

    Args:
        model: a sequence-to-sequence model.
        source_length: tokens of the longest source.
        options: of the call, for `generate()`.

    Returns:
        More options for `generate()`; none if there is a limit.
    """
    places = [options, chosen_values(options.get("generation_config")), chosen_values(model.generation_config)]
    longest = LengthLimits.of(places)
    if longest != LengthLimits(None, None):
        return {}
    return {"max_new_tokens": longest.of_sources([source_length], max_source_length(model))[0]}


def refuse_training_mode(model: nn.Module) -> None:
    """Refuses a model in training mode, whose dropout (§5.4) would change its output.

    The mode is not changed temporarily, because others may be using the model at the same time.

    Args:
        model: the model. Parts of it may be in training mode, for dropout that is kept on purpose.

    Raises:
        ValueError: the model as a whole is in training mode.
    """
    if model.training:
        raise ValueError(
            f"this {type(model).__name__} is in training mode, where dropout changes what it says; call model.eval() "
            "first"
        )
