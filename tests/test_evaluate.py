"""The command `evaluate`: its files, its test sets, and what it says of options and input that will not do."""

import json

import pytest
from commanding import run, save_translator

from hf_vanilla_transformer.commands import evaluate as command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_translator(folder)
    return folder


@pytest.fixture
def texts(tmp_path):
    for name, lines in {"en": ["a b", "c", "a"], "de": ["A B", "C", "A"], "out": ["A B", "B", "A"]}.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    return tmp_path


def test_outputs_are_replaced_when_they_are_complete_and_stay_after_an_error(folder, texts, monkeypatch):
    report, saved = texts / "report.json", texts / "saved"
    for path in (report, saved):
        path.write_text("earlier\n")
    options = ["--model", folder, "--source", texts / "en", "--references", texts / "de", "--output", report,
               "--save_translations", saved, "--no_ter"]  # fmt: skip

    def fails(*_, **__):
        raise ValueError("half-way")

    with monkeypatch.context() as patch:
        patch.setattr(command, "system_of_model", fails)
        assert run(command.main, *options).error == "half-way"
    assert [path.read_text() for path in (report, saved)] == ["earlier\n"] * 2
    with monkeypatch.context() as patch:
        patch.setattr(command, "compare_systems", fails)
        assert run(command.main, *options).error == "half-way"
    assert report.read_text() == "earlier\n"
    assert saved.read_text().count("\n") == 3  # translations that are complete are kept
    assert run(command.main, *options).returncode == 0
    assert json.loads(report.read_text())["sentences"] == 3
    assert not list(texts.glob("*.partial"))


def test_an_output_that_cannot_be_written_is_said_before_the_long_work(folder, texts, monkeypatch):
    monkeypatch.setattr(command, "system_of_model", None)
    options = ["--model", folder, "--source", texts / "en", "--references", texts / "de"]
    for option in ("--output", "--save_translations"):
        assert "none/out" in run(command.main, *options, option, texts / "none" / "out").error


@pytest.mark.parametrize("value", [0, -3])
def test_beams_below_1_are_refused_by_name(folder, texts, value):
    options = ["--model", folder, "--source", texts / "en", "--references", texts / "de", "--num_beams", value]
    assert run(command.main, *options).error.startswith(f"`num_beams`={value} is not allowed")
