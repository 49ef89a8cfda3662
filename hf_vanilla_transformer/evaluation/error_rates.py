"""Error rates of pronunciations and other short sequences of units: of whole lines (WER), and of their units (PER).

Units are what spaces separate, such as phones. Lines that differ only in how Unicode spells them (`é` composed or
decomposed) are equal: a tokenizer that reads NFD decodes NFC, whatever a file has. Both rates are metrics of sacrebleu,
so that intervals, signatures and paired tests are the same for them as for BLEU.
"""

import unicodedata
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from sacrebleu.metrics.base import Metric, Score, Signature

from .. import __version__


class _ErrorRateSignature(Signature):
    def __init__(self, args: dict[str, Any]) -> None:
        super().__init__(args)
        self.info |= {"case": "mixed", "units": "spaces", "form": "nfc", "error": args["error"], "version": __version__}


class _ErrorRate(Metric):
    """Errors per hundred of something that is counted in the references."""

    _SIGNATURE_TYPE = _ErrorRateSignature
    name: ClassVar[str]
    counted: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.error = self.counted  # a signature is made of what an object holds

    def _preprocess_segment(self, sent: str) -> str:
        return unicodedata.normalize("NFC", sent)

    def _extract_reference_info(self, refs: Sequence[str]) -> dict[str, Any]:
        return {"references": [reference.split() for reference in refs]}

    def _aggregate_and_compute(self, stats: Sequence[Sequence[int]]) -> Score:
        return self._compute_score_from_stats(np.sum(stats, axis=0))

    def _compute_score_from_stats(self, stats: Sequence[float]) -> Score:
        errors, total = (float(number) for number in stats)
        return Score(self.name, 100 * errors / total if total else 100.0 * (errors > 0))


class WordErrorRate(_ErrorRate):
    """WER of pronunciations: the percentage of lines whose units are not exactly those of the reference.

    A line is the pronunciation of one word, hence the name, which is that of SIGMORPHON's tasks. It is not the WER of
    speech recognition, which counts edits of words in sentences. Where a line has several references, it is right if it
    is one of them.
    """

    name = "WER"
    counted = "line"

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict[str, Any]) -> list[int]:
        return [int(hypothesis.split() not in ref_kwargs["references"]), 1]


class PhoneErrorRate(_ErrorRate):
    """PER: insertions, deletions and substitutions of units per 100 units of the references, over all lines together.

    Where a line has several references, it is compared with the one that needs the fewest edits.
    """

    name = "PER"
    counted = "unit"

    def _compute_segment_statistics(self, hypothesis: str, ref_kwargs: dict[str, Any]) -> list[int]:
        units = hypothesis.split()
        return list(min((edit_distance(units, reference), len(reference)) for reference in ref_kwargs["references"]))


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Counts the insertions, deletions and substitutions that turn one sequence into another (Levenshtein distance).

    Args:
        first: units.
        second: units.

    Returns:
        The least number of edits.
    """
    # row[j] is the distance between what has been read of `first` and the first j units of `second`.
    row = list(range(len(second) + 1))
    for count, unit in enumerate(first, start=1):
        diagonal, row[0] = row[0], count
        for j, other in enumerate(second, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (unit != other))
    return row[-1]
