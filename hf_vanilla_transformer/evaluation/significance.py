"""Whether two systems differ, or one was only luckier: paired bootstrap resampling (Koehn, 2004)."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sacrebleu.significance import PairedTest

from .scores import References, make_metrics, reference_streams

_SEED_VARIABLE = "SACREBLEU_SEED"


@dataclass(frozen=True)
class PairedComparison:
    """One metric of two systems on the same sentences, over many draws of sentences with replacement.

    Args:
        score: of the system, on all sentences.
        mean: of the system, over the draws.
        interval: half the width of the interval around `mean` that holds 95 % of the draws.
        baseline_score: of the baseline.
        baseline_mean: likewise.
        baseline_interval: likewise.
        p_value: how often, if the two were equally good, the draws would differ more than the systems do. Of
            systems that say the same, sacrebleu gives the least value there is, which means nothing.
        signature: of metric and test.
    """

    score: float
    mean: float
    interval: float
    baseline_score: float
    baseline_mean: float
    baseline_interval: float
    p_value: float
    signature: str


def paired_bootstrap(
    translations: Sequence[str],
    baseline: Sequence[str],
    references: References,
    ter: bool = False,
    lowercase: bool = False,
    tokenize: str = "13a",
    num_resamples: int = 1000,
    seed: int = 12345,
) -> dict[str, PairedComparison]:
    """Compares two systems by sacrebleu's paired bootstrap test.

    Args:
        translations: of the system.
        baseline: of the other, on the same sentences.
        references: as in `score_translations`; and so are the three that follow.
        ter: whether to compare TER too.
        lowercase: whether case is not to count.
        tokenize: what cuts text into the words of BLEU.
        num_resamples: how often sentences are drawn.
        seed: of the draws. sacrebleu's own is 12345.

    Returns:
        By the names of the metrics, as in `TranslationScores`.

    Raises:
        ValueError: the numbers of sentences differ or are 0, or an option is out of its range.
    """
    for name, value in (("num_resamples", num_resamples), ("seed", seed)):
        if value < 1:  # 0 resamples are sacrebleu's word for 1000; and its seed 0 is no seed
            raise ValueError(f"`{name}`={value}; allowed: an integer of at least 1")
    if len(baseline) != len(translations):
        raise ValueError(
            f"{len(translations)} translations cannot be compared with {len(baseline)} of the baseline; "
            "both have to be of the same sentences"
        )
    streams = reference_streams(translations, references)
    systems = [("baseline", list(baseline)), ("system", list(translations))]
    with _sacrebleu_seed(seed):
        test = PairedTest(systems, make_metrics(ter, lowercase, tokenize), streams, "bs", n_samples=num_resamples)
        signatures, results = test()
    comparisons = {}
    for name, metric in test.metrics.items():
        other, own = results[name]
        # sacrebleu calls its metrics BLEU, chrF2 and TER.
        comparisons[type(metric).__name__.lower()] = PairedComparison(
            score=own.score,
            mean=float(own.mean),
            interval=float(own.ci),
            baseline_score=other.score,
            baseline_mean=float(other.mean),
            baseline_interval=float(other.ci),
            p_value=own.p_value,
            signature=str(signatures[name]),
        )
    return comparisons


@contextmanager
def _sacrebleu_seed(seed: int) -> Iterator[None]:
    """The environment is the only way to give sacrebleu's test a seed."""
    before = os.environ.get(_SEED_VARIABLE)
    os.environ[_SEED_VARIABLE] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SEED_VARIABLE]
        else:
            os.environ[_SEED_VARIABLE] = before
