"""The quickstart, whole but small; and as a user runs it, in a slow test."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hf_vanilla_transformer.commands import quickstart as command
from hf_vanilla_transformer.lab.quickstart import quickstart
from hf_vanilla_transformer.training.checkpoints import find_damage
from hf_vanilla_transformer.training.interruption import StopOnSignal

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def test_a_short_run_learns_something_and_reloads_equal(tmp_path):
    said = []
    result = quickstart(
        "quickstart",
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


def test_an_interrupted_run_says_what_is_saved_and_goes_no_further(tmp_path, monkeypatch):
    def interrupt(self, args, state, control, **kwargs):
        self.stopped_by = signal.SIGINT
        control.should_save = control.should_training_stop = True

    monkeypatch.setattr(StopOnSignal, "on_step_end", interrupt)
    said = []
    with pytest.raises(KeyboardInterrupt):
        quickstart("quickstart", tmp_path, train_pairs=640, held_out=20, say=said.append)
    assert said[-1].strip() == f"Stopped after update 1; {tmp_path}/checkpoint-1 has everything up to there."
    assert find_damage(tmp_path / "checkpoint-1") is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "quickstart", lambda *args, **kwargs: raise_(KeyboardInterrupt()))
        assert command.main(["--output_dir", str(tmp_path)]) == 130


def raise_(error):
    raise error


@pytest.mark.parametrize("train_pairs", [0, -3, 10**6])
def test_numbers_of_pairs_that_cannot_be_are_one_line(train_pairs, tmp_path, capsys):
    assert command.main(["--train_pairs", str(train_pairs), "--output_dir", str(tmp_path / "out")], "quickstart") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("quickstart: error: ")
    assert str(train_pairs) in line
    assert not (tmp_path / "out").exists()


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
