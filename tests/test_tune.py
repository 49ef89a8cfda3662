"""The command `tune`: its table, what it saves, and what it says of options that will not do."""

import json

import pytest
from commanding import run, save_translator

from hf_vanilla_transformer.commands import tune as command
from hf_vanilla_transformer.evaluation import EvaluationSet, TriedDecoding, try_decodings


@pytest.fixture
def files(tmp_path):
    save_translator(tmp_path / "model")
    for name, lines in {"en": ["a b", "c", "a"], "de": ["A B", "C", "A"]}.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "val.tsv").write_text("a b\tA B\nc\tC\na\tA\n")
    return tmp_path


def says(folder):
    return json.loads((folder / "model" / "generation_config.json").read_text())


@pytest.mark.parametrize("as_set", [False, True])
def test_the_best_of_the_table_is_saved_when_that_is_asked_for(files, as_set):
    texts = ["--test_set", files / "val.tsv"] if as_set else ["--source", files / "en", "--references", files / "de"]
    options = [files / "model", *texts, "--length_penalties", "-3", "0.6", "3", "--num_beams", 2, 3, "--metric", "chrf"]
    before = says(files)
    shown = run(command.main, *options)
    assert shown.returncode == 0, shown.stderr
    assert says(files) == before
    data = EvaluationSet(None, ["a b", "c", "a"], [["A B", "C", "A"]])
    tried = try_decodings([str(files / "model")], [data], [-3, 0.6, 3], [2, 3], "chrf", "cpu")
    rows = [line.split() for line in shown.stdout.splitlines()[1:7]]
    assert rows == [
        [str(each.num_beams), f"{each.length_penalty:g}", f"{each.mean:.2f}", f"{each.length_ratio:.3f}"]
        for each in tried
    ]
    best = max(tried, key=lambda each: each.mean)
    assert f"best: num_beams={best.num_beams}, gnmt_length_penalty={best.length_penalty:g}" in shown.stdout
    saved = run(command.main, *options, "--save")
    assert saved.stdout.splitlines()[-1] == f"saved in {files}/model/generation_config.json"
    after = says(files)
    assert (after["num_beams"], after["gnmt_length_penalty"]) == (best.num_beams, best.length_penalty)


def test_what_cannot_be_saved_is_said_before_the_long_work(files, monkeypatch):
    monkeypatch.setattr(command, "try_decodings", None)
    options = [files / "model", "--source", files / "en", "--references", files / "de", "--save"]
    (files / "model" / "seal.json").write_text("{}")
    assert "is a sealed checkpoint" in run(command.main, *options).error
    assert "some/model is no folder" in run(command.main, "some/model", *options[1:]).error


@pytest.mark.parametrize(("alpha", "at_edge"), [(0.0, True), (0.6, False), (1.0, True)])
def test_a_best_value_at_the_edge_is_said(files, monkeypatch, alpha, at_edge):
    tried = [TriedDecoding(4, each, [float(each == alpha)], 1.0) for each in (0.0, 0.6, 1.0)]
    monkeypatch.setattr(command, "try_decodings", lambda *_, **__: tried)
    done = run(command.main, files / "model", "--source", files / "en", "--references", files / "de")
    assert ("at the edge of what was tried" in done.stdout) == at_edge


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--references", "de"], "--references need the --source that is translated"),
        (["--test_set", "val.tsv", "--source", "en"], "--test_set has the source; leave out --source"),
        (["--source", "en", "--references", "de", "--source_lang", "en"], "--source_lang has no effect without"),
        (["--test_set", "val.tsv", "--num_beams", 4, 4], "--num_beams has 4 twice"),
        (["--test_set", "val.tsv", "--length_penalties", 1, "1.0"], "--length_penalties has 1.0 twice"),
        (["model", "--test_set", "val.tsv"], "model is named twice"),
        (["--test_set", "val.tsv", "--num_beams", 1, 4], "one beam is greedy search"),
        (["--test_set", "val.tsv", "--num_beams", 0], "`num_beams`=0 is not allowed"),
        (["--test_set", "val.tsv", "--metric", "rouge"], "argument --metric: invalid choice: 'rouge'"),
        (["--test_set", "none.tsv"], "none.tsv"),
    ],
)
def test_what_will_not_do_is_refused_in_one_line(files, monkeypatch, options, message):
    monkeypatch.chdir(files)
    assert message in run(command.main, "model", *options).error
