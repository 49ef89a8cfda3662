"""Systems side by side: scored on each test set in each way, their average over test sets, and their spread."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .scores import Score, default_tokenizer, half_width, score_translations
from .scorings import Scoring
from .significance import paired_bootstrap
from .systems import System
from .test_sets import EvaluationSet


def compare_systems(
    systems: Sequence[System],
    test_sets: Sequence[EvaluationSet],
    scorings: Sequence[Scoring] = (Scoring(),),
    baseline: System | None = None,
    num_resamples: int = 1000,
    seed: int = 12345,
) -> dict[str, Any]:
    """Scores systems on test sets; translations are made once and scored in as many ways as are asked for.

    Args:
        systems: the systems, such as models of one recipe that differ in their seed.
        test_sets: what they translated, in the order of their translations.
        scorings: the ways to score, each with tables of its own.
        baseline: a system to compare one other with, on one test set; None for none.
        num_resamples: samples from which 95 % intervals are estimated, and of the paired test with `baseline`; 0 for
            no intervals.
        seed: of the samples of the first test set; those of the next are drawn with the next higher seed, as test sets
            are independent of each other.

    Returns:
        To be written as JSON: `engines`, what each system that is a model translated with, by its name; and `scorings`,
        a list with, for each way to score,

        - `text`: what was done to the text, or None;
        - `test_sets`: for each its `name`, `sentences`, `references` (how many each sentence has), `systems` (`name`,
          `scores` and `likelihood` or None, each; the baseline is the last), `spread` and `paired_bootstrap` (by
          metric, or None);
        - `macro_average` over test sets, each of the same weight: `systems` (`name` and `scores`) and `spread`; None
          where there is one test set. Its samples are averages of samples of each test set.

        `scores` has for each metric `value`, `interval` (half the width of the 95 % interval, or None) and `signature`.
        `spread` of several systems has for each metric `mean`, `standard_deviation` (of a sample, with n - 1), `min`
        and `max` of their values; else it is None.

    Raises:
        ValueError: the numbers of sentences differ or are 0, an option is out of its range, or there is a baseline and
            more than one system or test set.
    """
    if baseline is not None and (len(systems), len(test_sets)) != (1, 1):
        raise ValueError(
            f"a baseline is compared with 1 system on 1 test set, not with {len(systems)} on {len(test_sets)}"
        )
    everyone = [*systems, *([] if baseline is None else [baseline])]
    return {
        "engines": {system.name: system.engine for system in everyone if system.engine is not None},
        "scorings": [_scored(systems, test_sets, each, baseline, num_resamples, seed) for each in scorings],
    }


def _scored(
    systems: Sequence[System],
    test_sets: Sequence[EvaluationSet],
    scoring: Scoring,
    baseline: System | None,
    num_resamples: int,
    seed: int,
) -> dict[str, Any]:
    everyone = [*systems, *([] if baseline is None else [baseline])]
    found, scores_by_set = [], []
    for number, data in enumerate(test_sets):
        texts = [system.translations[number] for system in everyone]
        references = data.references
        if scoring.prepare is not None:
            texts, references = ([scoring.prepare(text) for text in each] for each in (texts, references))
        by_sentence = list(zip(*references, strict=True))
        options: dict[str, Any] = {
            "metrics": scoring.metrics,
            "lowercase": scoring.lowercase,
            "tokenize": scoring.tokenize or default_tokenizer(data.target_lang),
            "num_resamples": num_resamples,
            "seed": seed + number,
        }
        scores = [score_translations(text, by_sentence, **options) for text in texts]
        scores_by_set.append(scores)
        tested = None
        if baseline is not None:
            comparisons = paired_bootstrap(texts[0], texts[1], by_sentence, **options)
            tested = {name: asdict(comparison) for name, comparison in comparisons.items()}
        likelihoods = [system.likelihoods[number] if system.likelihoods else None for system in everyone]
        found.append(
            {
                "name": data.name,
                "sentences": len(by_sentence),
                "references": len(references),
                "systems": [
                    {**_named(system, own), "likelihood": None if likelihood is None else likelihood.as_dict()}
                    for system, own, likelihood in zip(everyone, scores, likelihoods, strict=True)
                ],
                "spread": _spread(scores[: len(systems)]),
                "paired_bootstrap": tested,
            }
        )
    macro = None
    if len(test_sets) > 1:
        averages = [_macro_average(list(of_system)) for of_system in zip(*scores_by_set, strict=True)]
        macro = {
            "systems": [_named(system, own) for system, own in zip(everyone, averages, strict=True)],
            "spread": _spread(averages),
        }
    return {"text": scoring.description, "test_sets": found, "macro_average": macro}


def _named(system: System, scores: dict[str, Score]) -> dict[str, Any]:
    return {"name": system.name, "scores": {name: score.as_dict() for name, score in scores.items()}}


def _macro_average(scores: Sequence[dict[str, Score]]) -> dict[str, Score]:
    """The mean of each metric over test sets; each sample of it is the mean of one sample of each test set."""
    averages = {}
    for name in scores[0]:
        own = [each[name] for each in scores]
        value, signature = statistics.fmean(score.value for score in own), _macro_signature(own)
        samples = [score.samples for score in own if score.samples is not None]
        if samples:
            mean = np.mean(samples, axis=0)
            averages[name] = Score(value, signature, half_width(mean), mean)
        else:
            averages[name] = Score(value, signature)
    return averages


def _macro_signature(scores: Sequence[Score]) -> str:
    """What test sets differ in, such as the tokeniser, is there for each in their order; seeds begin with the first."""
    fields = []
    for parts in zip(*(score.signature.split("|") for score in scores), strict=True):
        values = list(dict.fromkeys(part.partition(":")[2] for part in parts))
        key = parts[0].partition(":")[0]
        fields.append(f"{key}:{values[0] if key == 'seed' else '+'.join(values)}")
    return "|".join([*fields, f"macro:{len(scores)}"])


def _spread(scores: Sequence[dict[str, Score]]) -> dict[str, dict[str, float]] | None:
    if len(scores) < 2:
        return None
    spread = {}
    for name in scores[0]:
        values = [each[name].value for each in scores]
        spread[name] = {
            "mean": statistics.fmean(values),
            "standard_deviation": statistics.stdev(values),
            "min": min(values),
            "max": max(values),
        }
    return spread
