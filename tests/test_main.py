"""The installed command: its verbs, its help, and what it says to a mistyped one."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hf_vanilla_transformer
from hf_vanilla_transformer.commands import main as command
from hf_vanilla_transformer.commands.main import VERBS, main

PROJECT = Path(__file__).resolve().parents[1]


def test_verbs_are_the_commands_and_the_scripts():
    modules = {module for module, _ in VERBS.values()}
    scripts = {path.stem.replace("average_checkpoints", "average") for path in (PROJECT / "scripts").glob("*.py")}
    assert modules == scripts
    for verb, (module, _) in VERBS.items():
        assert verb == module.replace("_", "-")
        assert callable(importlib.import_module(f"hf_vanilla_transformer.commands.{module}").main)


def test_help_has_a_line_for_each_verb(capsys):
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    for verb, (_, text) in VERBS.items():
        (line,) = [line for line in output.splitlines() if line.split()[:1] == [verb]]
        assert line.endswith(text)
    assert max(map(len, output.splitlines())) <= 120
    assert "vanilla-transformer pretrain" in output


def test_without_a_verb_help_is_an_error(capsys):
    assert main([]) == 2
    output = capsys.readouterr()
    assert (output.out, "usage: vanilla-transformer VERB" in output.err) == ("", True)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == hf_vanilla_transformer.__version__


@pytest.mark.parametrize(
    ("verb", "hint"),
    [
        ("pretrian", "did you mean pretrain?"),
        ("train_tokenizer", "did you mean train-tokenizer?"),
        ("finetuning", "did you mean finetune?"),
        ("xyzzy", f"the verbs are {', '.join(VERBS)}"),
        ("--verbose", "the verbs are"),
    ],
)
def test_an_unknown_verb_is_one_line(verb, hint, capsys):
    assert main([verb, "--help"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vanilla-transformer: error: unknown verb {verb!r}; ")
    assert hint in line


def test_a_verb_gets_the_words_after_it_and_its_name(monkeypatch):
    module = importlib.import_module("hf_vanilla_transformer.commands.translate")
    called = []
    monkeypatch.setattr(module, "main", lambda argv, prog: called.append((argv, prog)) or 7)
    assert main(["translate", "--model", "m", "a b"]) == 7
    monkeypatch.setattr(sys, "argv", ["x", "translate", "c"])
    assert main(prog="other") == 7
    assert called == [(["--model", "m", "a b"], "vanilla-transformer translate"), (["c"], "other translate")]


OTHERS = {"translate", "score", "evaluate", "convert", "export"}  # which have tests of their own for this


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in OTHERS])
def test_help_of_a_verb_says_what_it_does_and_has_an_example_of_what_to_type(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    output = capsys.readouterr().out
    assert output.startswith(f"usage: vanilla-transformer {verb} ")
    module = importlib.import_module(f"hf_vanilla_transformer.commands.{VERBS[verb][0]}")
    assert inspect.getdoc(module).splitlines()[0] in " ".join(output.split())
    assert f"  vanilla-transformer {verb}" in output
    assert "scripts/" not in output


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in OTHERS])
def test_a_mistyped_option_of_a_verb_is_one_line(verb, capsys):
    with pytest.raises(SystemExit) as caught:
        main([verb, *(["loss"] if verb == "benchmark" else []), "--hepl"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vanilla-transformer {verb}")
    assert "error: unknown option --hepl; did you mean --help?" in line


def test_the_verbs_are_imported_when_they_are_needed():
    """In a process of its own: here, all of them have been imported."""
    code = (
        "import sys; from hf_vanilla_transformer.commands.main import main; main(['--help']); main(['pretrian'])\n"
        "print([name for name in ('datasets', 'sacrebleu', 'hf_vanilla_transformer.training')"
        " if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_package_is_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "hf_vanilla_transformer", "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout == command.describe_verbs()


def test_what_is_installed_is_this_command():
    project = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    (place,) = re.findall(r'^vanilla-transformer = "([\w.]+:main)"$', project, re.MULTILINE)
    module, name = place.split(":")
    assert getattr(importlib.import_module(module), name) is main
    assert '"recipes/*.yaml"' in project
