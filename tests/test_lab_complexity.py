"""The command `lab-complexity`: its files, and what it says of options that will not do."""

import pytest
from commanding import run

from hf_vanilla_transformer.commands.lab_complexity import main


def test_a_folder_and_a_line_come_of_it(tmp_path):
    out = tmp_path / "out"
    shape = ["--d_model", 8, "--num_heads", 2, "--lengths", 2, 4, 8, "--repeats", 1]
    done = run(main, "--output_dir", out, *shape, "--no_memory")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("exponents of time over length, forward: self-attention, eager")
    assert done.stdout.endswith(f"all in {out}/complexity.md\n")
    assert sorted(path.name for path in out.iterdir()) == ["complexity.json", "complexity.md", "complexity.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lengths", 64, 128], "`lengths` 64 128 are not allowed"),
        (["--repeats", 0], "`repeats`=0 is not allowed"),
        (["--num_heads", 3], "`d_model`=512"),
    ],
)
def test_what_will_not_do_is_said_in_one_line_and_leaves_nothing(tmp_path, options, message):
    assert message in run(main, "--output_dir", tmp_path / "out", *options).error
    assert list(tmp_path.iterdir()) == []
