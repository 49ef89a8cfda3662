"""The command `visualize`: what it writes, and what it refuses."""

import sys

import pytest
from commanding import run, save_translator

from hf_vanilla_transformer.commands.visualize import main
from hf_vanilla_transformer.inference import shipped
from hf_vanilla_transformer.lab import plots_paper
from hf_vanilla_transformer.lab.charts import new_chart


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_translator(folder, num_decoder_layers=2)
    return folder


def test_a_sentence_becomes_a_page_and_pictures(folder, tmp_path):
    options = ["--target", "A B", "--html", tmp_path / "a.html", "--pictures", tmp_path / "a", "--formats", "png"]
    done = run(main, folder, "a b", *options)
    assert done.returncode == 0, done.stderr
    names = {"alignment", "encoder-layer-1", "decoder-layer-1", "decoder-layer-2", "cross-layer-1", "cross-layer-2"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == {f"{name}.png" for name in names}
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert '"model":"tiny","sentence":"a b","translation":"A B"' in page
    assert "A B\nwritten: " in done.stdout
    assert str(folder) not in page


def test_a_page_needs_no_matplotlib(folder, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    target = ["--target", "A"]
    assert run(main, folder, "a", *target, "--html", tmp_path / "a.html").returncode == 0
    done = run(main, folder, "a", *target, "--html", tmp_path / "b.html", "--pictures", tmp_path / "b")
    assert "pip install 'hf-vanilla-transformer[lab]'" in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_without_a_model_it_is_the_shipped_one(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "DEFAULT_TRANSLATOR", folder.name)
    monkeypatch.setattr(shipped, "_FOLDER", folder.parent)
    done = run(main, "a b", "--html", tmp_path / "a.html", "--num_beams", "1")
    assert done.returncode == 0, done.stderr
    assert '"model":"tiny","sentence":"a b"' in (tmp_path / "a.html").read_text(encoding="utf-8")
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path)
    assert "no model was named" in run(main, "a b", "--html", tmp_path / "b.html").error


def test_pictures_of_the_paper_need_no_model(tmp_path, monkeypatch):
    monkeypatch.setattr(plots_paper, "paper_pictures", lambda: {"sinusoids": new_chart(1, 1)})
    done = run(main, "--paper", tmp_path / "paper", "--formats", "png")
    assert done.stdout == f"written to {tmp_path / 'paper'}: sinusoids.png\n"
    assert "is not empty" in run(main, "--paper", tmp_path / "paper").error
    assert run(main, "--paper", tmp_path / "paper", "--overwrite").returncode == 0
    assert {path.name for path in (tmp_path / "paper").iterdir()} == {"sinusoids.png", "sinusoids.svg"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give a sentence to translate, with --html FILE or --pictures DIR; or --paper DIR"),
        (["a b"], "say where to show what the heads attend to"),
        (["FOLDER", "--html", "x"], "is a folder; give a sentence to translate after it"),
        (["FOLDER", "a", "b", "--html", "x"], "unexpected word 'b'"),
        (["--paper", "x", "--tag", "2de"], "--tag has no effect without a sentence"),
        (["--paper", "x", "--html", "y"], "--html has no effect without a sentence"),
        (["a", "--html", "x", "--layer", "1"], "--layer has no effect without --pictures"),
        (["a", "--html", "x", "--formats", "png"], "--formats has no effect without --pictures or --paper"),
        (["a", "--html", "x", "--overwrite"], "--overwrite has no effect without --pictures or --paper"),
        (["a", "--html", "x", "--target", "b", "--num_beams", "2"], "--num_beams has no effect with --target"),
        (["a", "--pictures", "x", "--paper", "x/"], "--pictures and --paper both name x"),
        (["a", "--pictures", "x", "--formats", "pdf"], "invalid choice: 'pdf'"),
    ],
)
def test_options_without_effect_are_refused(options, message, folder):
    assert message in run(main, *(folder if each == "FOLDER" else each for each in options)).error


def test_what_cannot_be_drawn_is_one_line_and_nothing_is_written(folder, tmp_path):
    common = [folder, "a", "--target", "A", "--html", tmp_path / "a.html", "--pictures", tmp_path / "a"]
    assert "there is no decoder layer 3; this model has layers 1 to 2" in run(main, *common, "--layer", "3").error
    assert "has no visible character" in run(main, folder, " ", "--html", tmp_path / "a.html").error
    assert "there is no folder nowhere" in run(main, "nowhere/at/all", "a", "--html", tmp_path / "a.html").error
    assert list(tmp_path.iterdir()) == []
