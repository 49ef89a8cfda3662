"""Examples that nobody picked by hand: the best and the worst translations of a test set by a stated rule."""

from collections.abc import Sequence

from ..evaluation.scores import HIGHER_IS_BETTER, METRICS, make_metrics
from .results_schema import Example, Examples

COUNT = 5
MIN_WORDS = 8


def pick_examples(
    sources: Sequence[str],
    translations: Sequence[str],
    references: Sequence[Sequence[str]],
    title: str,
    metric: str = "chrf",
    count: int = COUNT,
    min_words: int = MIN_WORDS,
) -> Examples | None:
    """Picks the sentences of a test set that were translated best and worst.

    Args:
        sources: sentences.
        translations: one for each.
        references: for each sentence, one or several.
        title: of the test set, for the rule.
        metric: name of the metric by which sentences are ranked.
        count: how many of each kind, if there are enough; no sentence is picked twice.
        min_words: words that source and first reference have at least: a score of a few words says little.

    Returns:
        The sentences and the rule; None where none is long enough.
    """
    scorer = make_metrics([metric])[metric]
    found: list[Example] = []
    for source, translation, given in zip(sources, translations, references, strict=True):
        if min(len(source.split()), len(given[0].split())) >= min_words:
            score = scorer.sentence_score(translation, list(given)).score
            found.append({"source": source, "output": translation, "reference": given[0], "score": score})
    if not found:
        return None
    # Sorting is stable: of equals, those that come first in the test set come first here.
    best_first = sorted(found, key=lambda each: each["score"], reverse=metric in HIGHER_IS_BETTER)
    worst_first = sorted(found, key=lambda each: each["score"], reverse=metric not in HIGHER_IS_BETTER)
    good = best_first[: min(count, (len(found) + 1) // 2)]
    chosen = {id(each) for each in good}
    bad = [each for each in worst_first if id(each) not in chosen][: min(count, len(found) // 2)]
    rule = (
        f"Of the {len(found):,} sentences of {title} with at least {min_words} words in source and reference, those "
        f"with the best and the worst {METRICS[metric]} of the sentence, picked by `vanilla-transformer release`; of "
        "equals, those that come first."
    )
    return {"rule": rule, "metric": metric, "good": good, "bad": bad}
