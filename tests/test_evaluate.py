"""The command `evaluate`: its files, its test sets, and what it says of options and input that will not do."""

import json

import pytest
from commanding import run, save_translator

from hf_vanilla_transformer.commands import evaluate as command
from hf_vanilla_transformer.evaluation import EvaluationSet, test_sets


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
               "--save_translations", saved, "--metrics", "bleu"]  # fmt: skip

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
    assert json.loads(report.read_text())["scorings"][0]["test_sets"][0]["sentences"] == 3
    assert not list(texts.glob("*.partial"))


def test_an_output_that_cannot_be_written_is_said_before_the_long_work(folder, texts, monkeypatch):
    monkeypatch.setattr(command, "system_of_model", None)
    options = ["--model", folder, "--source", texts / "en", "--references", texts / "de"]
    for option in ("--output", "--save_translations"):
        assert "none/out" in run(command.main, *options, option, texts / "none" / "out").error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_resamples", 1], "`num_resamples`=1 is not allowed"),
        (["--seed", -1], "`seed`=-1 is not allowed; allowed: an integer of at least 0"),
        (["--baseline", "out", "--seed", 0], "`seed`=0 is not allowed; allowed: an integer of at least 1"),
        (["--baseline", "out", "--num_resamples", 0], "--baseline is compared by samples"),
    ],
)
def test_samples_that_cannot_be_drawn_are_refused_before_the_long_work(folder, texts, monkeypatch, options, message):
    monkeypatch.setattr(command, "system_of_model", None)
    monkeypatch.chdir(texts)
    files = ["--model", folder, "--source", "en", "--references", "de"]
    assert message in run(command.main, *files, *options).error


@pytest.mark.parametrize("value", [0, -3])
def test_beams_below_1_are_refused_by_name(folder, texts, value):
    options = ["--model", folder, "--source", texts / "en", "--references", texts / "de", "--num_beams", value]
    assert run(command.main, *options).error.startswith(f"`num_beams`={value} is not allowed")


def test_source_and_references_may_come_from_a_test_set(folder, texts):
    pairs = zip((texts / "en").read_text().splitlines(), (texts / "de").read_text().splitlines())
    (texts / "pairs.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in pairs))
    named, by_file = texts / "named.json", texts / "files.json"
    options = ["--model", folder, "--baseline", texts / "out", "--num_resamples", 10, "--metrics", "bleu"]
    done = run(command.main, *options, "--test_set", texts / "pairs.tsv", "--output", named)
    assert done.returncode == 0, done.stderr
    assert f"Test set: {texts / 'pairs.tsv'}, 3 sentences" in done.stdout
    files = ["--source", texts / "en", "--references", texts / "de"]
    assert run(command.main, *options, *files, "--output", by_file).returncode == 0
    named, by_file = json.loads(named.read_text()), json.loads(by_file.read_text())
    by_file["scorings"][0]["test_sets"][0]["name"] = str(texts / "pairs.tsv")
    assert named == by_file
    (texts / "short").write_text("A\n")
    error = run(command.main, "--translations", texts / "short", "--test_set", texts / "pairs.tsv").error
    assert f"short has 1 lines, but the test set {texts / 'pairs.tsv'} has 3" in error


def test_text_of_a_language_without_spaces_is_cut_as_sacrebleu_does(texts, monkeypatch):
    data = EvaluationSet("wmt99:en-zh", ["a"], [["你好 世界"]], "zh")
    monkeypatch.setattr(test_sets, "read_test_set", lambda *_: data)
    (texts / "zh").write_text("你好 世\n", encoding="utf-8")
    options = ["--translations", texts / "zh", "--test_set", "wmt99:en-zh", "--metrics", "bleu"]
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
        (
            ["--translations", "out", "--references", "de", "--seed", "2", "--num_resamples", "0"],
            "--seed has no effect without samples",
        ),
        (["--translations", "out", "--references", "de", "--num_resamples", "-2"], "`num_resamples`=-2"),
        (["--translations", "out", "out", "--references", "de"], "--translations has out twice"),
        (["--translations", "out", "none", "--references", "de"], "there is no file none"),
        (["--model", "out", "--references", "de", "--source", "en"], "out is a file, not a model"),
        (["--translations", "out", "en", "--references", "de", "--baseline", "en"], "compared with one system on one"),
        (
            ["--translations", "out", "--test_set", "a.tsv", "b.tsv", "--baseline", "en"],
            "compared with one system on one",
        ),
        (["--translations", "out", "--test_set", "a.tsv", "a.tsv"], "--test_set has a.tsv twice"),
        (
            ["--translations", "out", "en", "--references", "de", "--save_translations", "new"],
            "--save_translations has 1 files for 2 systems",
        ),
        (
            ["--translations", "out", "--references", "de", "--metrics", "wer", "per", "--lowercase"],
            "--lowercase has no effect on wer and per",
        ),
        (
            ["--translations", "out", "--references", "de", "--metrics", "chrf", "--tokenize", "zh"],
            "--tokenize has no effect on chrf",
        ),
        (
            ["--translations", "out", "--references", "de", "--metrics", "per", "--moses_lowercase", "de"],
            "--moses_lowercase has no effect on per",
        ),
        (["--translations", "out", "--references", "de", "--metrics", "cer"], "invalid choice: 'cer'"),
        (["--translations", "out", "--references", "de", "--tag", "2de"], "--tag has no effect without a model"),
        (["--translations", "out", "--test_set", "a.tsv,tagg=x"], "unknown key 'tagg'; did you mean tag?"),
        (["--translations", "out", "--test_set", "wmt14"], "wmt14 has several languages"),
        (["--translations", "out", "--test_set", "none.tsv"], "none.tsv"),
    ],
)
def test_options_that_do_not_go_together_are_refused(texts, monkeypatch, options, message):
    monkeypatch.chdir(texts)
    assert message in run(command.main, *options).error


def test_no_output_replaces_a_test_set(texts):
    (texts / "pairs.tsv").write_text("a\tA\n")
    options = ["--translations", texts / "out", "--test_set", f"{texts / 'pairs.tsv'},tag=x"]
    error = run(command.main, *options, "--output", texts / "pairs.tsv").error
    assert "is a file to evaluate, which the results would replace" in error
    assert (texts / "pairs.tsv").read_text() == "a\tA\n"


@pytest.mark.parametrize("option", ["--output", "--save_translations"])
@pytest.mark.parametrize("name", ["en", "de", "out"])
def test_no_output_replaces_what_is_evaluated(option, name, texts):
    before = {path.name: path.read_text() for path in texts.iterdir()}
    options = [
        "--translations",
        texts / "out",
        "--source",
        texts / "en",
        "--references",
        texts / "de",
        "--metrics",
        "bleu",
    ]
    error = run(command.main, *options, option, texts / name).error
    assert f"{texts / name} is a file to evaluate, which the results would replace" in error
    assert {path.name: path.read_text() for path in texts.iterdir()} == before


def test_two_outputs_are_two_files(texts):
    options = ["--translations", texts / "out", "--references", texts / "de", "--metrics", "bleu"]
    both = ["--output", texts / "new", "--save_translations", texts / "new"]
    assert f"name {texts / 'new'} twice" in run(command.main, *options, *both).error


def test_one_call_scores_in_each_way(texts):
    pytest.importorskip("sacremoses")
    options = ["--translations", texts / "out", "--references", texts / "de", "--metrics", "wer", "bleu"]
    options += ["--moses_lowercase", "de", "--paper_bleu", "de", "--output", texts / "all.json"]
    done = run(command.main, *options)
    assert done.returncode == 0, done.stderr
    scorings = json.loads((texts / "all.json").read_text())["scorings"]
    found = [list(each["test_sets"][0]["systems"][0]["scores"]) for each in scorings]
    assert found == [["wer", "bleu"], ["bleu"], ["paper_bleu"]]
    assert done.stdout.count("no table with others") == 2


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    folder = tmp_path_factory.mktemp("second")
    save_translator(folder)
    return folder


def test_models_and_ensembles_translate_several_test_sets_whose_lines_follow_each_other(folder, second, tmp_path):
    for name, pairs in {"one": ["a\tA", "b c\tB C"], "two": ["c\tC"]}.items():
        (tmp_path / f"{name}.tsv").write_text("".join(f"{pair}\n" for pair in pairs))
    sets = ["--test_set", tmp_path / "one.tsv", tmp_path / "two.tsv", "--metrics", "wer", "per"]
    sets += ["--num_resamples", 5]
    files = [tmp_path / name for name in ("first", "second")]
    reports = [tmp_path / f"{name}.json" for name in ("models", "files", "ensemble")]
    done = run(command.main, "--model", folder, second, *sets, "--save_translations", *files, "--output", reports[0])
    assert done.returncode == 0, done.stderr
    assert [path.read_text().count("\n") for path in files] == [3, 3]
    done = run(command.main, "--translations", *files, *sets, "--output", reports[1])
    assert done.returncode == 0, done.stderr
    made, read = (json.loads(path.read_text())["scorings"][0] for path in reports[:2])
    assert [system["name"] for system in made["macro_average"]["systems"]] == [str(folder), str(second)]
    assert [each["sentences"] for each in made["test_sets"]] == [2, 1]
    for part in ("spread", "systems"):
        scores = [
            found["macro_average"][part]
            if part == "spread"
            else [each["scores"] for each in found["macro_average"][part]]
            for found in (made, read)
        ]
        assert scores[0] == scores[1]
    together = ["--ensemble", folder, second, *sets, "--output", reports[2], "--save_translations", tmp_path / "both"]
    done = run(command.main, *together)
    assert done.returncode == 0, done.stderr
    (system,) = json.loads(reports[2].read_text())["scorings"][0]["macro_average"]["systems"]
    assert system["name"] == f"{folder} + {second}"
    (tmp_path / "short").write_text("A\n")
    error = run(command.main, "--translations", tmp_path / "short", *sets).error
    assert f"short has 1 lines, but the test sets {tmp_path / 'one.tsv'} and {tmp_path / 'two.tsv'} have 3" in error
