"""The command `lab-heads`: its files, and what it says of options and models that will not do."""

import json

import pytest
from commanding import run, save_translator

from hf_vanilla_transformer.commands import lab_heads as command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model, _ = save_translator(folder)
    model.generation_config.max_extra_tokens = 2  # it never ends by itself
    model.generation_config.save_pretrained(folder)
    return folder


@pytest.fixture
def texts(tmp_path):
    for name, lines in {"en": ["a b", "c", "a"], "de": ["A B", "C", "A"]}.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    return tmp_path


def test_a_folder_and_a_line_come_of_it(folder, texts):
    out = texts / "out"
    options = ["--source", texts / "en", "--references", texts / "de", "--output_dir", out, "--num_resamples", 9]
    done = run(command.main, folder, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 heads, BLEU ")
    assert done.stdout.endswith(f"all in {out}/heads.md\n")
    assert sorted(path.name for path in out.iterdir()) == ["heads.json", "heads.md", "heads.png"]
    found = json.loads((out / "heads.json").read_text())
    assert found["settings"]["num_beams"] == 1
    assert found["sentences"] == 3
    assert len(found["heads"]) == 6


def test_files_and_a_test_set_are_read_alike_up_to_the_number_asked_for(texts, monkeypatch):
    monkeypatch.chdir(texts)
    ways = (["--source", "en", "--references", "de"], ["--test_set", "source=en,target=de"])
    options = ["model", "--output_dir", "out", "--sentences", "2"]
    one, other = (command.read_texts(command.parse_arguments([*options, *way], "program")) for way in ways)
    assert (one.sources, one.references) == (other.sources, other.references) == (["a b", "c"], [["A B", "C"]])


def test_after_an_error_nothing_is_left_and_a_used_folder_stays_as_it_is(folder, texts, monkeypatch):
    options = [folder, "--source", texts / "en", "--references", texts / "de", "--output_dir", texts / "out"]

    def fails(*_, **__):
        raise ValueError("half-way")

    monkeypatch.setattr(command, "analyse_heads", fails)
    assert run(command.main, *options).error == "half-way"
    assert not (texts / "out").exists()
    (texts / "out").mkdir()
    (texts / "out" / "heads.md").write_text("earlier")
    assert "is not empty" in run(command.main, *options).error
    assert run(command.main, *options, "--overwrite").error == "half-way"
    assert (texts / "out" / "heads.md").read_text() == "earlier"
    assert sorted(path.name for path in texts.iterdir()) == ["de", "en", "out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--references", "de"], "--references need the --source"),
        (["--test_set", "a.tsv", "b.tsv"], "--test_set has a.tsv and b.tsv; heads are analysed on one set"),
        (["--source", "en", "--references", "de", "--sentences", 0], "`sentences`=0 is not allowed"),
        (["--source", "en", "--references", "de", "--num_resamples", 1], "`num_resamples`=1 is not allowed"),
        (["--source", "en", "--references", "de", "--seed", -1], "`seed`=-1 is not allowed"),
        (["--source", "en", "--references", "de", "--seed", 1, "--num_resamples", 0], "--seed has no effect"),
        (["--source", "none", "--references", "de"], "none"),
        (["--source", "empty", "--references", "empty"], "there is no sentence to translate"),
        (["--source", "en", "--references", "de", "--num_beams", 0], "`num_beams`=0 is not allowed"),
        (["--source", "en", "--references", "de", "--tag", "2xx"], "2xx"),
    ],
)
def test_what_will_not_do_is_said_in_one_line(folder, texts, monkeypatch, options, message):
    monkeypatch.chdir(texts)
    (texts / "empty").write_text("")
    assert message in run(command.main, folder, *options, "--output_dir", "out").error
    assert not (texts / "out").exists()
