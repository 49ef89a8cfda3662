"""Scores of translations with their signatures and 95 % intervals: BLEU, chrF and TER by sacrebleu, and error rates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric
from sacrebleu.significance import estimate_ci

from .error_rates import PhoneErrorRate, WordErrorRate

# Tokenisers that sacrebleu recommends for languages in which spaces do not separate words.
_TOKENIZERS = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}

# What there is to score by, and what a table calls it. Of those in HIGHER_IS_BETTER, more is better; of others, less.
METRICS = {"bleu": "BLEU", "chrf": "chrF", "ter": "TER", "wer": "WER", "per": "PER", "paper_bleu": "BLEU of the paper"}
# All but the paper's BLEU, which is of text that is tokenised.
OF_TRANSLATIONS = tuple(name for name in METRICS if name != "paper_bleu")
HIGHER_IS_BETTER = frozenset({"bleu", "chrf", "paper_bleu"})

# One reference for each translation, or several for each.
References = Sequence[str] | Sequence[Sequence[str]]


@dataclass(frozen=True)
class Score:
    """One metric of one text.

    Args:
        value: in percent.
        signature: how it was computed; to be quoted with the number.
        interval: half the width of the interval that holds 95 % of `samples`; None where there are none.
        samples: (num_resamples,) scores of samples of the sentences, drawn with replacement (bootstrap); or None.
    """

    value: float
    signature: str
    interval: float | None = None
    samples: np.ndarray | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Returns value, interval and signature by name."""
        return {"value": self.value, "interval": self.interval, "signature": self.signature}


def score_translations(
    translations: Sequence[str],
    references: References,
    metrics: Sequence[str] = ("bleu", "chrf"),
    lowercase: bool = False,
    tokenize: str = "13a",
    num_resamples: int = 0,
    seed: int = 12345,
) -> dict[str, Score]:
    """Scores translations by their references.

    Args:
        translations: detokenised sentences; for `wer` and `per`, units separated by spaces.
        references: for each translation, one or a sequence of several.
        metrics: which scores to compute, of `METRICS`: `bleu`, `chrf`, `ter` (translation edit rate: edits per 100
            words of reference, which takes many times as long as the rest), `wer` (`WordErrorRate`: of whole lines) and
            `per` (`PhoneErrorRate`). `paper_bleu` is that of multi-bleu.perl, of text that is tokenised.
        lowercase: whether BLEU and chrF ignore case; sacrebleu's TER always ignores it, error rates never do.
        tokenize: name of sacrebleu's tokeniser for `bleu`; "none" for text that is tokenised.
        num_resamples: samples of the sentences from which the 95 % intervals are estimated; 0 for no intervals.
        seed: of the samples. Those of one seed are the same sentences for each metric, and for each text of one size.

    Returns:
        The scores of all translations together, by metric.

    Raises:
        ValueError: there is no translation, a translation has no reference, there is no such metric or tokeniser, or
            `num_resamples` is negative or 1.
    """
    if num_resamples < 0 or num_resamples == 1:
        raise ValueError(f"`num_resamples`={num_resamples} is not allowed; allowed: 0, or an integer of at least 2")
    streams = reference_streams(translations, references)
    scores = {}
    for name, metric in make_metrics(metrics, lowercase, tokenize).items():
        statistics = metric._extract_corpus_statistics(list(translations), streams)
        value = float(metric._aggregate_and_compute(statistics).score)
        if not num_resamples:
            scores[name] = Score(value, str(metric.get_signature()))
            continue
        samples = _resampled(metric, statistics, num_resamples, seed)
        metric.n_bootstrap, metric.seed = num_resamples, seed  # what its signature quotes
        scores[name] = Score(value, str(metric.get_signature()), half_width(samples), samples)
    return scores


def _resampled(metric: Metric, statistics: Sequence[Sequence[float]], num_resamples: int, seed: int) -> np.ndarray:
    """Scores samples of the sentences, the same ones as sacrebleu, which would hold all of them in memory at once."""
    by_sentence, draws = np.array(statistics, dtype=np.float64), np.random.default_rng(seed)
    size = len(by_sentence)
    samples = (by_sentence[draws.choice(size, size, replace=True)].sum(0) for _ in range(num_resamples))
    return np.array([metric._compute_score_from_stats(sums).score for sums in samples])


def half_width(samples: np.ndarray) -> float:
    """Returns half the width of the interval that holds 95 % of samples, as sacrebleu determines it.

    Args:
        samples: (num_resamples,).
    """
    return float(estimate_ci(samples)[1])


def make_metrics(
    metrics: Sequence[str] = ("bleu", "chrf"), lowercase: bool = False, tokenize: str = "13a"
) -> dict[str, Metric]:
    """Builds metrics in the form of sacrebleu.

    Args:
        metrics: as in `score_translations`, and so are the others.
        lowercase: whether to ignore case.
        tokenize: name of the tokeniser for BLEU.

    Returns:
        The metrics by name.

    Raises:
        ValueError: there is no such metric or tokeniser (the message names all), or it is not installed.
    """
    if tokenize not in BLEU.TOKENIZERS:
        raise ValueError(f"`tokenize`={tokenize!r}, but sacrebleu has: {', '.join(sorted(BLEU.TOKENIZERS))}")
    makers: dict[str, Callable[[], Metric]] = {
        # `force` only silences a warning about text that looks tokenised.
        "bleu": lambda: BLEU(lowercase=lowercase, tokenize=tokenize, force=tokenize == "none"),
        "chrf": lambda: CHRF(lowercase=lowercase),
        "ter": TER,
        "wer": WordErrorRate,
        "per": PhoneErrorRate,
        "paper_bleu": lambda: BLEU(tokenize="none", smooth_method="none", force=True),
    }
    for name in metrics:
        if name not in makers:
            raise ValueError(f"`metrics` has {name!r}, which is none of {', '.join(METRICS)}")
    try:
        return {name: makers[name]() for name in metrics}
    except RuntimeError as error:  # what a tokeniser needs is not installed
        raise ValueError(f"`tokenize`={tokenize!r} cannot be used: {' '.join(str(error).split())}") from error


def default_tokenizer(language: str | None) -> str:
    """Returns the tokeniser that sacrebleu uses for a language by default.

    Args:
        language: such as `de`; None if it is unknown.

    Returns:
        A value of `tokenize`.
    """
    return _TOKENIZERS.get(language or "", "13a")


def reference_streams(translations: Sequence[str], references: References) -> list[list[str | None]]:
    """Turns the references of each translation into those of sacrebleu: whole texts, one reference of each in a text.

    Args:
        translations: the translations.
        references: for each translation, one or a sequence of several; their number may differ.

    Returns:
        As many texts as a translation has references at most, with None where it has fewer.

    Raises:
        ValueError: there is no translation, or a translation has no reference.
    """
    if len(translations) != len(references) or not references:
        raise ValueError(
            f"{len(translations)} translations cannot be compared with {len(references)} references; "
            "give one or more for each, and at least one translation"
        )
    rows = [[each] if isinstance(each, str) else list(each) for each in references]
    if [] in rows:
        raise ValueError(f"translation {rows.index([])} (from 0) has no reference; give one or more for each")
    return [list(stream) for stream in zip_longest(*rows)]
