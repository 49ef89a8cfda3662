"""The checkpoints in model_cards: each card is that of its figures, and each figure that of its weights."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from released import standing

from hf_vanilla_transformer.data.corpora import Corpus
from hf_vanilla_transformer.inference import load_translator
from hf_vanilla_transformer.inference.conversions import CONVERSIONS
from hf_vanilla_transformer.publishing import PublicPaths, index_text, read_card, read_results, render_card
from hf_vanilla_transformer.publishing.model_card import shape_of
from hf_vanilla_transformer.publishing.release import LARGEST_FOLDER, translate_inputs
from hf_vanilla_transformer.publishing.release_scores import (
    evaluate_test_set,
    read_texts,
    scorings_of,
    translate_texts,
)
from hf_vanilla_transformer.training import read_recipe

PROJECT = Path(__file__).resolve().parents[1]
CARDS = PROJECT / "model_cards"
FOLDERS = sorted(path.parent for path in CARDS.glob("*/results.json"))
DATA = PROJECT.parent / "shared" / "data"


def name_of(path):
    return path.name


def differences(folder, card):
    """What of a folder is not what its results.json, or the text of its card, makes of it."""
    results = read_results(folder)
    found = [] if card is None or asdict(card) == results["card"] else ["card"]
    found += ["README.md"] * ((folder / "README.md").read_text(encoding="utf-8") != str(render_card(results)))
    # Its comments are those of the version that wrote it.
    recipe = {**results["training"]["arguments"], "output_dir": f"runs/{folder.name}"}
    found += ["recipe.yaml"] * (read_recipe(folder / "recipe.yaml") != recipe)
    model, tokenizer = load_translator([folder], "cpu")
    found += ["model"] * (shape_of(model, tokenizer) != results["model"] or results["name"] != folder.name)
    inputs = translate_inputs(model, tokenizer, results["card"]["inputs"])
    return found + ["inputs"] * (inputs != results["inputs"])


def rescored(folder, card, paths, by_the_model=False):
    """Scores again what a folder says was scored, or what its model translates now; and the shares of equal lines."""
    results = read_results(folder)
    shipped = results["training"]["shipped"]
    shares, scores = {}, {}
    for test_set, evaluation in zip(card.test_sets, results["evaluations"], strict=True):
        texts = read_texts(test_set, card, paths)
        outputs = [[lines(folder / file) for file in of_run] for of_run in evaluation["outputs"]]
        if by_the_model:
            made = translate_texts(*load_translator([folder], "cpu"), {test_set.name: texts}, 4096)[test_set.name]
            pairs = [pair for text in zip(made, outputs[shipped], strict=True) for pair in zip(*text, strict=True)]
            shares[test_set.name] = sum(one == other for one, other in pairs) / len(pairs)
            outputs = [made if number == shipped else each for number, each in enumerate(outputs)]
        again = evaluate_test_set(test_set, texts, scorings_of(test_set, card), outputs, num_resamples=0)
        scores[test_set.name] = (values(evaluation), values(again))
    return shares, scores


def values(evaluation):
    return [score["value"] for scoring in evaluation["scorings"] for run in scoring["runs"] for score in run.values()]


def lines(path):
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def card_of(folder):
    return read_card(CARDS / f"{folder.name}.yaml")


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_a_card_is_made_of_its_figures_and_texts(folder):
    assert differences(folder, card_of(folder)) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_a_folder_stays_small_and_is_a_model_with_nothing_else(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and CONVERSIONS not in path.parts]
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    assert sum(sizes.values()) <= LARGEST_FOLDER
    outputs = {name for each in read_results(folder)["evaluations"] for of_run in each["outputs"] for name in of_run}
    described = {"README.md", "results.json", "recipe.yaml", "curves.png", *outputs}
    model = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert sizes.keys() == described | model


def test_the_index_is_that_of_the_folders():
    assert index_text(CARDS) in (CARDS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(CARDS.glob("*.yaml")), ids=name_of)
def test_texts_of_cards_can_be_read(path):
    card = read_card(path)
    assert {each.role for each in card.test_sets} == {"validation", "test"}
    assert len(card.inputs) >= 2, "publishing proves a folder by two sentences"
    for test_set in card.test_sets:
        scorings_of(test_set, card)


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_scores_are_those_of_the_outputs_and_of_the_weights(folder):
    """A minute for each checkpoint of Multi30k on two cores; needs the test sets, which are not shipped."""
    card = card_of(folder)
    paths = PublicPaths(((str(DATA), "data"),))
    corpora = [Corpus.parse(corpus) for test_set in card.test_sets for corpus in test_set.texts.values()]
    missing = [file for corpus in corpora for file in corpus.files if not Path(paths.to_local(file)).exists()]
    if missing:
        pytest.skip(f"no {missing[0]} beside the project")
    _, scores = rescored(folder, card, paths)
    for name, (written, again) in scores.items():
        assert again == pytest.approx(written, abs=1e-9), name
    # On another machine, sums of floats may differ in their last bits, and a few searches with them.
    shares, scores = rescored(folder, card, paths, by_the_model=True)
    for name, (written, again) in scores.items():
        assert shares[name] >= 0.99, name
        assert again == pytest.approx(written, abs=0.1), name


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return standing(tmp_path_factory.mktemp)


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made.folder, tmp_path / "backwards")


def test_what_was_changed_by_hand_is_found(made, copy):
    assert differences(copy, made.card) == []
    results = json.loads((copy / "results.json").read_text())
    results["evaluations"][0]["scorings"][0]["runs"][0]["chrf"]["value"] += 0.01
    results["training"]["arguments"]["r_drop"] = 5.0
    results["inputs"][0]["output"] += "!"
    results["card"]["limits"] = "None."
    (copy / "results.json").write_text(json.dumps(results))
    assert differences(copy, made.card) == ["card", "README.md", "recipe.yaml", "inputs"]
    readme = made.folder / "README.md"
    (copy / "README.md").write_text(readme.read_text().replace("chrF", "CHRF"))
    shutil.copyfile(made.folder / "results.json", copy / "results.json")
    assert differences(copy, made.card) == ["README.md"]


def test_outputs_and_weights_that_do_not_have_the_scores_are_found(made, copy):
    paths = PublicPaths.parse([f"{made.text}=data/words"])
    for by_the_model in (False, True):
        shares, scores = rescored(copy, made.card, paths, by_the_model)
        assert set(shares.values()) == ({1.0} if by_the_model else set())
        for written, again in scores.values():
            assert again == pytest.approx(written, abs=1e-9)
    (copy / "outputs" / "test.txt").write_text("RED DOG\n" * 12)
    shares, _ = rescored(copy, made.card, paths, by_the_model=True)
    assert (shares["val"], shares["test"] < 0.99) == (1.0, True)
    _, scores = rescored(copy, made.card, paths)
    assert scores["val"][0] == pytest.approx(scores["val"][1])
    assert scores["test"][0] != pytest.approx(scores["test"][1], abs=0.1)
