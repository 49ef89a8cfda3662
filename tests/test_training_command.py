"""A run as a program: what its exit status says. Signals: test_resume.py; the scripts themselves: test_scripts.py."""

import pytest
from training_runs import flags, options, write_text

from hf_vanilla_transformer.commands import training as command_line
from hf_vanilla_transformer.commands.training import run_command


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


def test_a_run_that_ends_prints_three_lines_and_returns_0(text, tmp_path, capsys):
    assert run_command(flags(options(text, tmp_path, max_steps=1, eval_strategy="no"))) == 0
    trained, validation, try_it = capsys.readouterr().out.strip().splitlines()[-3:]
    assert trained.startswith("Trained ")
    assert validation.startswith("Validation (last update): ")
    assert try_it.startswith("Try it: ")


@pytest.mark.parametrize(("error", "status"), [(FloatingPointError("not finite"), 1), (OSError("disk full"), 2)])
def test_what_goes_wrong_while_training_is_one_line_and_a_status(error, status, text, tmp_path, capsys, monkeypatch):
    def train(run, args):
        raise error

    monkeypatch.setattr(command_line, "train", train)
    assert run_command(flags(options(text, tmp_path, max_steps=1))) == status
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {error}"


def test_what_a_script_needs_is_asked_for(text, tmp_path, capsys):
    assert run_command(flags(options(text, tmp_path)), required=("model_name_or_path",)) == 2
    assert "model_name_or_path is needed; see --help" in capsys.readouterr().err
