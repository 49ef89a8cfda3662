"""A run as a program: what its exit status says. Signals: test_resume.py; the scripts themselves: test_scripts.py."""

import signal

import pytest
from training_runs import flags, options, write_text

from hf_vanilla_transformer.commands import training as command_line
from hf_vanilla_transformer.commands.training import run_command
from hf_vanilla_transformer.training.run import TrainingResult


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


def test_a_run_that_ends_prints_three_lines_and_returns_0_when_all_processes_are_done(
    text, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(command_line, "leave_together", lambda: print("all done"))
    assert run_command(flags(options(text, tmp_path, max_steps=1, eval_strategy="no"))) == 0
    trained, validation, try_it, last = capsys.readouterr().out.strip().splitlines()[-4:]
    assert last == "all done"
    assert run_command(flags(options(text, tmp_path / "prepared", prepare_only=True))) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == "all done"
    assert trained.startswith("Trained ")
    assert validation.startswith("Validation (last update): ")
    assert try_it.startswith("Try it: ")


@pytest.mark.parametrize(
    ("error", "status"),
    [(FloatingPointError("not finite"), 1), (OSError("disk full"), 2), (ImportError("needs bits"), 2)],
)
def test_what_goes_wrong_while_training_is_one_line_and_a_status(error, status, text, tmp_path, capsys, monkeypatch):
    def train(run, args):
        raise error

    monkeypatch.setattr(command_line, "train", train)
    assert run_command(flags(options(text, tmp_path, max_steps=1)), "verb") == status
    assert capsys.readouterr().err.splitlines()[-1] == f"verb: error: {error}"


@pytest.mark.parametrize("only_model", [False, True])
def test_what_was_stopped_says_how_to_go_on(only_model, text, tmp_path, capsys, monkeypatch):
    stopped = TrainingResult(None, None, {"updates": 7}, [], signal.SIGTERM)
    monkeypatch.setattr(command_line, "train", lambda run, args: stopped)
    assert run_command(flags(options(text, tmp_path, max_steps=9, save_only_model=only_model))) == 0
    said = capsys.readouterr().out
    assert f"Stopped after update 7; everything is saved in {tmp_path}." in said
    assert ("--resume_from_checkpoint last" in said) is not only_model
    assert ("--model_name_or_path" in said) is only_model


def test_what_a_script_needs_is_asked_for(text, tmp_path, capsys):
    assert run_command(flags(options(text, tmp_path)), "verb", required=("model_name_or_path",)) == 2
    assert "model_name_or_path is needed; see verb --help" in capsys.readouterr().err


def test_an_interruption_while_saving_is_one_line(text, tmp_path, capsys, monkeypatch):
    def train(run, args):
        raise KeyboardInterrupt

    def train_and_save(run, args):
        (tmp_path / "checkpoint-3").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "train", train)
    assert run_command(flags(options(text, tmp_path, max_steps=1)), "verb") == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "verb: interrupted before it could save", "there is nothing to resume from"
    monkeypatch.setattr(command_line, "train", train_and_save)
    assert run_command(flags(options(text, tmp_path, max_steps=1)), "verb") == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("verb: interrupted before it could save; --resume_from_checkpoint last")
    assert str(tmp_path) in line


def test_output_that_nobody_reads_is_no_error(text, tmp_path, monkeypatch, capfd):
    def summary(*args):
        raise BrokenPipeError

    monkeypatch.setattr(command_line, "summary_lines", summary)
    monkeypatch.setattr(command_line, "send_to_nobody", lambda stream: None)
    assert run_command(flags(options(text, tmp_path, max_steps=1, eval_strategy="no"))) == 141
    assert "rror" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config_overrides": ["dropuot=0.1"]}, "no field 'dropuot'; did you mean dropout?"),
        ({"config_overrides": ["vocab_size=77"]}, "config_overrides: vocab_size=77 is less than the 300 tokens"),
        ({"config_overrides": ["dropout=high"]}, "dropout"),
        ({"eval_strategy": "sometimes"}, "sometimes is not a valid IntervalStrategy"),
        ({"lr_scheduler_type": "quadratic"}, "quadratic is not a valid SchedulerType"),
        ({"output_dir": "{file}"}, "{file}"),
        ({"output_dir": "{file}/below"}, "{file}"),
        ({"output_dir": ""}, "output_dir is needed"),
        ({"model_name_or_path": "{out}", "preset": None, "vocab_size": None}, "is the folder of model_name_or_path"),
        ({"model_name_or_path": "x"}, "preset and vocab_size would have no effect"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_trained(changes, message, text, tmp_path, capsys):
    places = {"file": tmp_path / "file", "out": tmp_path / "out"}
    places["file"].write_text("keep me")
    changes = {name: value.format(**places) if isinstance(value, str) else value for name, value in changes.items()}
    values = {**options(text, places["out"]), **changes}
    assert run_command(flags({name: value for name, value in values.items() if value is not None}), "verb") == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith("verb: error: ")
    assert message.format(**places) in errors[-1]
    assert len([line for line in errors if "rror" in line or "Traceback" in line]) == 1
    assert places["file"].read_text() == "keep me"
    assert not (places["out"] / "model.safetensors").exists()
