"""Checkpoints that come with a clone: found by name, behind what a person has and before the Hub."""

from pathlib import Path

import pytest
from commanding import run, save_translator

from hf_vanilla_transformer.commands import translate as command
from hf_vanilla_transformer.inference import (
    default_translator,
    load_translator,
    shipped,
    shipped_checkpoints,
    translate,
)
from hf_vanilla_transformer.inference.shipped import DEFAULT_TRANSLATOR

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder model_cards with the default checkpoint in it, and an empty one to work in."""
    save_translator(tmp_path / "model_cards" / DEFAULT_TRANSLATOR)
    (tmp_path / "model_cards" / "README.md").write_text("an index\n")
    (tmp_path / "model_cards" / "unfinished").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path / "model_cards")
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "model_cards"


def test_translate_needs_no_model_in_a_clone(clone):
    done = run(command.main, "--quiet", "a b")
    assert done.returncode == 0
    expected = translate(*load_translator([clone / DEFAULT_TRANSLATOR]), ["a b"])
    assert done.stdout == "".join(f"{line}\n" for line in expected)
    assert run(command.main, "--quiet", "--model", DEFAULT_TRANSLATOR, "a b").stdout == done.stdout


def test_only_whole_checkpoints_have_a_name(clone):
    assert shipped_checkpoints() == {DEFAULT_TRANSLATOR: clone / DEFAULT_TRANSLATOR}
    error = run(command.main, "--model", "unfinished", "a").error
    assert "there is no folder unfinished" in error


def test_a_folder_of_ones_own_comes_before_a_shipped_one(clone, tmp_path):
    own = tmp_path / "elsewhere" / DEFAULT_TRANSLATOR
    own.mkdir()
    assert "has no model" in run(command.main, "--model", DEFAULT_TRANSLATOR, "a").error


def test_a_wheel_says_where_the_checkpoint_is(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path / "site-packages" / "model_cards")
    with pytest.raises(FileNotFoundError, match="model_cards of the source repository"):
        default_translator()
    done = run(command.main, "a")
    assert done.returncode == 2
    assert DEFAULT_TRANSLATOR in done.error
    assert "no model was named" in done.error


def test_the_default_is_one_of_those_that_a_clone_brings():
    """Of this repository, where the tests run."""
    assert (PROJECT / "model_cards" / DEFAULT_TRANSLATOR / "config.json").is_file()
    assert default_translator() == DEFAULT_TRANSLATOR
