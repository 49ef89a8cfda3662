"""What the texts claim, tested by paired differences of samples; against the formula, and against noise."""

import numpy as np
import pytest
from trained_runs import trained

from hf_vanilla_transformer.evaluation import LengthGroup, Score
from hf_vanilla_transformer.lab.recurrent_claims import CLAIMS, SystemScores, claim_rows
from hf_vanilla_transformer.lab.recurrent_configuration import RECURRENT_PRESETS

DRAWS = np.random.default_rng(0)
SENTENCES = [DRAWS.normal(0, 5, 1000) for _ in range(3)]  # which sentences were drawn: shared by all systems


def score(value, place, noise=0.0):
    """A score whose samples vary with the sentences, by far more than systems differ, and a little by themselves."""
    return Score(value, "", None, value + SENTENCES[place] + noise * DRAWS.normal(size=1000))


def scores(whole, short, long, noise=0.0):
    groups = [
        LengthGroup(0, 9, 10, {"bleu": score(short, 0, noise)}),
        LengthGroup(10, 12, 0),
        LengthGroup(13, None, 10, {"bleu": score(long, 1, noise)}),
    ]
    return SystemScores(score(whole, 2, noise), groups)


def half_of_95_percent(samples):
    low, *_, high = sorted(samples)[len(samples) // 40 : len(samples) - len(samples) // 40]
    return (high - low) / 2


def run_of(preset, final_loss, **more):
    return trained(preset, [(1.0, 2.0)], final_loss, preset=preset, **more)


def claims_of(runs, of):
    titles, *rows = claim_rows(runs, of)
    assert titles == ["Claim", "The texts claim", "Measured", "Verdict"]
    return {row[0]: row[2:] for row in rows}


def test_there_is_a_claim_of_every_preset():
    assert CLAIMS.keys() == RECURRENT_PRESETS.keys()


@pytest.mark.parametrize(
    ("short", "long", "verdict"), [(39.0, 28.0, "agrees"), (30.0, 35.0, "disagrees"), (36.0, 35.9, "not told apart")]
)
def test_the_fixed_vector_fails_if_its_gap_to_the_transformer_is_larger_where_sentences_are_long(short, long, verdict):
    of = {"tiny": scores(40.0, 40.0, 40.0, 1.0), "recurrent": scores(33.0, short, long, 1.0)}
    measured, found = claims_of([run_of("tiny", 1.0), run_of("recurrent", 2.0)], of)["recurrent"]
    assert found == verdict
    own, theirs = (
        [group.scores["bleu"] for group in of[name].groups if group.scores] for name in ("recurrent", "tiny")
    )
    gaps = [a.samples - b.samples for a, b in zip(own, theirs)]
    half = half_of_95_percent(gaps[1] - np.roll(gaps[0], 1))
    text = (
        f"{short - 40:+.2f} at 0-9, {long - 40:+.2f} at 13 or more words, a change of {long - short:+.2f} ± {half:.2f}"
    )
    assert measured == f"BLEU beside tiny: {text}"
    assert half < 6, "paired: the gaps do not vary with the sentences"


def test_groups_that_share_their_random_numbers_are_not_taken_for_paired():
    """If samples of one number were subtracted, the interval would be next to nothing, and any change told apart."""
    same = 3 * DRAWS.normal(size=1000)
    groups = {"recurrent": (30.0, 29.5), "tiny": (40.0, 40.0)}
    of = {}
    for name, values in groups.items():
        moved = [(same if name == "recurrent" else 0) + 0.01 * DRAWS.normal(size=1000) for _ in values]
        ends = [LengthGroup(i, i, 5, {"bleu": Score(v, "", None, v + moved[i])}) for i, v in enumerate(values)]
        of[name] = SystemScores(score(35.0, 2), ends)
    assert claims_of([run_of("tiny", 1.0), run_of("recurrent", 2.0)], of)["recurrent"][1] == "not told apart"


def test_models_are_compared_with_the_better_run_of_the_model_that_the_text_names():
    runs = [
        run_of("tiny", 1.0, updates=1000),
        run_of("recurrent_additive", 1.6, updates=500),
        trained("worse", [(1.0, 2.0)], 1.9, "recurrent_additive", preset="recurrent_additive"),
        run_of("recurrent_multiplicative", 1.5, updates=750),
        run_of("recurrent_gnmt", 1.7, updates=400),
    ]
    runs[1] = trained("better", [(1.0, 2.0)], 1.6, "recurrent_additive", preset="recurrent_additive", updates=500)
    of = {name: scores(whole, 30, 30, 0.1) for name, whole in (("tiny", 40.0), ("better", 36.0), ("worse", 50.0))}
    of |= {"recurrent_multiplicative": scores(36.001, 30, 30, 0.1), "recurrent_gnmt": scores(35.0, 30, 30, 0.1)}
    found = claims_of(runs, of)
    assert list(found) == ["tiny", "better", "recurrent_multiplicative", "recurrent_gnmt"]
    assert found["tiny"][1] == "agrees"
    assert "BLEU beside recurrent_multiplicative, 1.33 times its updates a minute" in found["tiny"][0]
    assert found["better"] == ["-", "not tested"]  # there is no fixed vector
    assert found["recurrent_multiplicative"][1] == "not told apart"
    assert found["recurrent_multiplicative"][0].endswith("BLEU beside better, 1.50 times its updates a minute")
    assert found["recurrent_gnmt"][0].startswith("-1.00 ± 0.")
    assert found["recurrent_gnmt"][1] == "disagrees"


def test_samples_that_do_not_differ_tell_nothing():
    one = {
        name: SystemScores(Score(value, "", None, np.full(1000, value)), [])
        for name, value in (("tiny", 40.0), ("recurrent_gnmt", 30.0))
    }
    measured, verdict = claims_of([run_of("tiny", 1.0), run_of("recurrent_gnmt", 2.0)], one)["tiny"]
    assert (measured.split(" BLEU")[0], verdict) == ("+10.00 ± 0.00", "not told apart")


def test_what_has_no_counterpart_or_one_length_only_is_not_claims_of():
    alone = {"recurrent": scores(30.0, 30.0, 30.0)}
    assert claims_of([run_of("recurrent", 2.0)], alone) == {"recurrent": ["-", "not tested"]}
    short = SystemScores(score(30.0, 2), [LengthGroup(0, 9, 10, {"bleu": score(30.0, 0)}), LengthGroup(10, None, 0)])
    runs = [run_of("tiny", 1.0), run_of("recurrent", 2.0), run_of("other", 3.0)]
    found = claims_of(runs, dict.fromkeys(("tiny", "recurrent", "other"), short))
    assert found["recurrent"] == ["-", "not tested"]
    assert "other" not in found
