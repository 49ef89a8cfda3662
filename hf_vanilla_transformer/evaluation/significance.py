"""Whether the difference between two systems is significant: paired bootstrap resampling (Koehn, 2004)."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sacrebleu.significance import PairedTest

from .scores import References, make_metrics, reference_streams

_SEED_VARIABLE = "SACREBLEU_SEED"


@dataclass(frozen=True)
class PairedComparison:
    """One metric of two systems on the same sentences, over many samples of sentences with replacement.

    Args:
        score: score of the system on all sentences.
        mean: mean score of the system over the samples.
        interval: half the width of the interval around `mean` that holds 95 % of the samples.
        baseline_score: score of the baseline on all sentences.
        baseline_mean: mean score of the baseline.
        baseline_interval: half the width of its interval.
        p_value: the probability that samples differ more than the systems do, if both are equally good. For equal
            translations sacrebleu returns the least value there is, which means nothing.
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
    metrics: Sequence[str] = ("bleu", "chrf"),
    lowercase: bool = False,
    tokenize: str = "13a",
    num_resamples: int = 1000,
    seed: int = 12345,
) -> dict[str, PairedComparison]:
    """Compares two systems by sacrebleu's paired bootstrap test.

    Args:
        translations: of the system.
        baseline: translations of the same sentences by the other system.
        references: as in `score_translations`, and so are the next three.
        metrics: names of the metrics to compare by.
        lowercase: whether to ignore case.
        tokenize: name of the tokeniser for BLEU.
        num_resamples: number of samples.
        seed: of the samples; the default is sacrebleu's.

    Returns:
        The comparison for each metric, by its name.

    Raises:
        ValueError: the numbers of sentences differ or are 0, or an option is out of its range.
    """
    for name, value in (("num_resamples", num_resamples), ("seed", seed)):
        if value < 1:  # sacrebleu takes 0 resamples for 1000, and seed 0 for no seed
            raise ValueError(f"`{name}`={value} is not allowed; allowed: an integer of at least 1")
    if len(baseline) != len(translations):
        raise ValueError(
            f"{len(translations)} translations cannot be compared with {len(baseline)} of the baseline; "
            "both have to be of the same sentences"
        )
    streams = reference_streams(translations, references)
    systems = [("baseline", list(baseline)), ("system", list(translations))]
    comparisons = {}
    for name, metric in make_metrics(metrics, lowercase, tokenize).items():
        with _sacrebleu_seed(seed):
            test = PairedTest(systems, {name: metric}, streams, "bs", n_samples=num_resamples)
            signatures, results = test()
        (signature,), (other, own) = signatures.values(), results[next(iter(signatures))]
        comparisons[name] = PairedComparison(
            score=own.score,
            mean=float(own.mean),
            interval=float(own.ci),
            baseline_score=other.score,
            baseline_mean=float(other.mean),
            baseline_interval=float(other.ci),
            p_value=own.p_value,
            signature=str(signature),
        )
    return comparisons


@contextmanager
def _sacrebleu_seed(seed: int) -> Iterator[None]:
    """Sets the seed of sacrebleu's test, which it reads from the environment only."""
    before = os.environ.get(_SEED_VARIABLE)
    os.environ[_SEED_VARIABLE] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SEED_VARIABLE]
        else:
            os.environ[_SEED_VARIABLE] = before
