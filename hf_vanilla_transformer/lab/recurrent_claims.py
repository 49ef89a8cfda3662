"""Recurrent models beside the Transformer: what the texts claim, and whether translations can tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..configuration_vanilla_transformer import PRESETS
from ..evaluation import LengthGroup, Score
from ..evaluation.scores import half_width
from .recurrent_runs import TrainedRun, better_runs

Verdict = Literal["agrees", "disagrees", "not told apart", "not tested"]


@dataclass(frozen=True)
class RecurrentClaim:
    """What the texts say of a model.

    Args:
        text: what they say, and who.
        against: the preset of the model that it is compared with; None for the best model of the other kind, of which
            there are two, recurrent and Transformers.
        sign: 1 if it is to be better than that, -1 if it is to be worse.
        by_length: whether not its score is compared, but how the difference changes from the shortest sentences to the
            longest.
    """

    text: str
    against: str | None
    sign: Literal[-1, 1] = 1
    by_length: bool = False


CLAIMS = {
    "recurrent": RecurrentClaim(
        "fails on long sentences (Cho et al. 2014; Bahdanau et al. 2015)", None, sign=-1, by_length=True
    ),
    "recurrent_additive": RecurrentClaim(
        "does not fail on long sentences (Bahdanau et al. 2015)", "recurrent", by_length=True
    ),
    "recurrent_multiplicative": RecurrentClaim(
        "no worse than additive, and cheaper (Luong et al. 2015)", "recurrent_additive"
    ),
    "recurrent_multiplicative_fed": RecurrentClaim(
        "the same of the score alone, in the wiring of additive", "recurrent_additive"
    ),
    "recurrent_gnmt": RecurrentClaim("deeper is better, with residuals (Wu et al. 2016)", "recurrent_additive"),
}
CLAIM_OF_TRANSFORMERS = RecurrentClaim("better in less time (Vaswani et al. 2017)", None)


@dataclass(frozen=True)
class SystemScores:
    """BLEU of the translations of one model, with samples of the sentences, which are the same for all models.

    Args:
        whole: of all sentences.
        groups: by the length of the source, the shortest first.
    """

    whole: Score
    groups: Sequence[LengthGroup]


def claim_rows(runs: Sequence[TrainedRun], scores: Mapping[str, SystemScores]) -> list[list[str]]:
    """Makes a table of claims, what was measured, and whether it agrees.

    A difference is told apart from 0 if it is larger than half its 95 % interval, by paired bootstrap resampling.

    Args:
        runs: of a list; of each model, the better run is looked at.
        scores: by name of the run.

    Returns:
        Rows of cells, the first with titles; none for models of which nothing is claimed.
    """
    better = sorted(better_runs(runs), key=lambda run: run.final_loss)  # the best is the first of its kind
    rows = [["Claim", "The texts claim", "Measured", "Verdict"]]
    for run in (run for run in runs if run in better):
        claim = CLAIM_OF_TRANSFORMERS if run.preset in PRESETS else CLAIMS.get(run.preset)
        if claim is None:
            continue
        others = [
            each
            for each in better
            if (each.preset == claim.against if claim.against else (each.preset in PRESETS) != (run.preset in PRESETS))
        ]
        measured, verdict = ("-", "not tested") if not others else _tested(claim, run, others[0], scores)
        rows.append([run.name, claim.text, measured, verdict])
    return rows


def _tested(
    claim: RecurrentClaim, run: TrainedRun, other: TrainedRun, scores: Mapping[str, SystemScores]
) -> tuple[str, Verdict]:
    own, theirs = scores[run.name], scores[other.name]
    if not claim.by_length:
        difference, samples = _difference(own.whole, theirs.whole)
        speed = run.updates_per_minute / other.updates_per_minute
        text = f"{_with_interval(difference, samples)} BLEU beside {other.name}, {speed:.2f} times its updates a minute"
        return text, _verdict(difference, samples, claim.sign)
    pairs = [(ours, beside) for ours, beside in zip(own.groups, theirs.groups, strict=True) if ours.sentences]
    if len(pairs) < 2:
        return "-", "not tested"
    ends = [pairs[0], pairs[-1]]
    (short, of_short), (long, of_long) = (_difference(ours.scores["bleu"], b.scores["bleu"]) for ours, b in ends)
    # Groups are independent of each other, but samples of one number come of the same random numbers in each: moved on
    # by one, they do not.
    change, samples = long - short, of_long - np.roll(of_short, 1)
    where = ", ".join(f"{gap:+.2f} at {ours.title}" for gap, (ours, _) in zip((short, long), ends, strict=True))
    text = f"BLEU beside {other.name}: {where} words, a change of {_with_interval(change, samples)}"
    return text, _verdict(change, samples, claim.sign)


def _difference(own: Score, other: Score) -> tuple[float, np.ndarray]:
    """Of two scores of the same sentences, and of each sample of them."""
    assert own.samples is not None
    assert other.samples is not None
    return own.value - other.value, own.samples - other.samples


def _with_interval(value: float, samples: np.ndarray) -> str:
    return f"{value:+.2f} ± {half_width(samples):.2f}"


def _verdict(value: float, samples: np.ndarray, sign: int) -> Verdict:
    half = half_width(samples)
    if half == 0 or abs(value) <= half:  # of one sentence, all samples are equal
        return "not told apart"
    return "agrees" if value * sign > 0 else "disagrees"
