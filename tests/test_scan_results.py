"""A list of runs on SCAN: finished runs are scored on their own test set, and seeds make means, spreads and sums."""

import statistics

import pytest
from queue_lists import pretend_to_train, write_list

from hf_vanilla_transformer.lab import scan_results
from hf_vanilla_transformer.lab.run_list import read_run_list
from hf_vanilla_transformer.lab.scan import LengthAccuracy, accuracy_by_length
from hf_vanilla_transformer.lab.scan_results import ScanRun, accuracy_panels, scan_table, score_runs


def list_of(tmp_path, *names, longest=2):
    """A list of runs by name, and what they learn from and are tested on."""
    entries = []
    for name in names:
        folder = tmp_path / f"cutoff-{name.split('-')[1]}"
        folder.mkdir(exist_ok=True)
        (folder / "train.tsv").write_text("go\tI_GO\n")
        (folder / "test.tsv").write_text("go\t" + " ".join(["I_GO"] * longest) + "\n")
        entries.append({"name": name, "train_data": [str(folder / "train.tsv")], "validation_metrics": ["wer"]})
    return read_run_list(write_list(tmp_path, entries))


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_finished_runs_are_scored_on_the_pairs_beside_theirs_and_others_are_named(tmp_path, monkeypatch):
    asked = []

    def score(name, folder, pairs, *options):
        asked.append((name, folder, pairs, options))
        return accuracy_by_length(name, ["I_GO I_GO"], [actions for _, actions in pairs])

    monkeypatch.setattr(scan_results, "score_model", score)
    runs = list_of(tmp_path, "scan-1-none", "scan-1-rotary", "scan-0-none")
    for number in (0, 2):
        pretend_to_train(runs.runs[number], wer=12.5, loss=1.0)
    found, waiting = score_runs(runs, "cpu")
    assert [(each.cutoff, each.encoding, each.accuracy.total, each.held_out) for each in found] == [
        (1, "none", 1.0, 0.875),
        (0, "none", 1.0, 0.875),
    ]
    assert waiting == ["scan-1-rotary"]
    assert [(name, pairs) for name, _, pairs, _ in asked] == [
        ("scan-1-none", [("go", "I_GO I_GO")]),
        ("scan-0-none", [("go", "I_GO I_GO")]),
    ]
    assert {(folder.name, options[0]) for _, folder, _, options in asked} == {
        ("scan-1-none", "cpu"),
        ("scan-0-none", "cpu"),
    }


def test_what_is_no_such_list_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"run 'other-1-none': its name is not of the form scan-CUTOFF-ENCODING"):
        score_runs(list_of(tmp_path, "other-1-none"))
    runs = list_of(tmp_path, "scan-2-none")
    with pytest.raises(ValueError, match=r"no run of .*runs.yaml has ended"):
        score_runs(runs)
    pretend_to_train(runs.runs[0])
    with pytest.raises(ValueError, match=r"cutoff-2/test.tsv has outputs of 2 actions and is no test of scan-2-none"):
        score_runs(runs)


def accuracies(*rights):
    """Runs that have so many right of two outputs of 4, and of two of 5; one of the third's ends too early."""
    runs = enumerate(rights)
    return [LengthAccuracy(f"run{number}", {4: (a, 2), 5: (b, 2)}, int(number == 2)) for number, (a, b) in runs]


def test_the_table_has_means_and_deviations_over_seeds_beside_what_is_published():
    first, second, third = accuracies((2, 0), (2, 1), (1, 0))
    found = [
        ScanRun(26, "rotary", first, 1.0),
        ScanRun(26, "rotary", second, 0.9),
        ScanRun(22, "rotary", third, None),
        ScanRun(26, "none", third, 0.5),
    ]
    header, _, rotary, none, *published = cells(scan_table(found))
    assert header[1:] == [
        *("longer than 22 actions", "longer than 26 actions"),
        *("as short, held out", "of the wrong, only ended early"),
    ]
    spread = statistics.stdev([50.0, 75.0])
    assert rotary == ["rotary", "25.0", f"62.5 ± {spread:.1f}", f"95.0 ± {statistics.stdev([100, 90]):.1f}", "16.7"]
    assert none == ["none", "-", "25.0", "50.0", "33.3"]
    assert sorted(row[1:3] for row in published) == [["-", "100"], ["58", "82"]]


def test_a_picture_has_a_panel_for_each_cutoff_and_adds_up_seeds():
    first, second, third = accuracies((2, 0), (2, 1), (1, 0))
    found = [ScanRun(26, "rotary", first, 1.0), ScanRun(22, "none", third, 1.0), ScanRun(26, "rotary", second, 1.0)]
    panels = accuracy_panels(found)
    assert list(panels) == [f"learned from outputs of up to {cutoff} actions" for cutoff in (22, 26)]
    (rotary,) = panels["learned from outputs of up to 26 actions"]
    assert (rotary.name, rotary.by_length) == ("rotary", {4: (4, 4), 5: (1, 4)})
