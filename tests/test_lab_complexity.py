"""The command `lab-complexity`: its files, and what it says of options that will not do."""

import functools

import pytest
from commanding import run

from hf_vanilla_transformer.commands import lab_complexity
from hf_vanilla_transformer.commands.lab_complexity import main
from hf_vanilla_transformer.lab.feature_errors import measure_feature_errors


def test_a_folder_and_a_line_come_of_it(tmp_path):
    out = tmp_path / "out"
    shape = ["--d_model", 8, "--num_heads", 2, "--lengths", 2, 4, 8, "--repeats", 1]
    done = run(main, "--output_dir", out, *shape, "--no_memory")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("exponents of time over length, forward: self-attention, eager")
    assert done.stdout.endswith(f"all in {out}/complexity.md\n")
    assert sorted(path.name for path in out.iterdir()) == ["complexity.json", "complexity.md", "complexity.png"]


def test_layers_are_chosen_and_random_features_measured_by_options(tmp_path, monkeypatch):
    small = functools.partial(measure_feature_errors, length=20, width=4, samples=2)
    monkeypatch.setattr(lab_complexity, "measure_feature_errors", small)
    out = tmp_path / "out"
    shape = ["--d_model", 8, "--num_heads", 2, "--lengths", 2, 4, 8, "--repeats", 1, "--no_memory"]
    done = run(main, "--output_dir", out, *shape, "--layers", "sdpa", "linear", "--random_features", 4, 8)
    assert done.returncode == 0, done.stderr
    assert "sdpa" in done.stdout
    assert "linear attention " in done.stdout
    assert "GRU" not in done.stdout
    endings = ("json", "md", "png")
    expected = [f"{name}.{ending}" for name in ("complexity", "features") for ending in endings]
    assert sorted(path.name for path in out.iterdir()) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--random_features", 8, "--lengths", 1, 2, 3], "`random_features` 8 are not allowed"),
        (["--lengths", 64, 128], "`lengths` 64 128 are not allowed"),
        (["--repeats", 0], "`repeats`=0 is not allowed"),
        (["--num_heads", 3], "`d_model`=512"),
    ],
)
def test_what_will_not_do_is_said_in_one_line_and_leaves_nothing(tmp_path, options, message):
    assert message in run(main, "--output_dir", tmp_path / "out", *options).error
    assert list(tmp_path.iterdir()) == []
