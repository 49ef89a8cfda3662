"""SCAN split by length, and exact matches by length."""

import gzip
from collections import Counter

import pytest

from hf_vanilla_transformer.lab import scan
from hf_vanilla_transformer.lab.scan import (
    accuracy_by_length,
    accuracy_table,
    draw_accuracy,
    read_pairs,
    read_scan,
    split_by_length,
    write_length_splits,
)

PAIRS = [(f"go {n}", " ".join(["I_GO"] * n)) for n in range(1, 13) for _ in range(10)]


def write_tasks(path, pairs):
    text = "".join(f"IN: {command} OUT: {actions}\n" for command, actions in pairs)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["tasks.txt", "tasks.txt.gz"])
def test_lines_are_commands_and_actions(name, tmp_path):
    assert read_scan(write_tasks(tmp_path / name, PAIRS)) == PAIRS


def test_a_damaged_line_is_named(tmp_path):
    path = write_tasks(tmp_path / "tasks.txt", PAIRS[:2])
    path.write_text(path.read_text() + "jump twice\n")
    with pytest.raises(ValueError, match=r"tasks.txt:3: 'jump twice' is not of the form"):
        read_scan(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("go\tI_GO\ngo twice\n", "test.tsv:2: there has to be one tab"), ("", "test.tsv is empty")],
)
def test_a_damaged_part_is_named(text, message, tmp_path):
    (tmp_path / "test.tsv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_pairs(tmp_path / "test.tsv")


def test_what_is_learned_from_is_short_what_is_tested_is_longer_and_nothing_is_lost():
    split = split_by_length(PAIRS, 8, held_out=15)
    lengths = {name: [len(a.split()) for _, a in getattr(split, name)] for name in ("train", "validation", "test")}
    assert max(lengths["train"] + lengths["validation"]) == 8
    assert min(lengths["test"]) == 9
    assert [len(each) for each in lengths.values()] == [65, 15, 40]
    assert Counter([*split.train, *split.validation, *split.test]) == Counter(PAIRS)
    assert split_by_length(PAIRS, 8, held_out=15) == split
    assert split_by_length(PAIRS, 8, held_out=15, seed=1).validation != split.validation


@pytest.mark.parametrize(("cutoff", "held_out"), [(12, 5), (0, 5), (1, 10)])
def test_a_cutoff_that_leaves_a_part_empty_is_refused(cutoff, held_out):
    with pytest.raises(ValueError, match=f"a cutoff of {cutoff} leaves"):
        split_by_length(PAIRS, cutoff, held_out)


def test_the_original_split_has_the_sizes_of_its_paper(multi30k, tmp_path):
    """Lake and Baroni, 2018, section 4: 16,990 pairs of up to 22 actions, 3,920 of 24 to 48."""
    tasks = multi30k.parent / "scan" / "tasks.txt.gz"
    if not tasks.exists():
        pytest.skip("no scan beside the project")
    (split,) = write_length_splits(tasks, tmp_path / "scan", [22])
    assert (len(split.train) + len(split.validation), len(split.test)) == (16990, 3920)
    folder = tmp_path / "scan" / "cutoff-22"
    assert sorted(path.name for path in folder.iterdir()) == ["test.tsv", "train.tsv", "validation.tsv"]
    rows = [tuple(line.split("\t")) for line in (folder / "test.tsv").read_text().splitlines()]
    assert rows == list(split.test)
    assert min(len(actions.split()) for _, actions in rows) == 24


def test_only_whole_outputs_count():
    references = ["A B", "A B", "A B C", "B A"]
    found = accuracy_by_length("m", ["A B", "A", "A  B C", "A B"], references)
    assert found.by_length == {2: (1, 3), 3: (1, 1)}
    assert (found.total, found.wrong, found.ended_early) == (0.5, 2, 1)  # "A" ends early
    others = accuracy_by_length("m", ["B", "A B C D", "", "C B"], ["A B", "A B C", "A", "A B C"])
    assert (others.total, others.wrong, others.ended_early) == (0, 4, 1)  # "", while longer or other ones do not
    table = accuracy_table([found, accuracy_by_length("right", references, references)])
    assert table.splitlines() == [
        "| Exact match, % | all | 2 actions | 3 actions |",
        "| --- | --- | --- | --- |",
        "| m | 50.0 | 33.3 | 100.0 |",
        "| right | 100.0 | 100.0 | 100.0 |",
    ]
    with pytest.raises(ValueError, match="1 outputs and 4 references"):
        accuracy_by_length("m", ["A"], references)


def test_a_model_has_the_same_color_in_all_panels(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    one, two, three = [accuracy_by_length(name, ["A"], ["A B"]) for name in ("one", "two", "three")]
    drawn = []
    monkeypatch.setattr(scan, "save_chart", lambda figure, path: drawn.append(figure))
    draw_accuracy({"first": [one, three], "second": [two, one], "third": [three]}, tmp_path / "scan.svg")
    lines = [(line.get_label().split(":")[0], line.get_color()) for axes in drawn[0].axes for line in axes.lines]
    assert len(lines) == 5
    assert len(set(lines)) == len({color for _, color in lines}) == 3


def test_a_picture_has_a_line_for_each_model_and_appears_whole(tmp_path):
    pytest.importorskip("matplotlib")
    found = [accuracy_by_length(name, ["A B", "A"], ["A B", "A B C"]) for name in ("one", "two")]
    draw_accuracy({"first panel": found, "second panel": found[:1]}, tmp_path / "scan.svg")
    picture = (tmp_path / "scan.svg").read_text()
    assert picture.startswith("<?xml")
    # matplotlib draws text as paths, and says in a comment what it is.
    assert [picture.count(f"<!-- {text} -->") for text in ("first panel", "second panel")] == [1, 1]
    assert [picture.count(f"<!-- {name}: 50.0 -->") for name in ("one", "two")] == [2, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["scan.svg"]
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        draw_accuracy({"": found}, tmp_path / "scan.bmp")
