"""Scores by the length of the source, against scores of the same sentences chosen by hand."""

import json

import pytest
from commanding import run

from hf_vanilla_transformer.commands import evaluate
from hf_vanilla_transformer.evaluation import (
    EvaluationSet,
    System,
    compare_by_length,
    length_tables,
    score_by_length,
    score_translations,
)

SOURCES = ["one", "one two three", "", "one two three four five six", "one two three four"]
REFERENCES = ["a b c d", "the red dog runs", "", "a b c d e f g", "big dogs run far away"]
MADE = ["a b c d", "the red dog sleeps now", "x", "a b c d x f g", "big dogs run far today"]


def test_each_group_is_scored_by_itself():
    groups = score_by_length(SOURCES, MADE, REFERENCES, [1, 4, 5], ["bleu", "chrf"])
    assert [group.title for group in groups] == ["0-1", "2-4", "5-5", "6 or more"]
    members = [[0, 2], [1, 4], [], [3]]
    assert [group.sentences for group in groups] == [2, 2, 0, 1]
    assert groups[2].scores == {}
    for group, indices in zip(groups, members):
        if indices:
            own = score_translations([MADE[i] for i in indices], [REFERENCES[i] for i in indices], ["bleu", "chrf"])
            assert {name: score.value for name, score in group.scores.items()} == {
                name: score.value for name, score in own.items()
            }


def test_several_references_and_intervals_are_passed_on():
    several = [[reference, "something else"] for reference in REFERENCES]
    (short, long) = score_by_length(SOURCES, MADE, several, [3], num_resamples=5)
    assert (short.sentences, long.sentences) == (3, 2)
    assert "nrefs:2" in long.scores["bleu"].signature
    assert long.scores["bleu"].interval is not None


@pytest.mark.parametrize("bounds", [[], [0, 3], [3, 3], [5, 2]])
def test_bounds_that_separate_nothing_are_refused(bounds):
    with pytest.raises(ValueError, match="are not rising numbers of at least 1"):
        score_by_length(SOURCES, MADE, REFERENCES, bounds)
    with pytest.raises(ValueError, match="5 sources, 4 translations and 5 references do not belong together"):
        score_by_length(SOURCES, MADE[:4], REFERENCES, [3])


def test_systems_stand_side_by_side():
    systems = [System("one", [MADE, REFERENCES]), System("two", [REFERENCES, MADE])]
    sets = [EvaluationSet(name, SOURCES, [REFERENCES]) for name in ("first", "second")]
    found = compare_by_length(systems, sets, [3, 5], "chrf", num_resamples=0)
    expected = {
        name: score_by_length(SOURCES, texts, REFERENCES, [3, 5], ["chrf"])
        for name, texts in (("one", MADE), ("two", REFERENCES))
    }
    rows = found[0].rows()
    assert rows[0] == ["chrF, words of the source", "sentences", "one", "two"]
    for number, row in enumerate(rows[1:]):
        assert row[2:] == [f"{expected[name][number].scores['chrf'].value:.2f}" for name in ("one", "two")]
    assert [row[3] for row in found[1].rows()[1:]] == [row[2] for row in rows[1:]]
    table = length_tables(found)
    assert table.startswith("first:\n")
    assert "\n\nsecond:\n" in table


def test_tags_of_a_test_set_are_not_counted():
    def groups(**data):
        (found,) = compare_by_length(
            [System("one", [MADE])], [EvaluationSet("s", references=[REFERENCES], **data)], [3, 5]
        )
        return found.as_dict()

    tagged = [f"<2de> <up> {source}" if source else "" for source in SOURCES]
    assert groups(sources=tagged, tag="2de up") == groups(sources=SOURCES) != groups(sources=tagged)


def test_the_verb_prints_and_writes_it(tmp_path):
    texts = {"source": SOURCES, "made": MADE, "references": REFERENCES}
    for name, lines in texts.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    given = ["--translations", tmp_path / "made", "--references", tmp_path / "references", "--num_resamples", 0]
    done = run(evaluate.main, *given, "--source", tmp_path / "source", "--by_length", 3, "--output", tmp_path / "out")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[-3:]] == ["BLEU,", "0-3", "4"]
    (found,) = json.loads((tmp_path / "out").read_text())["by_length"]
    assert [group["sentences"] for group in found["systems"][str(tmp_path / "made")]] == [3, 2]
    assert "give --source or --test_set" in run(evaluate.main, *given, "--by_length", 3).error
    wrong = run(evaluate.main, *given, "--source", tmp_path / "source", "--by_length", 3, 2)
    assert "--by_length: lengths 3 2 are not rising" in wrong.error
