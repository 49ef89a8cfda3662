"""Examples that nobody picked by hand: the best and the worst translations of a test set by a stated rule."""

from collections import Counter
from collections.abc import Sequence

from ..evaluation.scores import HIGHER_IS_BETTER, METRICS, make_metrics
from .results_schema import Example, Examples

COUNT = 5
MIN_WORDS = 8
# Sources of these are single words, and what is counted are the units of references, such as phones.
_OF_UNITS = ("wer", "per")


def pick_examples(
    sources: Sequence[str],
    translations: Sequence[str],
    references: Sequence[Sequence[str]],
    title: str,
    metric: str = "chrf",
    count: int = COUNT,
    min_words: int = MIN_WORDS,
    untagged: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
) -> Examples | None:
    """Picks the sentences of a test set that were translated best and worst.

    Args:
        sources: sentences.
        translations: one for each.
        references: for each sentence, one or several.
        title: of the test set, for the rule.
        metric: name of the metric by which sentences are ranked.
        count: how many of each kind, if there are enough; no sentence is picked twice.
        min_words: words that source and first reference have at least, for a score of a few words says little; of
            error rates, units of the first reference.
        untagged: sources without their tags, of which words are counted; None where they have none.
        texts: what each sentence is of, such as a language; of equals, each has one in turn. None for one text.

    Returns:
        The sentences and the rule; None where none is long enough.
    """
    scorer = make_metrics([metric])[metric]
    found: list[Example] = []
    equals: Counter[tuple[float, str]] = Counter()  # found so far, of a score and a text
    turns = []
    of_texts = texts or [""] * len(sources)
    rows = zip(sources, untagged or sources, translations, references, of_texts, strict=True)
    for source, text, translation, given, of_text in rows:
        length = len(given[0].split())
        if metric not in _OF_UNITS:
            length = min(length, len(text.split()))
        if length >= min_words:
            score = scorer.sentence_score(translation, list(given)).score
            found.append({"source": source, "output": translation, "reference": given[0], "score": score})
            turns.append(equals[score, of_text])
            equals[score, of_text] += 1
    if not found:
        return None
    # Sorting is stable: of equals, those that come first in the test set, or in their text, come first here.
    in_turn = [found[index] for index in sorted(range(len(found)), key=lambda index: turns[index])]
    best_first = sorted(in_turn, key=lambda each: each["score"], reverse=metric in HIGHER_IS_BETTER)
    worst_first = sorted(in_turn, key=lambda each: each["score"], reverse=metric not in HIGHER_IS_BETTER)
    good = best_first[: min(count, (len(found) + 1) // 2)]
    chosen = {id(each) for each in good}
    bad = [each for each in worst_first if id(each) not in chosen][: min(count, len(found) // 2)]
    counted = "units in the reference" if metric in _OF_UNITS else "words in source and reference"
    order = "those that come first" if len(set(of_texts)) < 2 else "the first of each text, then the second, and so on"
    rule = (
        f"Of the {len(found):,} lines of {title} with at least {min_words} {counted}, the best and the worst by "
        f"{METRICS[metric]}, picked by `vanilla-transformer release`; of equals, {order}."
    )
    return {"rule": rule, "metric": metric, "good": good, "bad": bad}
