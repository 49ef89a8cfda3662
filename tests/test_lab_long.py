"""The command `lab-long`: its files, and what it says of options that will not do."""

import functools
import json

import pytest
from commanding import run

from hf_vanilla_transformer.commands import lab_long
from hf_vanilla_transformer.commands.lab_long import main
from hf_vanilla_transformer.lab.long_models import FULL, SHAPE


@pytest.fixture
def small(monkeypatch):
    """One attention, and models and tests of a tenth of the size."""
    for field, value in {"d_model": 16, "d_ff": 16, "num_decoder_layers": 1}.items():
        monkeypatch.setitem(SHAPE, field, value)
    monkeypatch.setattr(lab_long, "ATTENTIONS", [FULL])
    monkeypatch.setattr(lab_long, "learn", functools.partial(lab_long.learn, positions=64, tested_positions=128))


def test_a_folder_and_a_line_come_of_it(tmp_path, small):
    out = tmp_path / "out"
    sizes = ["--lengths", 52, 56, 64, "--copy_lengths", 8, "--retrieval_lengths", 52, "--updates", 1, "--repeats", 1]
    done = run(main, "--output_dir", out, *sizes, "--programs", "full", "linear", "--no_memory")
    assert done.returncode == 0, done.stderr
    assert " of 4 accuracies as expected; exponents of time over length, forward: copy, full (sdpa) " in done.stdout
    assert done.stdout.endswith(f"all in {out}/long.md\n")
    assert sorted(path.name for path in out.iterdir()) == ["long.json", "long.md", "long.png"]
    scores = json.loads((out / "long.json").read_text())["scores"]
    assert [(score["task"], score["trained_length"], score["length"]) for score in scores] == [
        ("copy", 8, 8), ("retrieval", 52, 52), ("retrieval", 52, 56), ("retrieval", 52, 64),
    ]  # fmt: skip


def test_one_part_of_one_task_can_be_chosen(tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(lab_long, "learn", pytest.fail)
    sizes = ["--lengths", 4, 6, 8, "--repeats", 1, "--programs", "random", "--no_memory"]
    done = run(main, "--output_dir", out, "--tasks", "copy", "--parts", "steps", *sizes)
    assert done.returncode == 0, done.stderr
    contents = json.loads((out / "long.json").read_text())
    assert (list(contents["cells"]), contents["scores"]) == (["copy"], [])
    assert contents["settings"]["repeats"] == 1
    assert not {"updates", "seed"} & set(contents["settings"]), "nothing was learned"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lengths", 64, 128], "`lengths` 64 128 are not allowed"),
        (["--retrieval_lengths", 32], "the task 'retrieval' has no texts of 32 tokens"),
        (["--copy_lengths", 64, 32], "`copy_lengths` 64 32 are not allowed"),
        (["--updates", 0], "`updates`=0 is not allowed"),
        (["--repeats", 0], "`repeats`=0 is not allowed"),
        (["--parts", "steps", "--updates", 5], "--updates has no effect without --parts learn"),
        (["--parts", "steps", "--copy_lengths", 8], "--copy_lengths has no effect without --parts learn"),
        (["--parts", "learn", "--programs", "full"], "--programs has no effect without --parts steps"),
        (["--parts", "learn", "--no_memory"], "--no_memory has no effect without --parts steps"),
        (["--tasks", "copy", "--retrieval_lengths", 64], "--retrieval_lengths has no effect without --tasks retrieval"),
        (
            ["--tasks", "copy", "--parts", "learn", "--lengths", 4, 6, 8],
            "--lengths has no effect without --parts steps",
        ),
    ],
)
def test_what_will_not_do_is_said_in_one_line_and_leaves_nothing(tmp_path, options, message):
    assert message in run(main, "--output_dir", tmp_path / "out", *options).error
    assert list(tmp_path.iterdir()) == []
