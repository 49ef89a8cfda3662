"""The command `evaluate`: its files, its test sets, and what it says of options and input that will not do."""

import json

import pytest
from commanding import run, save_translator

from hf_vanilla_transformer.commands import evaluate as command
from hf_vanilla_transformer.evaluation import EvaluationSet


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


def test_source_and_references_may_come_from_a_test_set(folder, texts):
    pairs = zip((texts / "en").read_text().splitlines(), (texts / "de").read_text().splitlines())
    (texts / "pairs.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in pairs))
    named, by_file = texts / "named.json", texts / "files.json"
    options = ["--model", folder, "--baseline", texts / "out", "--num_resamples", 10, "--no_ter"]
    done = run(command.main, *options, "--test_set", texts / "pairs.tsv", "--output", named)
    assert done.returncode == 0, done.stderr
    assert f"Test set: {texts / 'pairs.tsv'}, 3 sentences" in done.stdout
    files = ["--source", texts / "en", "--references", texts / "de"]
    assert run(command.main, *options, *files, "--output", by_file).returncode == 0
    named, by_file = json.loads(named.read_text()), json.loads(by_file.read_text())
    assert named == {**by_file, "test_set": str(texts / "pairs.tsv")}
    (texts / "short").write_text("A\n")
    error = run(command.main, "--translations", texts / "short", "--test_set", texts / "pairs.tsv").error
    assert f"short has 1 lines, but the test set {texts / 'pairs.tsv'} has 3" in error


def test_text_of_a_language_without_spaces_is_cut_as_sacrebleu_does(texts, monkeypatch):
    data = EvaluationSet("wmt99:en-zh", ["a"], [["你好 世界"]], "zh")
    monkeypatch.setattr(command, "read_test_set", lambda *_: data)
    (texts / "zh").write_text("你好 世\n", encoding="utf-8")
    options = ["--translations", texts / "zh", "--test_set", "wmt99:en-zh", "--no_ter"]
    assert "tok:zh" in run(command.main, *options).stdout
    assert "tok:13a" in run(command.main, *options, "--tokenize", "13a").stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--translations", "out"], "one of the arguments --references --test_set is required"),
        (["--translations", "out", "--test_set", "x.tsv", "--source", "en"], "leave out --source"),
        (["--translations", "out", "--references", "de", "--source_lang", "en"], "--source_lang has no effect"),
        (
            ["--translations", "out", "--references", "de", "--num_beams", "2"],
            "--num_beams has no effect without a",
        ),
        (
            ["--translations", "out", "--references", "de", "--dtype", "float16"],
            "--dtype has no effect without a",
        ),
        (["--translations", "out", "--references", "de", "--tag", "2de"], "--tag has no effect without a model"),
        (["--translations", "out", "--references", "de", "--seed", "2"], "--seed has no effect without --baseline"),
        (["--translations", "out", "--test_set", "wmt14"], "wmt14 has several languages"),
        (["--translations", "out", "--test_set", "none.tsv"], "none.tsv"),
    ],
)
def test_options_that_do_not_go_together_are_refused(texts, monkeypatch, options, message):
    monkeypatch.chdir(texts)
    assert message in run(command.main, *options).error


@pytest.mark.parametrize("option", ["--output", "--save_translations"])
@pytest.mark.parametrize("name", ["en", "de", "out"])
def test_no_output_replaces_what_is_evaluated(option, name, texts):
    before = {path.name: path.read_text() for path in texts.iterdir()}
    options = ["--translations", texts / "out", "--source", texts / "en", "--references", texts / "de", "--no_ter"]
    error = run(command.main, *options, option, texts / name).error
    assert f"{texts / name} is a file to evaluate, which the results would replace" in error
    assert {path.name: path.read_text() for path in texts.iterdir()} == before


def test_two_outputs_are_two_files(texts):
    options = ["--translations", texts / "out", "--references", texts / "de", "--no_ter"]
    both = ["--output", texts / "new", "--save_translations", texts / "new"]
    assert "are one file" in run(command.main, *options, *both).error


def test_a_tag_is_for_the_model_and_one_that_it_does_not_have_is_named(folder, texts):
    options = ["--model", folder, "--source", texts / "en", "--references", texts / "de", "--tag", "2de"]
    assert run(command.main, *options).error.startswith("'<2de>' is not a tag of this tokenizer; it has no tags")
