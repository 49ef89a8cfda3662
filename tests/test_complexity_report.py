"""The report of the measured Table 1: every number where it belongs, beside what the paper states."""

import dataclasses
import json

import matplotlib.image
from test_complexity import synthetic

from hf_vanilla_transformer.lab.complexity import FORWARD, MODES
from hf_vanilla_transformer.lab.complexity_layers import (
    ABSENT,
    EAGER,
    LAYER_TYPES,
    LINEAR,
    NO_BACKWARD,
    SDPA,
    TABLE_1,
    WINDOWED,
)
from hf_vanilla_transformer.lab.complexity_report import (
    claim_lines,
    complexity_lines,
    complexity_summary,
    write_complexity_report,
)


def test_all_files_are_written_and_json_has_every_number(tmp_path):
    measured = synthetic()
    write_complexity_report(measured, {"repeats": 3}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["complexity.json", "complexity.md", "complexity.png"]
    contents = json.loads((tmp_path / "complexity.json").read_text())
    assert contents.pop("settings") == {"repeats": 3}
    assert contents == measured.as_dict()
    assert (contents["d_model"], contents["threads"], len(contents["cells"])) == (512, 2, 2 * 7 * 4)
    assert contents["absent"]["layer"] == ABSENT[0]
    assert (tmp_path / "complexity.md").read_text().splitlines() == complexity_lines(measured, {"repeats": 3})
    assert matplotlib.image.imread(tmp_path / "complexity.png").ndim == 3


def test_tables_have_a_row_for_each_layer_and_say_which_is_absent():
    lines = complexity_lines(synthetic(), {})
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith(f"| {EAGER} |")]
    exponents, milliseconds, peaks, *_ = rows
    assert exponents == [EAGER, "n² · d", "2", "1.58", "2.00", "1.00"]
    assert milliseconds == [EAGER, *(f"{1e-3 * n**2:,.2f}" for n in (64, 128, 256, 512, 1024, 2048, 4096))]
    assert peaks == [EAGER, *(f"{1000 * n / 2**20:,.1f}" for n in (64, 128, 256, 512, 1024, 2048, 4096))]
    assert len(rows) == 3 * len(MODES)
    assert sum(line.startswith(f"| {ABSENT[0]} | {ABSENT[1]} | 1 | absent: ") for line in lines) == len(MODES)
    widths = [line.count("|") for line in lines if line.startswith("|")]
    assert set(widths) == {3, 7, 9}


def test_claims_are_of_lengths_below_the_width():
    """Of times n and n², a GRU takes 1/n of attention's."""
    first, second = claim_lines(synthetic())[2:]
    assert first.endswith("over that of attention (sdpa): 0.02 at 64, 0.01 at 128, 0.00 at 256 |")
    assert "1.00 times the GRU's time at n = 4096" in second
    assert "0.50 times its operations" in second
    assert "no length is below d" in claim_lines(synthetic(lengths=(512, 1024, 2048)))[2]


def test_the_summary_has_an_exponent_for_each_layer():
    line = complexity_summary(synthetic())
    for name in TABLE_1:
        layer = LAYER_TYPES[name]
        assert f"{name} {layer.exponent:.2f} (stated {layer.exponent})" in line


def test_without_memory_there_is_a_dash():
    assert f"| {EAGER} |{' - |' * 7}" in complexity_lines(synthetic(peak=lambda length: None), {})


def test_other_layers_have_rows_and_no_claims_of_those_that_are_missing(tmp_path):
    measured = synthetic(layers=(SDPA, WINDOWED, LINEAR))
    write_complexity_report(measured, {}, tmp_path)
    lines = (tmp_path / "complexity.md").read_text().splitlines()
    assert not any("claimed" in line or ABSENT[3] in line for line in lines)
    rows = [line for line in lines if line.startswith((f"| {LINEAR} |", f"| {WINDOWED} |"))]
    assert len(rows) == 2 * 3 * len(MODES)
    assert "absent" not in json.loads((tmp_path / "complexity.json").read_text())


def test_a_layer_without_a_backward_pass_says_so_in_its_place():
    measured = synthetic(layers=(SDPA, WINDOWED))
    kept = [cell for cell in measured.cells if cell.mode == FORWARD or cell.layer != WINDOWED]
    lines = complexity_lines(dataclasses.replace(measured, cells=kept), {})
    windowed = [line for line in lines if line.startswith(f"| {WINDOWED} |")]
    assert windowed[-1] == f"| {WINDOWED} | r · n · d | 1 | {NO_BACKWARD} | | |"
    assert len(windowed) == 3 + 1
    assert not any(NO_BACKWARD in line for line in complexity_lines(measured, {}))
