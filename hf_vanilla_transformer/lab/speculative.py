"""Speculative decoding: a small draft proposes tokens, the model checks several at once (Leviathan et al., 2023)."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..tokenization_ids import text_to_ids
from .benchmarks import in_turns
from .planning import format_table


@dataclass(frozen=True)
class SpeculativeComparison:
    """Greedy decoding of single sentences, with a draft and without.

    Args:
        draft_tokens: proposed before each check, unless the draft ends the sentence or there is no room for so many.
        drafted: tokens proposed in all.
        accepted: those of them that the model decodes too, up to the first that it does not in each check.
        tokens: decoded in all, `</s>` included.
        checks: passes of the model's decoder that they took with the draft; without, it is one for each token.
        plain_seconds: of all sentences, in each turn, by the incremental decoder of this package.
        loop_seconds: likewise by transformers' own loop, which both models run in with a draft.
        assisted_seconds: likewise with the draft.
        equal: sentences whose tokens are the same both ways.
        sentences: how many there are.
    """

    draft_tokens: int
    drafted: int
    accepted: int
    tokens: int
    checks: int
    plain_seconds: list[float]
    loop_seconds: list[float]
    assisted_seconds: list[float]
    equal: int
    sentences: int

    @property
    def tokens_per_check(self) -> float:
        """Tokens that a check yields: the drafts that it accepts, and mostly one of the model's own."""
        return self.tokens / self.checks

    @property
    def acceptance(self) -> float:
        """The share of drafted tokens that are accepted."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def speedup(self) -> float:
        """Seconds without the draft over seconds with it, medians over the turns."""
        return statistics.median(self.plain_seconds) / statistics.median(self.assisted_seconds)


@torch.no_grad()
def compare_speculative(
    model: PreTrainedModel,
    draft: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[str],
    draft_tokens: int = 5,
    turns: int = 3,
) -> SpeculativeComparison:
    """Decodes sentences one at a time, greedily, by the model alone, in two ways, and with a draft, in turns.

    Args:
        model: in eval mode.
        draft: of the same vocabulary, in eval mode; its `generation_config` is changed.
        tokenizer: of both.
        sentences: what to translate.
        draft_tokens: proposed before each check.
        turns: measured, after one that is not, in which checks are counted.

    Returns:
        The comparison.

    Raises:
        ValueError: the vocabularies differ in size, or there are no sentences.
    """
    if model.config.vocab_size != draft.config.vocab_size:
        raise ValueError(
            f"the model has {model.config.vocab_size} tokens and the draft {draft.config.vocab_size}; a draft needs "
            "the model's vocabulary: train it with tokenizer_name_or_path"
        )
    if not sentences:
        raise ValueError("there are no sentences to decode")
    draft.generation_config.update(
        num_assistant_tokens=draft_tokens,
        num_assistant_tokens_schedule="constant",
        assistant_confidence_threshold=0.0,
    )
    sources = [torch.tensor([ids], device=model.device) for ids in text_to_ids(tokenizer, list(sentences))]
    plain = _decoded(model, sources)
    assisted, drafts = [], []
    for source in sources:
        proposed: list[list[int]] = []
        assisted += _decoded_in_loop(model, [source], draft, partial(_note_draft, proposed))
        drafts.append(proposed)
    counts = [accepted_drafts(proposed, ids) for proposed, ids in zip(drafts, assisted, strict=True)]
    programs = {
        "plain": partial(_decoded, model, sources),
        "loop": partial(_decoded_in_loop, model, sources),
        "assisted": partial(_decoded, model, sources, draft),
    }
    seconds = in_turns(programs, turns, warm_up=1)
    equal = sum(one == other for one, other in zip(plain, assisted, strict=True))
    tokens = sum(len(each) - 1 for each in assisted)  # all begin with the start token
    return SpeculativeComparison(
        draft_tokens,
        drafted=sum(len(each) for proposed in drafts for each in proposed),
        accepted=sum(counts),
        tokens=tokens,
        checks=sum(map(len, drafts)),
        plain_seconds=seconds["plain"],
        loop_seconds=seconds["loop"],
        assisted_seconds=seconds["assisted"],
        equal=equal,
        sentences=len(sources),
    )


def accepted_drafts(proposed: Sequence[Sequence[int]], decoded: Sequence[int]) -> int:
    """Counts the drafted tokens of one sentence that the model decoded too.

    Args:
        proposed: drafted tokens of each check, in order.
        decoded: the sentence, which begins with the start token.

    Returns:
        How many were accepted: in each check, those before the first that is not the model's own, which stands there
        instead.
    """
    accepted, place = 0, 1
    for each in proposed:
        agreeing = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(each, decoded[place:], strict=False)))
        accepted += agreeing
        place += agreeing + 1
    return accepted


def _note_draft(proposed: list[list[int]], module: Any, args: Any, options: dict[str, Any], output: Any) -> None:
    """A hook on the decoder: it is given the last token that was accepted, or the start token, and the draft."""
    proposed.append(options["input_ids"][0, 1:].tolist())


def speculative_table(comparisons: Sequence[SpeculativeComparison]) -> str:
    """Makes a table of comparisons.

    Args:
        comparisons: of one model and draft, with different numbers of drafted tokens.

    Returns:
        Markdown.
    """
    header = ["drafted", "accepted", "tokens per check", "times as fast as alone", "sentences/s", "alone"]
    header += ["alone, without the incremental decoder", "equal"]
    rows = []
    for each in comparisons:
        seconds = (each.assisted_seconds, each.plain_seconds, each.loop_seconds)
        speeds = [each.sentences / statistics.median(of_turns) for of_turns in seconds]
        cells = [f"{each.acceptance:.0%}", f"{each.tokens_per_check:.2f}", f"{each.speedup:.2f}"]
        equal = f"{each.equal} of {each.sentences}"
        rows.append([str(each.draft_tokens), *cells, *(f"{speed:.1f}" for speed in speeds), equal])
    return "\n".join(format_table(header, *rows))


def _decoded(
    model: PreTrainedModel, sources: Sequence[torch.Tensor], draft: PreTrainedModel | None = None
) -> list[list[int]]:
    options = {} if draft is None else {"assistant_model": draft}
    return [model.generate(source, num_beams=1, **options)[0].tolist() for source in sources]


def _decoded_in_loop(
    model: PreTrainedModel,
    sources: Sequence[torch.Tensor],
    draft: PreTrainedModel | None = None,
    hook: Callable[..., None] = lambda *_: None,
) -> list[list[int]]:
    """Decodes with a hook on the decoder: only transformers' loop, which calls it as a module, honours that."""
    handle = model.get_decoder().register_forward_hook(hook, with_kwargs=True)
    try:
        return _decoded(model, sources, draft)
    finally:
        handle.remove()


__all__ = ["SpeculativeComparison", "accepted_drafts", "compare_speculative", "speculative_table"]
