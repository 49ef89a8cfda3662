"""The report of the long tasks: every number where it belongs, and what is absent is said."""

import json

import matplotlib.image
from test_long_runs import BLOCKS, LINEAR, MASKED, PROGRAM, score, synthetic

from hf_vanilla_transformer.lab.complexity import FORWARD, MODES
from hf_vanilla_transformer.lab.long_models import ELU, LOCAL
from hf_vanilla_transformer.lab.long_report import long_lines, long_summary, write_long_report
from hf_vanilla_transformer.lab.long_runs import LENGTHS

SCORES = [
    score(accuracy=0.99),
    score(LOCAL, ceiling=0.55, accuracy=0.3, length=1024),
    score(ELU, task="copy", kept=127, capacity=64, accuracy=0.25, length=256),
]


def cells_of(lines, start):
    """The rows of tables that start with a cell, as lists of cells."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith(f"| {start} |")]


def test_all_files_are_written_and_json_has_every_number(tmp_path):
    measured = synthetic(scores=SCORES)
    write_long_report(measured, {"updates": 7}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.json", "long.md", "long.png"]
    contents = json.loads((tmp_path / "long.json").read_text())
    assert contents.pop("settings") == {"updates": 7}
    assert contents.pop("shape")["d_model"] == 64
    assert contents == measured.as_dict()
    assert (len(contents["scores"]), len(contents["cells"]["copy"])) == (3, 9 * len(LENGTHS))
    assert (tmp_path / "long.md").read_text().splitlines() == long_lines(measured, {"updates": 7})
    assert matplotlib.image.imread(tmp_path / "long.png").ndim == 3


def test_accuracies_stand_beside_what_is_expected():
    lines = long_lines(synthetic(scores=SCORES), {})
    assert cells_of(lines, "full") == [
        ["full", "128", "512", "16", "all", "6.2", "100.0", "100.0", "99.0", "yes"],
    ]
    assert cells_of(lines, LOCAL) == [[LOCAL, "128", "1024", "16", "all", "6.2", "55.0", "55.0", "30.0", "no"]]
    assert cells_of(lines, ELU)[0] == [ELU, "128", "256", "127", "64", "6.2", "100.0", "less", "25.0", "yes"]


def test_steps_have_exponents_times_and_memory_and_what_is_absent_is_said():
    lines = long_lines(synthetic(), {})
    exponents, milliseconds, peaks, *_ = cells_of(lines, MASKED)
    assert exponents[2:] == ["1.50", "2", "2.00"]
    assert milliseconds == [MASKED, *(f"{1e-3 * n**1.5:,.1f}" for n in LENGTHS)]
    assert peaks == [MASKED, *(f"{1000 * n**2 / 2**20:,.1f}" for n in LENGTHS)]
    assert len(cells_of(lines, PROGRAM)) == len(cells_of(lines, LINEAR[1])) == 3 * len(MODES)
    assert cells_of(lines, BLOCKS)[-1][:2] == [BLOCKS, "absent: flex attention has no backward pass on a CPU"]
    assert not any("absent" in line for line in long_lines(synthetic(programs=(PROGRAM,)), {}))
    assert f"| {PROGRAM} |{' - |' * len(LENGTHS)}" in long_lines(synthetic(peak=lambda length: None), {})


def test_a_part_alone_is_reported_alone(tmp_path):
    only_scores = synthetic(programs=(), scores=SCORES[:2])
    only_scores.cells.clear()
    lines = long_lines(only_scores, {})
    assert [line for line in lines if line.startswith("#")][1:] == ["## Retrieval"]
    write_long_report(only_scores, {}, tmp_path)
    headings = [line for line in long_lines(synthetic(), {}) if line.startswith("#")][1:]
    assert headings == ["## Copy", *(f"### {mode.capitalize()}" for mode in MODES)]


def test_the_summary_counts_what_is_as_expected_and_has_an_exponent_for_each_program():
    line = long_summary(synthetic(scores=SCORES))
    assert line.startswith("2 of 3 accuracies as expected; exponents of time over length, forward: copy, ")
    (masked,) = (each for each in synthetic().growths() if (each.program, each.mode) == (MASKED, FORWARD))
    assert f"copy, {MASKED} 1.50 (predicted {masked.expected_time:.2f})" in line
