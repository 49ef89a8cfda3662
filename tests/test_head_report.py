"""The report of a head analysis: numbers as they were found, in the order of the losses, beside what papers claim."""

import json

import matplotlib.image
import pytest
from test_head_losses import finding

from hf_vanilla_transformer.evaluation import Score
from hf_vanilla_transformer.lab.head_losses import HeadAnalysis
from hf_vanilla_transformer.lab.head_report import claim_lines, head_lines, head_summary, write_head_report


def analysis(interval=0.5):
    shares = {"previous": 0.1, "same": 0.2, "following": 0.3, "most_previous": 0.91, "most_following": 0.0, "end": 0.4}
    findings = [
        finding(0.25, interval, 0.85, "encoder", 1, **shares),
        finding(-2.0, interval, 0.4, "encoder", 2, **shares),
        finding(1.5, interval, 0.4, "decoder", 1, previous=0.7, same=0.1, most_previous=0.2, start=0.6),
        finding(4.0, interval, 0.3, "cross", 1, end=0.05),
    ]
    return HeadAnalysis(Score(30.0, "nrefs:1", None if interval is None else 2.0), 12, findings)


def test_all_files_are_written_and_json_has_every_number(tmp_path):
    found = analysis()
    write_head_report(found, {"model": "m", "seconds": 3}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heads.json", "heads.md", "heads.png"]
    contents = json.loads((tmp_path / "heads.json").read_text())
    assert contents.pop("settings") == {"model": "m", "seconds": 3}
    assert contents == found.as_dict()
    assert [each["loss"] for each in contents["heads"]] == [0.25, -2.0, 1.5, 4.0]
    assert contents["heads"][0]["position"] == "previous"
    assert (tmp_path / "heads.md").read_text().splitlines() == head_lines(found, {"model": "m", "seconds": 3})
    assert matplotlib.image.imread(tmp_path / "heads.png").ndim == 3


def test_the_table_is_ranked_and_empty_where_a_kind_has_no_such_share():
    rows = [line.strip("|").split("|") for line in head_lines(analysis(), {}) if line.startswith(("| 1", "| 2", "| 3"))]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells == [
        ["1", "cross 1.1", "+4.00 ± 0.50 *", "0.30", "1.00", "", "", "", "0.05", "", ""],
        ["2", "decoder 1.1", "+1.50 ± 0.50 *", "0.40", "1.00", "0.70", "0.10", "", "", "0.60", ""],
        ["3", "encoder 1.1", "+0.25 ± 0.50", "0.85", "1.00", "0.10", "0.20", "0.30", "0.40", "", "previous"],
    ]


def test_claims_stand_beside_what_was_measured():
    measured = [line.split("|")[2].strip() for line in claim_lines(analysis())[2:]]
    assert measured == [
        "1 of 2 at the 95 % level, 1 of them by a higher BLEU",
        "2 of 2",
        "1 of 4 heads of all kinds",
        "rank correlation of confidence and loss: encoder +1.00, decoder undefined, cross undefined",
        "mean BLEU lost by a head: encoder -0.88, decoder +1.50, cross +4.00",
    ]


@pytest.mark.parametrize(("interval", "end"), [(0.5, "; 3 losses differ from 0"), (None, "(-2.00)")])
def test_the_summary_is_one_line(interval, end):
    line = head_summary(analysis(interval))
    assert line.startswith("4 heads, BLEU 30.00 with all: most is lost without cross 1.1 (+4.00")
    assert "least without encoder 1.2 (-2.00" in line
    assert line.endswith(end)


def test_without_samples_nothing_is_called_significant():
    found = analysis(None)
    assert "not tested" in claim_lines(found)[2]
    assert not any("±" in line and line.startswith("| 1") for line in head_lines(found, {}))
