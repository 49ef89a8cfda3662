"""What each attention head is worth: the BLEU that is lost when a trained model decodes without it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import correlation
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..evaluation import EvaluationSet, Score, default_tokenizer, score_translations
from ..evaluation.scores import half_width
from ..evaluation.systems import check_translatable
from ..inference import translate
from .heads import KINDS, Head, HeadStatistics, attention_statistics, heads_of, heads_off

# Voita et al. (2019) call a head positional if its greatest weight is at one relative position so often.
POSITIONAL = 0.9


@dataclass(frozen=True)
class HeadFinding:
    """What was found of one head.

    Args:
        head: which.
        statistics: what it looks at.
        bleu: BLEU of the model without it, in percent.
        loss: BLEU of the whole model minus `bleu`: what is lost without the head, negative if it does harm.
        interval: half the width of the 95 % interval of `loss`, by paired bootstrap over sentences; None if no samples
            were drawn.
    """

    head: Head
    statistics: HeadStatistics
    bleu: float
    loss: float
    interval: float | None

    @property
    def is_significant(self) -> bool:
        """Whether the interval of the loss leaves out 0."""
        return self.interval is not None and abs(self.loss) > self.interval

    @property
    def position(self) -> str | None:
        """Where a positional head looks (Voita et al., 2019): "previous" or "following"; None for other heads."""
        if (self.statistics.most_previous or 0) >= POSITIONAL:
            return "previous"
        return "following" if (self.statistics.most_following or 0) >= POSITIONAL else None


@dataclass(frozen=True)
class HeadAnalysis:
    """What was found of all heads.

    Args:
        whole: BLEU of the whole model.
        sentences: how many were translated.
        findings: of each head, in the order of `heads_of`.
    """

    whole: Score
    sentences: int
    findings: list[HeadFinding]

    def ranked(self) -> list[HeadFinding]:
        """Returns the findings, the head whose loss is greatest first."""
        return sorted(self.findings, key=lambda each: -each.loss)

    def of(self, kind: str) -> list[HeadFinding]:
        """Returns the findings of one kind of attention.

        Args:
            kind: of `KINDS`.
        """
        return [each for each in self.findings if each.head.kind == kind]

    def agreement(self, kind: str) -> float | None:
        """Returns Spearman's correlation of confidence and loss over the heads of a kind; None where all are equal.

        Args:
            kind: of `KINDS`.
        """
        found = self.of(kind)
        return rank_correlation([each.statistics.confidence for each in found], [each.loss for each in found])

    def as_dict(self) -> dict[str, Any]:
        """Returns everything in the form of JSON."""
        heads = [
            {
                **asdict(each.head),
                "bleu": each.bleu,
                "loss": each.loss,
                "interval": each.interval,
                "position": each.position,
                **asdict(each.statistics),
            }
            for each in self.findings
        ]
        agreement = {kind: self.agreement(kind) for kind in KINDS}
        return {"sentences": self.sentences, "whole": self.whole.as_dict(), "agreement": agreement, "heads": heads}


def analyse_heads(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: EvaluationSet,
    batch_tokens: int = 4096,
    tag: str | None = None,
    num_resamples: int = 1000,
    seed: int = 12345,
    step: Callable[[], Any] = lambda: None,
    **translation_options: Any,
) -> HeadAnalysis:
    """Measures what each head looks at, and translates once with all heads and once without each.

    Args:
        model: of this package, in eval mode.
        tokenizer: its tokenizer.
        data: sentences and references; attention is measured while the model reads the first references.
        batch_tokens: tokens of a side at a time, padding included.
        tag: what to put in front of each source, such as "2de" for the token `<2de>`.
        num_resamples: samples of the sentences for the intervals; 0 for no intervals.
        seed: of the samples, which are the same sentences for all heads.
        step: called after each translation of the set: once more than there are heads.
        **translation_options: for `translate()` and so for `generate()`, such as `num_beams`.

    Returns:
        The findings.

    Raises:
        ValueError: as in `check_translatable`, `attention_statistics`, `translate` and `score_translations`.
    """
    check_translatable(tokenizer, data)
    references = list(zip(*data.references, strict=True))
    pairs = list(zip(data.sources, data.references[0], strict=True))
    seen = attention_statistics(model, tokenizer, pairs, batch_tokens, tag)
    options = {"batch_tokens": batch_tokens, "tag": tag, **translation_options}
    tokenize = default_tokenizer(data.target_lang)

    def score_without(heads: Sequence[Head]) -> Score:
        with heads_off(model, heads):
            lines = list(translate(model, tokenizer, data.sources, **options))
        scores = score_translations(
            lines, references, ["bleu"], tokenize=tokenize, num_resamples=num_resamples, seed=seed
        )
        step()
        return scores["bleu"]

    whole, findings = score_without([]), []
    for head in heads_of(model):
        score, interval = score_without([head]), None
        if whole.samples is not None and score.samples is not None:
            interval = half_width(whole.samples - score.samples)
        findings.append(HeadFinding(head, seen[head], score.value, whole.value - score.value, interval))
    return HeadAnalysis(whole, len(references), findings)


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rank correlation, in which equal values share the mean of their ranks.

    Args:
        one: numbers.
        other: as many numbers, each of which belongs to one of the first.

    Returns:
        From -1 to 1; None for fewer than two pairs, or if all numbers of a side are equal.
    """
    if min(len(set(one)), len(set(other))) < 2:
        return None
    return correlation(_ranks(one), _ranks(other))


def _ranks(values: Sequence[float]) -> list[float]:
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]
