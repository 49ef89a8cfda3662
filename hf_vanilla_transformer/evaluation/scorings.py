"""Ways to score a text: as it is, or changed first as some papers do. Scores of two ways belong in two tables."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from .moses import moses_description, moses_lowercased, paper_description, paper_tokenized


@dataclass(frozen=True)
class Scoring:
    """What is done to translations and references, and by which metrics they are then compared.

    Args:
        metrics: names of the metrics, of `METRICS`.
        lowercase: whether BLEU and chrF ignore case.
        tokenize: name of sacrebleu's tokeniser for BLEU; None for the one that suits the language of a test set.
        prepare: changes a text, sentence by sentence; None to leave it as it is.
        description: what `prepare` does, to be quoted next to scores.
    """

    metrics: Sequence[str] = ("bleu", "chrf", "ter")
    lowercase: bool = False
    tokenize: str | None = None
    prepare: Callable[[Iterable[str]], list[str]] | None = None
    description: str | None = None


def moses_lowercase_scoring(language: str, metrics: Sequence[str] = ("bleu", "chrf", "ter")) -> Scoring:
    """Scores text that is changed by `moses_lowercased`, as papers on Multi30k do.

    Args:
        language: of the text, such as `de`.
        metrics: names of the metrics.

    Returns:
        The scoring.

    Raises:
        ValueError: sacremoses is not installed.
    """
    prepare = partial(moses_lowercased, language=language)
    return Scoring(metrics, tokenize="none", prepare=prepare, description=moses_description(language))


def paper_scoring(language: str) -> Scoring:
    """Scores text that is changed by `paper_tokenized`, by the BLEU of multi-bleu.perl: as the paper's Table 2.

    Args:
        language: of the text, such as `de`.

    Returns:
        The scoring.

    Raises:
        ValueError: sacremoses is not installed.
    """
    prepare = partial(paper_tokenized, language=language)
    return Scoring(["paper_bleu"], prepare=prepare, description=paper_description(language))
