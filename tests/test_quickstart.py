"""The quickstart, whole but small; and as a user runs it, in a slow test."""

import subprocess
import sys
from pathlib import Path

import pytest

from hf_vanilla_transformer.lab.quickstart import quickstart

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def test_a_short_run_learns_something_and_reloads_equal(tmp_path):
    said = []
    result = quickstart(
        SCRIPTS.parent / "hf_vanilla_transformer" / "recipes" / "quickstart.yaml",
        tmp_path,
        train_pairs=640,
        held_out=20,
        say=said.append,
    )
    assert result.reload_is_equal
    assert result.held_out == 20
    assert 0 <= result.exact_match <= 1
    assert [line[:2] for line in said if line[0].isdigit()] == ["1.", "2.", "3.", "4.", "5."]
    assert "equal" in said[-1]


@pytest.mark.slow
def test_the_script_learns_to_read_dates(tmp_path):
    """Takes about a minute and a half."""
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "quickstart.py"), "--output_dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    exact = float(done.stdout.split("Done in ")[1].split(": ")[1].split("%")[0])
    assert exact >= 95
    assert "reloaded with AutoModelForSeq2SeqLM: equal" in done.stdout
