"""The index of checkpoints: every figure of each, never two ways to score in one table."""

import json
import shutil

import pytest
from released import standing

from hf_vanilla_transformer.publishing import index_text, write_index
from hf_vanilla_transformer.publishing.card_index import BEGIN, END


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return standing(tmp_path_factory.mktemp)


@pytest.fixture
def cards(made, tmp_path):
    """A folder with two checkpoints; the second knows nothing of Moses."""
    for name in ("a_checkpoint", "other"):
        shutil.copytree(made.folder, tmp_path / name)
        path = tmp_path / name / "results.json"
        results = {**json.loads(path.read_text()), "name": name}
        if name == "other":
            del results["evaluations"][1]["scorings"][1]
            results["model"]["parameters"] = 7654321
        path.write_text(json.dumps(results))
    return tmp_path


def test_all_checkpoints_are_in_it_and_each_way_to_score_has_a_table(cards, made):
    text = index_text(cards)
    whole, cased, moses = text.split("\n\nWords, test, ")
    assert "cased, detokenised" in cased
    assert "lowercased, tokenised by Moses" in moses
    names = [r"[a\_checkpoint](a_checkpoint)", "[other](other)"]
    for table, expected in ((whole, names), (cased, names), (moses, names[:1])):
        rows = [line for line in table.splitlines() if line.startswith("| [")]
        assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in expected]
    assert "| 7,654,321 | 3 | 3.0 | 2 | mine |" in whole
    results = json.loads((made.folder / "results.json").read_text())
    score = results["evaluations"][1]["scorings"][0]["runs"][results["training"]["shipped"]]["chrf"]
    assert f"{score['value']:.2f} ± {score['interval']:.2f} |" in cased
    assert "Words, validation" not in text


def test_what_else_is_in_the_file_stays(cards):
    path = cards / "README.md"
    write_index(path)
    first = path.read_text()
    assert first.startswith("# Checkpoints")
    assert index_text(cards) in first
    path.write_text(f"Before.\n{BEGIN}\nold\n{END}\nAfter.\n")
    write_index(path)
    assert path.read_text() == f"Before.\n{index_text(cards)}\nAfter.\n"
    write_index(path)
    assert path.read_text() == f"Before.\n{index_text(cards)}\nAfter.\n"


def test_a_file_without_a_place_for_it_is_left_alone(cards):
    (cards / "README.md").write_text("Mine.\n")
    with pytest.raises(ValueError, match=r"README.md has no place for the tables"):
        write_index(cards / "README.md")
    assert (cards / "README.md").read_text() == "Mine.\n"


def test_without_a_checkpoint_it_says_so_and_a_run_is_not_taken_for_one(tmp_path, made):
    assert "There is no checkpoint yet." in index_text(tmp_path)
    shutil.copytree(made.runs[0], tmp_path / "run")
    with pytest.raises(ValueError, match="is not of a released checkpoint"):
        index_text(tmp_path)
