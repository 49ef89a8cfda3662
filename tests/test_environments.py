"""Environments with another transformers: which version is meant, what is installed, and when one is used again."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commanding import save_translator
from test_pair_scores import build

from hf_vanilla_transformer.data.unit_tokenizer import train_unit_tokenizer
from hf_vanilla_transformer.modeling_compatibility import NEWEST_TESTED_TRANSFORMERS, OLDEST_TRANSFORMERS
from hf_vanilla_transformer.publishing import environments, save_self_contained
from hf_vanilla_transformer.publishing.environments import python_with_transformers, transformers_version
from hf_vanilla_transformer.publishing.proof import expected_translations, prove_folder

CONSTRAINTS = Path(__file__).resolve().parents[1] / ".ci" / "constraints.txt"


def test_versions_have_names_and_numbers():
    assert transformers_version("oldest") == "{}.{}".format(*OLDEST_TRANSFORMERS)
    assert transformers_version("newest") == "{}.{}".format(*NEWEST_TESTED_TRANSFORMERS)
    assert [transformers_version(each) for each in ("5.20", "5.20.2")] == ["5.20", "5.20.2"]


@pytest.mark.parametrize("version", ["", "5", "latest", "5.18.*", ">=5.18", "5.18 --pre", "5.18.0.dev0"])
def test_what_is_no_version_is_refused(version):
    with pytest.raises(ValueError, match="is not a version of transformers; allowed: oldest .5.18., newest"):
        transformers_version(version)


@pytest.fixture
def commands(monkeypatch):
    """The commands that would have been run; `fails` are words of which one in a command makes it fail."""
    run = SimpleNamespace(commands=[], fails=())

    def pretend(command, **options):
        run.commands.append(command)
        if any(word in command for word in run.fails):
            return SimpleNamespace(returncode=1, stdout="", stderr="notes\nERROR: no such release\n\n")
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    monkeypatch.setattr(environments.subprocess, "run", pretend)
    return run


def test_an_environment_has_torch_and_transformers_and_is_made_once(tmp_path, commands):
    python = python_with_transformers("5.18", tmp_path)
    make, install = commands.commands
    assert make[:3] == [sys.executable, "-m", "venv"]
    assert install[0] == str(python)
    assert install[-2:] == ["torch", "transformers==5.18.*"]
    assert python.is_relative_to(tmp_path)
    assert python_with_transformers("5.18", tmp_path) == python
    assert len(commands.commands) == 2
    other = python_with_transformers("5.18.1", tmp_path)
    assert commands.commands[-1][-1] == "transformers==5.18.1"
    assert other != python


def test_constraints_are_handed_on_and_others_make_another_environment(tmp_path, commands):
    places = set()
    for content in (None, "torch==2.13.0", "torch==2.12.0"):
        file = tmp_path / "constraints.txt"
        file.write_text(content or "")
        places.add(python_with_transformers("5.18", tmp_path / "kept", file if content else None))
        assert ("--constraint" in commands.commands[-1]) == (content is not None)
    assert len(places) == 3
    assert commands.commands[-1][commands.commands[-1].index("--constraint") + 1] == str(file)


def test_one_that_was_not_finished_is_made_again(tmp_path, commands):
    commands.fails = ("install",)
    with pytest.raises(ValueError, match=r"could be made in .*5.18.*: -m pip install says: ERROR: no such"):
        python_with_transformers("5.18", tmp_path)
    commands.fails = ()
    commands.commands.clear()
    python_with_transformers("5.18", tmp_path)
    assert "--clear" in commands.commands[0]
    assert len(commands.commands) == 2


@pytest.mark.slow  # minutes: makes an environment with pip, and needs its index
def test_folders_are_proven_on_the_oldest_transformers_without_the_package(tmp_path):
    """One with a tokenizer that needs no code, and one with a tokenizer that has code."""
    python = python_with_transformers(transformers_version("oldest"), tmp_path, CONSTRAINTS)
    model, tokenizer = save_translator(tmp_path / "run")
    rows = [{"source": "né a", "target": "n e a"}]
    with_code = train_unit_tokenizer(rows, source_units="nfd_characters", target_units="words", tags=["<ipa>"])
    for name, each in (("plain", tokenizer), ("code", with_code)):
        translator = model if each is tokenizer else build(each)
        save_self_contained(translator, tmp_path / name, each)
        sentences = ["a b", "<ipa> né"]
        expected = expected_translations(translator, each, sentences)
        proof = prove_folder(tmp_path / name, sentences, expected, python, "an environment")
        assert proof.transformers.startswith("{}.{}.".format(*OLDEST_TRANSFORMERS))
        assert not proof.was_hidden
    done = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True)
    assert "vanilla" not in done.stdout
