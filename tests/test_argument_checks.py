"""Arguments of a run that do not go together."""

import pytest
from training_runs import arguments

UNITS = {"source_units": "characters", "target_units": "words"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_units": "characters"}, "source_units=characters, target_units=bpe: bpe is one vocabulary for both"),
        ({"target_units": "words"}, "source_units=bpe, target_units=words: bpe is one vocabulary for both"),
        ({"source_units": "lowercase_bpe", "target_units": "words"}, "lowercase_bpe is for sources"),
        ({"target_units": "lowercase_bpe"}, "lowercase_bpe is for sources"),
        ({"source_units": "lowercase_bpe", "tokenizer_name_or_path": "x"}, "has no effect on the tokenizer of x"),
        ({**UNITS, "bpe_dropout": 0.1}, "bpe_dropout=0.1 is for bpe"),
        ({**UNITS, "objective": "span_corruption"}, "span_corruption has one text"),
        ({**UNITS, "tokenizer_name_or_path": "x"}, "has no effect on the tokenizer of x"),
        ({**UNITS, "model_name_or_path": "y"}, "has no effect on the tokenizer of y"),
        (
            {**UNITS, "source_units": "letters"},
            "source_units='letters' is none of bpe, lowercase_bpe, characters, nfd_characters, words",
        ),
        ({"corpus_temperature": 0.5}, "corpus_temperature=0.5 is not a number of at least 1"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, tmp_path, **changes)


def test_checkpoints_of_which_the_best_is_wanted_are_evaluated_by_shares_of_all_updates_too(tmp_path):
    best = {"final_weights": "best", "eval_strategy": "steps", "save_strategy": "steps"}
    assert arguments(tmp_path, tmp_path, **best, eval_steps=0.1, save_steps=0.3).save_steps == 0.3
    with pytest.raises(ValueError, match=r"a multiple of eval_steps; got .*eval_steps=0\.2"):
        arguments(tmp_path, tmp_path, **best, eval_steps=0.2, save_steps=0.3)


def test_sides_may_be_cut_differently(tmp_path):
    assert arguments(tmp_path, tmp_path, **UNITS).target_units == "words"
    assert arguments(tmp_path, tmp_path, source_units="lowercase_bpe", bpe_dropout=0.1).target_units == "bpe"
