"""From finished runs to the folder of a checkpoint: what is in it, and that every figure is of what it says."""

import json
import re
import shutil
import statistics
import sys
from types import SimpleNamespace

import pytest
import torch
from commanding import run as run_command
from released import CARD, make_card, make_release, make_runs, standing
from sacrebleu.metrics import BLEU, CHRF
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_vanilla_transformer.commands.release import main
from hf_vanilla_transformer.evaluation import moses_lowercased
from hf_vanilla_transformer.inference import translate
from hf_vanilla_transformer.publishing import index_text, read_results, refresh_card, release, render_card

# The package has a function of this name, too.
release_module = sys.modules["hf_vanilla_transformer.publishing.release"]

MODEL = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return standing(tmp_path_factory.mktemp)


@pytest.fixture(scope="module")
def text(made):
    return made.text


@pytest.fixture(scope="module")
def runs(made):
    return made.runs


@pytest.fixture(scope="module")
def card(made):
    return made.card


@pytest.fixture(scope="module")
def released(made):
    return made.folder


@pytest.fixture
def copy(released, tmp_path):
    return shutil.copytree(released, tmp_path / "backwards")


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def references(text):
    val = [json.loads(line)["translation"]["de"] for line in lines(text / "val.jsonl")]
    return {"val": val, "test": lines(text / "test.de")}


def test_the_folder_has_the_model_its_card_figures_recipe_curves_and_outputs(released):
    files = {path.relative_to(released).as_posix() for path in released.rglob("*") if path.is_file()}
    outputs = {
        name for outputs in read_results(released)["evaluations"] for of_run in outputs["outputs"] for name in of_run
    }
    assert len(outputs) == 4
    assert files == {*MODEL, "README.md", "results.json", "recipe.yaml", "curves.png", *outputs}


def test_the_checkpoint_is_the_run_that_is_better_on_validation_text_to_the_bit(released, runs, text):
    results = read_results(released)
    training = results["training"]
    scores = []
    for run in runs:
        model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(run), AutoTokenizer.from_pretrained(run)
        sources = [json.loads(line)["translation"]["en"] for line in lines(text / "val.jsonl")]
        translations = list(translate(model.eval(), tokenizer, sources, batch_tokens=4096))
        scores.append(BLEU().corpus_score(translations, [references(text)["val"]]).score)
    assert len(set(scores)) == 2, "the two runs are to differ"
    assert training["shipped"] == scores.index(max(scores))
    assert [run["seed"] for run in training["runs"]] == [7, 42]
    best = AutoModelForSeq2SeqLM.from_pretrained(runs[training["shipped"]])
    model = AutoModelForSeq2SeqLM.from_pretrained(released)
    assert model.dtype == torch.float32
    for name, weight in best.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name
    assert model.generation_config.to_dict() == best.generation_config.to_dict()
    assert (model.generation_config.num_beams, model.generation_config.gnmt_length_penalty) == (2, 0.6)


def test_figures_are_those_of_the_outputs_in_each_way_and_for_each_run(released, text):
    results = read_results(released)
    for evaluation in results["evaluations"]:
        gold = references(text)[evaluation["name"]]
        ways = [each["name"] for each in evaluation["scorings"]]
        assert ways == (["cased"] if evaluation["name"] == "val" else ["cased", "moses_lowercase"])
        assert evaluation["sentences"] == len(gold)
        for number, (file,) in enumerate(evaluation["outputs"]):
            made = lines(released / file)
            for scoring in evaluation["scorings"]:
                pair, tokenize = (made, gold), "13a"
                if scoring["name"] == "moses_lowercase":
                    pair, tokenize = [moses_lowercased(each, "de") for each in pair], "none"
                scores = scoring["runs"][number]
                assert scores["bleu"]["value"] == pytest.approx(
                    BLEU(tokenize=tokenize).corpus_score(pair[0], [pair[1]]).score
                )
                assert scores["chrf"]["value"] == pytest.approx(CHRF().corpus_score(pair[0], [pair[1]]).score)
                assert f"tok:{tokenize}" in scores["bleu"]["signature"]
                assert scores["chrf"]["interval"] > 0
                assert "seed:12345" in scores["chrf"]["signature"]


def test_the_card_quotes_the_checkpoint_each_seed_and_their_spread(released):
    results, readme = read_results(released), (released / "README.md").read_text(encoding="utf-8")
    shipped = results["training"]["shipped"]
    for evaluation in results["evaluations"]:
        for scoring in evaluation["scorings"]:
            values = [run["chrf"]["value"] for run in scoring["runs"]]
            half = scoring["runs"][shipped]["chrf"]["interval"]
            cells = [f"{values[shipped]:.2f}", f"{values[shipped] - half:.2f} to {values[shipped] + half:.2f}"]
            cells += [f"{value:.2f}" for value in values]
            cells.append(f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}")
            assert f"| chrF | {' | '.join(cells)} |" in readme
            assert f"`{scoring['runs'][shipped]['chrf']['signature']}`" in readme
    # Figures of one way to score stand below its own heading, the published ones too.
    cased, moses = readme.split("#### Lowercased, tokenised by Moses")
    assert "12.50" not in cased
    assert "| Another | BLEU | 12.50 | https://example.org/paper |" in moses


def test_the_card_shows_what_the_model_makes_of_the_inputs(released):
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(released).eval(), AutoTokenizer.from_pretrained(released)
    inputs = ["red dog", 'big <cat> | "runs"']
    metadata = render_card(read_results(released)).data.to_dict()
    outputs = [next(iter(translate(model, tokenizer, [sentence]))) for sentence in inputs]
    assert metadata["widget"] == [
        {"text": source, "output": {"text": output}} for source, output in zip(inputs, outputs)
    ]


def test_what_the_hub_reads(released):
    results = read_results(released)
    data = render_card(results).data.to_dict()
    expected = {
        "library_name": "transformers", "pipeline_tag": "translation", "language": ["en", "de"], "license": "other",
        "license_name": "mine", "license_link": "https://example.org/licence", "datasets": ["me/backwards"],
        "metrics": ["bleu", "chrf"], "tags": ["vanilla_transformer", "translation", "toy"],
    }  # fmt: skip
    assert {name: data[name] for name in expected} == expected
    (index,) = data["model-index"]
    test = next(each for each in index["results"] if each["dataset"].get("split") == "test")
    assert test["dataset"]["type"] == "me/backwards"
    values = [metric["value"] for metric in test["metrics"]]
    shipped = results["training"]["shipped"]
    scorings = results["evaluations"][1]["scorings"]
    assert values == [round(score["value"], 2) for each in scorings for score in each["runs"][shipped].values()]
    assert [metric["type"] for metric in test["metrics"]] == ["bleu", "chrf"] * 2


def test_nothing_tells_of_the_machine(released, text, runs):
    for path in released.rglob("*"):
        if path.suffix in (".json", ".md", ".yaml", ".txt"):
            content = path.read_text(encoding="utf-8")
            for place in (text, runs[0], released.parent):
                assert str(place) not in content, path.name


def test_the_card_follows_the_figures_and_the_texts(copy, card):
    before = (copy / "README.md").read_text(encoding="utf-8")
    refresh_card(copy)
    assert (copy / "README.md").read_text(encoding="utf-8") == before
    results = json.loads((copy / "results.json").read_text())
    results["evaluations"][1]["scorings"][0]["runs"][results["training"]["shipped"]]["bleu"]["value"] = 77.77
    (copy / "results.json").write_text(json.dumps(results))
    refresh_card(copy)
    after = (copy / "README.md").read_text(encoding="utf-8")
    assert "77.77" in after
    assert "77.77" not in before


def test_new_texts_need_no_new_scores_and_new_test_sets_do(copy, tmp_path):
    figures = read_results(copy)["evaluations"][1]["scorings"][0]["runs"]
    changed = CARD.replace("Everything else.", "Long sentences.").replace("Words, test", "Other words")
    results = refresh_card(copy, make_card(tmp_path, changed.replace("[red dog,", "[red dog, cat,")))
    readme = (copy / "README.md").read_text(encoding="utf-8")
    assert "Long sentences." in readme
    assert "### Other words" in readme
    assert [each["source"] for each in results["inputs"]][:2] == ["red dog", "cat"]
    assert results["evaluations"][1]["scorings"][0]["runs"] == figures
    for old, new in (
        ("name: val", "name: validation"),
        ("    moses_lowercase: de\n", ""),
        ("role: test", "role: validation"),
        ("source: data/words/test.en", "source: data/words/other.en"),
        ("    moses_lowercase: de\n", "    moses_lowercase: fr\n"),
    ):
        text = changed.replace(old, new)
        text = text if "moses_lowercase: " in text else text[: text.index("    published")]
        with pytest.raises(ValueError, match="was not scored as the card says; release the run again"):
            refresh_card(copy, make_card(tmp_path, text))


def test_a_folder_that_is_too_large_does_not_appear(text, runs, card, tmp_path):
    with pytest.raises(ValueError, match=r"more than 10,000; the largest file is model.safetensors with"):
        make_release(text, runs[:1], tmp_path / "large", card, largest_folder=10_000)
    assert not list(tmp_path.iterdir())


def test_an_earlier_release_is_replaced_only_when_asked_for_and_only_whole(text, runs, card, copy):
    with pytest.raises(FileExistsError, match="is not empty"):
        make_release(text, runs[:1], copy, card)
    for name in ("outputs/mine.txt", "notes.txt"):
        (copy / name).touch()
        said = []
        with pytest.raises(FileExistsError, match=f"backwards has {name}, which no (such result|release) has made"):
            make_release(text, runs[:1], copy, card, overwrite=True, say=said.append)
        assert not said  # nothing was translated for it
        (copy / name).unlink()
    assert list(copy.glob("outputs/*.seed*.txt"))
    results = make_release(text, runs[1:], copy, card, overwrite=True)
    assert results["training"]["runs"][0]["seed"] == 42
    assert sorted(path.name for path in (copy / "outputs").iterdir()) == ["test.txt", "val.txt"]  # one run has fewer
    readme = (copy / "README.md").read_text(encoding="utf-8")
    assert "Seed 42" not in readme
    assert "standard deviation" not in readme


def test_no_run_is_replaced_by_the_release_of_it(text, runs, card, tmp_path):
    copies = [shutil.copytree(run, tmp_path / run.name) for run in runs]
    for target in copies:
        with pytest.raises(FileExistsError, match="is the folder of a run, which must stay as it is"):
            make_release(text, copies, target, card, overwrite=True)


def test_figures_stay_whole_where_a_card_cannot_be_written(copy, monkeypatch):
    before = (copy / "results.json").read_bytes()
    monkeypatch.setattr(release_module, "json", SimpleNamespace(loads=json.loads, dumps=lambda *_, **__: "{\ud800"))
    with pytest.raises(UnicodeEncodeError):
        refresh_card(copy)
    assert (copy / "results.json").read_bytes() == before


def test_the_command_makes_the_folder_and_the_index_and_writes_a_card_anew(text, runs, tmp_path):
    (tmp_path / "card.yaml").write_text(CARD)
    output = tmp_path / "cards" / "backwards"
    options = ["--card", tmp_path / "card.yaml", "--output_dir", output, "--index", output.parent / "README.md"]
    done = run_command(main, *runs, *options, "--data", f"{text}=data/words", "--device", "cpu", "--num_resamples", 20)
    assert done.returncode == 0, done.stderr
    assert "| chrF | " in done.stdout
    index = (output.parent / "README.md").read_text(encoding="utf-8")
    assert "[backwards](backwards)" in index
    (tmp_path / "card.yaml").write_text(CARD.replace("title: Backwards", "title: Forwards"))
    done = run_command(main, *options)
    assert done.returncode == 0, done.stderr
    assert "# Forwards" in (output / "README.md").read_text(encoding="utf-8")
    assert "Forwards" in (output.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["run"], "a release needs --card CARD.yaml"),
        (["--overwrite"], "--overwrite has no effect without runs"),
        (["--data", "/a=b"], "--data has no effect without runs"),
        (["--num_resamples", "3"], "--num_resamples has no effect without runs"),
        ([], "nowhere is not the folder of a checkpoint: it has no results.json"),
    ],
)
def test_options_without_effect_and_missing_folders_are_one_line(options, message, tmp_path):
    assert message in run_command(main, *options, "--output_dir", tmp_path / "nowhere").error


def test_what_runs_began_with_is_said_where_others_do_not_have_it(text, tmp_path, released, monkeypatch):
    for name in ("base", "cards"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)  # as in recipes, paths are relative
    runs = make_runs(text, tmp_path, seeds=(7,), model_name_or_path="base")
    with pytest.raises(ValueError, match="model_name_or_path=base, which others do not have; say .* by begins_with"):
        make_release(text, runs, tmp_path / "cards" / "further", make_card(tmp_path))
    card = make_card(tmp_path, f"{CARD}begins_with: 5 updates of `pretrain`.\n")
    make_release(text, runs, tmp_path / "cards" / "further", card)
    readme = (tmp_path / "cards" / "further" / "README.md").read_text()
    assert "do not count: 5 updates of `pretrain`." in readme
    assert "`vanilla-transformer finetune recipe.yaml` repeats it, once its data and what it begins with are" in readme
    assert "| 3.0 (last step) |" in index_text(tmp_path / "cards")
    shutil.rmtree(tmp_path / "base")
    shutil.copytree(released, tmp_path / "base")  # what is released is there for all
    make_release(text, runs, tmp_path / "cards" / "again", make_card(tmp_path))
    readme = (tmp_path / "cards" / "again" / "README.md").read_text()
    assert "What came before" not in readme
    assert "once its data are where it says" in readme


def test_several_runs_need_a_validation_set(text, runs, tmp_path):
    without = re.sub(r"  - name: val.*?(?=  - name: test)", "", CARD, flags=re.DOTALL)
    with pytest.raises(ValueError, match="the best of several runs is chosen on a validation set"):
        make_release(text, runs, tmp_path / "out", make_card(tmp_path, without))
    with pytest.raises(ValueError, match=r"`name`='a b' is not allowed"):
        release(runs, tmp_path / "a b", make_card(tmp_path))
