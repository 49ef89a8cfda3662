"""Scores by the length of the source: whether a system fails on long sentences."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .scores import METRICS, References, Score, default_tokenizer, score_translations
from .systems import System
from .test_sets import EvaluationSet


@dataclass(frozen=True)
class LengthGroup:
    """The sentences of a text whose sources have similar lengths, and their scores.

    Args:
        shortest: the fewest words of a source that belongs to it.
        longest: the most; None for no limit.
        sentences: how many there are.
        scores: by metric, of all of them together; empty if there is no sentence.
    """

    shortest: int
    longest: int | None
    sentences: int
    scores: dict[str, Score] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Such as "10-14", or "15 or more"."""
        return f"{self.shortest} or more" if self.longest is None else f"{self.shortest}-{self.longest}"

    def as_dict(self) -> dict[str, Any]:
        """Returns all fields by name, ready for JSON."""
        scores = {name: score.as_dict() for name, score in self.scores.items()}
        return {"shortest": self.shortest, "longest": self.longest, "sentences": self.sentences, "scores": scores}


def score_by_length(
    sources: Sequence[str],
    translations: Sequence[str],
    references: References,
    bounds: Sequence[int],
    metrics: Sequence[str] = ("bleu",),
    **options: Any,
) -> list[LengthGroup]:
    """Scores the sentences of each range of source lengths by themselves.

    Args:
        sources: text; its length is counted in words between spaces.
        translations: one for each.
        references: for each, one or a sequence of several.
        bounds: the most words of each group, rising; after the last one comes a group without a limit.
        metrics: as in `score_translations`.
        **options: of `score_translations`, such as `num_resamples` for intervals.

    Returns:
        A group for each range, the shortest first.

    Raises:
        ValueError: `bounds` are not rising numbers of at least 1, the numbers of sentences differ, or as in
            `score_translations`.
    """
    check_bounds(bounds)
    if not len(sources) == len(translations) == len(references):
        raise ValueError(
            f"{len(sources)} sources, {len(translations)} translations and {len(references)} references do not belong "
            "together; give one translation and its references for each source"
        )
    lengths = [len(source.split()) for source in sources]
    groups = []
    for before, longest in zip([-1, *bounds], [*bounds, None], strict=True):
        inside = [
            index for index, length in enumerate(lengths) if before < length and (longest is None or length <= longest)
        ]
        made, right = [translations[index] for index in inside], [references[index] for index in inside]
        scores = score_translations(made, right, metrics, **options) if inside else {}
        groups.append(LengthGroup(max(before + 1, 0), longest, len(inside), scores))
    return groups


def check_bounds(bounds: Sequence[int]) -> None:
    """Refuses lengths that separate nothing.

    Args:
        bounds: as in `score_by_length`.

    Raises:
        ValueError: they are not rising numbers of at least 1.
    """
    if not bounds or any(low >= high for low, high in zip([0, *bounds], bounds, strict=False)):
        raise ValueError(f"lengths {' '.join(map(str, bounds)) or '(none)'} are not rising numbers of at least 1")


@dataclass(frozen=True)
class LengthComparison:
    """Systems side by side, by the length of the source.

    Args:
        name: of the test set, or None.
        metric: which score.
        systems: groups by name of the system, of the same sentences.
    """

    name: str | None
    metric: str
    systems: dict[str, list[LengthGroup]]

    def as_dict(self) -> dict[str, Any]:
        """Returns all fields by name, ready for JSON."""
        groups = {name: [group.as_dict() for group in own] for name, own in self.systems.items()}
        return {"name": self.name, "metric": self.metric, "systems": groups}

    def rows(self) -> list[list[str]]:
        """Makes a table: a row for each group, a column for each system; "-" where a group has no sentence."""
        rows = [[f"{METRICS[self.metric]}, words of the source", "sentences", *self.systems]]
        for own in zip(*self.systems.values(), strict=True):
            cells = []
            for group in own:
                score = group.scores.get(self.metric)
                interval = "" if score is None or score.interval is None else f" ± {score.interval:.2f}"
                cells.append("-" if score is None else f"{score.value:.2f}{interval}")
            rows.append([own[0].title, f"{own[0].sentences:,}", *cells])
        return rows


def compare_by_length(
    systems: Sequence[System],
    test_sets: Sequence[EvaluationSet],
    bounds: Sequence[int],
    metric: str = "bleu",
    **options: Any,
) -> list[LengthComparison]:
    """Scores systems by the length of the source.

    Args:
        systems: translations of the test sets.
        test_sets: in the order of their translations, with sources, of which tags are not counted.
        bounds: as in `score_by_length`.
        metric: which score.
        **options: of `score_translations`; `tokenize` None takes the tokeniser that suits the language.

    Returns:
        One comparison for each test set.

    Raises:
        ValueError: as `score_by_length`.
    """
    tokenize = options.pop("tokenize", None)
    found = []
    for number, data in enumerate(test_sets):
        references = list(zip(*data.references, strict=True))
        options["tokenize"] = tokenize or default_tokenizer(data.target_lang)
        groups = {
            system.name: score_by_length(
                data.untagged, system.translations[number], references, bounds, [metric], **options
            )
            for system in systems
        }
        found.append(LengthComparison(data.name, metric, groups))
    return found
