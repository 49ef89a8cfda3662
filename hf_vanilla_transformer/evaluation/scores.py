"""BLEU and chrF of translations, by sacrebleu, with the signatures that say what was computed."""

from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics import BLEU, CHRF


@dataclass(frozen=True)
class TranslationScores:
    """Two corpus scores from 0 to 100, and their signatures.

    Args:
        bleu: cased, on detokenised text, tokenised by sacrebleu's 13a.
        bleu_signature: how sacrebleu computed it; to be quoted next to the number.
        chrf: character n-gram F-score.
        chrf_signature: likewise.
    """

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str


def score_translations(translations: Sequence[str], references: Sequence[str]) -> TranslationScores:
    """Compares translations with one reference each.

    Args:
        translations: detokenised text, one sentence an entry.
        references: as many.

    Returns:
        Corpus BLEU and chrF.

    Raises:
        ValueError: there are none, or not as many translations as references.
    """
    if len(translations) != len(references) or not references:
        raise ValueError(
            f"{len(translations)} translations cannot be compared with {len(references)} references; "
            "give one reference for each, and at least one"
        )
    bleu, chrf = BLEU(), CHRF()
    bleu_score = bleu.corpus_score(list(translations), [list(references)])
    chrf_score = chrf.corpus_score(list(translations), [list(references)])
    return TranslationScores(
        bleu=bleu_score.score,
        bleu_signature=str(bleu.get_signature()),
        chrf=chrf_score.score,
        chrf_signature=str(chrf.get_signature()),
    )
