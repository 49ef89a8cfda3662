"""The installed command: its verbs, its help, and what it says to a mistyped one."""

import importlib
import inspect
import re
import runpy
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
    renamed = {"average_checkpoints": "average", "queue_runs": "queue"}  # queue.py would hide Python's own
    scripts = {renamed.get(path.stem, path.stem) for path in (PROJECT / "scripts").glob("*.py")}
    assert modules == scripts - {"vanilla_transformer_command"}
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
        main([verb, *{"benchmark": ["loss"], "lab-scan": ["split"]}.get(verb, []), "--hepl"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vanilla-transformer {verb}")
    assert "error: unknown option --hepl; did you mean --help?" in line


def test_help_and_mistyped_verbs_do_not_wait_for_torch():
    code = (
        "import sys; sys.path.append('scripts'); sys.argv = ['', '--help']; import vanilla_transformer_command\n"
        "status = [vanilla_transformer_command.main()]; sys.argv[1] = 'pretrian'\n"
        "status.append(vanilla_transformer_command.main())\n"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules); assert status == [0, 2], status"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
    assert (done.returncode, done.stdout) == (0, command.describe_verbs()), done.stderr
    assert "did you mean pretrain?" in done.stderr


def test_the_installed_command_runs_a_verb(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vanilla-transformer", "plan", "--gpu", "P100"])
    assert runpy.run_path(str(PROJECT / "scripts" / "vanilla_transformer_command.py"))["main"]() == 2
    assert capsys.readouterr().err.startswith("vanilla-transformer plan: error: gpu='P100'")


def test_the_package_is_a_program(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hf_vanilla_transformer", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("hf_vanilla_transformer", run_name="__main__")
    assert capsys.readouterr().out == command.describe_verbs()


def test_what_is_installed_is_this_command_and_the_recipes():
    project = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    (place,) = re.findall(r'^vanilla-transformer = "([\w.]+):main"$', project, re.MULTILINE)
    assert (PROJECT / "scripts" / f"{place}.py").exists()
    assert f'py-modules = ["{place}"]' in project
    assert '"recipes/*.yaml"' in project


def test_ctrl_c_while_libraries_are_imported_is_one_line(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(command.importlib, "import_module", interrupted)
    assert main(["translate", "--model", "x"]) == 130
    assert capsys.readouterr().err == "vanilla-transformer translate: interrupted\n"
