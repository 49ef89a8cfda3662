"""From a finished run to the folder of a checkpoint: exactly its repository on the Hub, but for the code."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.tokenization import save_tokenizer
from ..evaluation import EvaluationSet
from ..inference import load_translator, open_output, translate
from ..interop.output_folder import OF_MODELS, output_folder, refuse_foreign_files
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..training.environment import describe_environment
from .card_file import CardFile
from .example_translations import pick_examples
from .model_card import render_card, require_hub_name, shape_of
from .model_files import sizes_of_files
from .public_recipe import PublicPaths, recipe_text
from .release_scores import (
    choose_run,
    evaluate_test_set,
    possible_outputs,
    read_texts,
    scorings_of,
    translate_texts,
    write_outputs,
)
from .results_schema import FORMAT, Example, Examples, Results
from .runs import FinishedRun, read_runs, unshared_models

# Names of what a release is made of.
_OF_RELEASES = (*OF_MODELS, "README.md", "results.json", "recipe.yaml", "curves.png", "outputs")

# All files of a checkpoint together, in bytes: as much as a repository of code can carry for each.
LARGEST_FOLDER = 15 * 10**6


def release(
    runs: Sequence[str | Path],
    output_dir: str | Path,
    card: CardFile,
    paths: PublicPaths | None = None,
    overwrite: bool = False,
    device: str = "auto",
    batch_tokens: int = 4096,
    num_resamples: int = 1000,
    largest_folder: int = LARGEST_FOLDER,
    say: Callable[[str], None] = lambda line: None,
) -> Results:
    """Makes the folder of a checkpoint: weights, tokenizer, card, figures, recipe, curves and outputs.

    Every run translates every test set of the card, which is scored in one way or two. The run with the best score on
    the first validation set is the checkpoint; the others are there for the mean and the spread.

    Args:
        runs: outputs of finished runs of one recipe, with different seeds.
        output_dir: the folder, whose name is that of the checkpoint; appears whole or not at all.
        card: what people write about it.
        paths: what folders of this machine are called by others.
        overwrite: whether an earlier release in the folder is replaced, as a whole.
        device: where to translate.
        batch_tokens: tokens of a side that are translated at a time, padding included.
        num_resamples: samples of which the 95 % intervals are.
        largest_folder: bytes that all files together may have.
        say: is told what is being done, a line each.

    Returns:
        What results.json holds.

    Raises:
        OSError: a run is not finished, a text is missing, or the folder cannot be written.
        ValueError: the runs, the card or the texts do not fit together, or the folder is too large.
    """
    paths = paths or PublicPaths()
    output_dir = Path(output_dir)
    require_hub_name(output_dir.name)
    finished = read_runs(runs, paths)
    for run in finished:
        if output_dir.exists() and output_dir.samefile(run.folder):
            raise FileExistsError(f"{output_dir} is the folder of a run, which must stay as it is; name another one")
    if (unshared := unshared_models(finished[0])) and card.begins_with is None:
        raise ValueError(
            f"the runs were given {', '.join(unshared)}, which others do not have; say in the card, by begins_with, "
            "how it was made"
        )
    # What is wrong with the card is to be found before the long work begins.
    texts = {each.name: read_texts(each, card, paths) for each in card.test_sets}
    scorings = {each.name: scorings_of(each, card) for each in card.test_sets}
    paths.refuse_unused()
    if len(finished) > 1 and not any(each.role == "validation" for each in card.test_sets):
        raise ValueError("the best of several runs is chosen on a validation set, and the card has none in test_sets")
    if overwrite:
        _refuse_other_outputs(output_dir, card, finished)
    with output_folder(output_dir, overwrite, runs[0], _OF_RELEASES) as folder:
        outputs = []
        for run in finished:
            say(f"translating {', '.join(texts)} with {run.folder}")
            model, tokenizer = load_translator([run.folder], device)
            if not isinstance(model, VanillaTransformerForConditionalGeneration):
                raise ValueError(f"{run.folder} is a {type(model).__name__}, which is not a model of this package")
            outputs.append(translate_texts(model, tokenizer, texts, batch_tokens))
        by_set = {name: [of_run[name] for of_run in outputs] for name in texts}
        say("scoring")
        evaluations = [
            evaluate_test_set(each, texts[each.name], scorings[each.name], by_set[each.name], num_resamples)
            for each in card.test_sets
        ]
        shipped, chosen_by = choose_run(evaluations)
        run = finished[shipped]
        say(f"writing {output_dir} with the weights of {run.folder}")
        for evaluation in evaluations:
            write_outputs(folder, evaluation, finished, shipped, by_set[evaluation["name"]])
        if run is not finished[-1]:  # whose model is still there
            model, tokenizer = load_translator([run.folder], device)
        results: Results = {
            "format": FORMAT,
            "name": output_dir.name,
            "model": shape_of(model, tokenizer),
            "training": {
                "runs": [each.described() for each in finished],
                "shipped": shipped,
                "chosen_by": chosen_by,
                "arguments": run.arguments,
            },
            "evaluations": evaluations,
            "inputs": translate_inputs(model, tokenizer, card.inputs),
            "environment": describe_environment(model.device),
            "history": run.history,
        }
        _save_model(model, tokenizer, folder)
        shutil.copyfile(run.folder / "curves.png", folder / "curves.png")
        (folder / "recipe.yaml").write_text(recipe_text(run.arguments, output_dir.name), encoding="utf-8")
        results["examples"] = _examples(card, texts, outputs[shipped])
        write_card(folder, apply_card(results, card))
        _check_size(folder, largest_folder)
    return results


def refresh_card(folder: str | Path, card: CardFile | None = None) -> Results:
    """Writes the card of a released checkpoint anew, of the figures that it has; nothing is translated but new inputs.

    Args:
        folder: of the checkpoint.
        card: new texts; None for those that results.json has.

    Returns:
        What results.json holds now.

    Raises:
        OSError: there is no such folder, or it cannot be written.
        ValueError: results.json is not that of a release, or the card has test sets that were not scored.
    """
    folder = Path(folder)
    results = read_results(folder)
    if card is not None:
        if [each["source"] for each in results["inputs"]] != card.inputs:
            results["inputs"] = translate_inputs(*load_translator([folder], "cpu"), card.inputs)
        results = apply_card(results, card)
    write_card(folder, results)
    return results


def read_results(folder: str | Path) -> Results:
    """Reads what a card is made of.

    Args:
        folder: of a released checkpoint.

    Returns:
        What its results.json holds.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or that of a run that was not released.
    """
    path = Path(folder) / "results.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not the folder of a checkpoint: it has no results.json")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(results, dict) or results.get("format") != FORMAT:
        raise ValueError(
            f"{path} is not of a released checkpoint in format {FORMAT}, which `vanilla-transformer release` writes"
        )
    return results  # type: ignore[return-value]  # what a release has written


def write_card(folder: str | Path, results: Results) -> None:
    """Writes results.json, and README.md which is made of it.

    Args:
        folder: of the checkpoint.
        results: its figures and texts.
    """
    card = render_card(results)
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    for name, content in (("results.json", text), ("README.md", str(card))):
        with open_output(Path(folder) / name) as file:
            file.write(content)


def apply_card(results: Results, card: CardFile) -> Results:
    """Puts what people write into results.

    Args:
        results: the figures; changed in place.
        card: texts, titles of test sets, and published figures.

    Returns:
        The results.

    Raises:
        ValueError: the figures are of other test sets, or were computed in another way.
    """
    scored = {each["name"]: each for each in results["evaluations"]}
    before = {each["name"]: each for each in results.get("card", {}).get("test_sets", [])}
    for test_set in card.test_sets:
        evaluation = scored.pop(test_set.name, None)
        ways = ["cased", *(["moses_lowercase"] if test_set.moses_lowercase else [])]
        if evaluation is None or (
            evaluation["role"] != test_set.role
            or evaluation["texts"] != list(test_set.texts)
            or [each["name"] for each in evaluation["scorings"]] != ways
            or any(list(run) != test_set.metrics for each in evaluation["scorings"] for run in each["runs"])
            or _of_what(before.get(test_set.name, asdict(test_set))) != _of_what(asdict(test_set))
        ):
            raise ValueError(f"{test_set.name} was not scored as the card says; release the run again to score it")
        evaluation |= {"title": test_set.title, "dataset": test_set.dataset, "split": test_set.split}
        for scoring in evaluation["scorings"]:
            published = [asdict(each) for each in test_set.published if each.scoring == scoring["name"]]
            scoring["published"] = published
    if scored:
        raise ValueError(
            f"the card has no {' and no '.join(scored)}, which was scored; release the run again without it"
        )
    results["card"] = asdict(card)
    return results


def _of_what(test_set: Mapping[str, Any]) -> list[Any]:
    """What figures are of, besides what they say themselves."""
    return [test_set["texts"], test_set["moses_lowercase"]]


def translate_inputs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str]
) -> list[Example]:
    """Translates the examples of a card, one at a time as those who try them do.

    Args:
        model: in eval mode.
        tokenizer: its tokenizer.
        sentences: the examples.

    Returns:
        Sentences and translations.
    """
    return [
        {"source": sentence, "output": next(iter(translate(model, tokenizer, [sentence])))} for sentence in sentences
    ]


def _save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    model.cpu().float().save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def _examples(
    card: CardFile, texts: Mapping[str, Sequence[EvaluationSet]], translations: Mapping[str, Sequence[Sequence[str]]]
) -> Examples | None:
    """Those of the first test set; of a validation set where there is none."""
    test_set = next((each for each in card.test_sets if each.role == "test"), card.test_sets[0])
    metric = next((name for name in ("chrf", "per") if name in test_set.metrics), test_set.metrics[0])
    sources, untagged = (
        [sentence for text in texts[test_set.name] for sentence in getattr(text, side)]
        for side in ("sources", "untagged")
    )
    references = [row for text in texts[test_set.name] for row in zip(*text.references, strict=True)]
    outputs = [line for text in translations[test_set.name] for line in text]
    names = [name for name, text in zip(test_set.texts, texts[test_set.name], strict=True) for _ in text.sources]
    return pick_examples(sources, outputs, references, test_set.name, metric, untagged=untagged, texts=names)


def _check_size(folder: Path, largest: int) -> None:
    files = sizes_of_files(folder)
    if (total := sum(files.values())) > largest:
        heaviest = max(files, key=lambda name: files[name])
        raise ValueError(
            f"the folder would have {total:,} bytes, more than {largest:,}; the largest file is {heaviest} with "
            f"{files[heaviest]:,}"
        )


def _refuse_other_outputs(output_dir: Path, card: CardFile, runs: Sequence[FinishedRun]) -> None:
    """Refuses a folder in which there are outputs that are neither of its own release nor of the new one."""
    known = {name for each in card.test_sets for run in runs for name in possible_outputs(each, run)}
    with suppress(FileNotFoundError, ValueError):  # it is not a release
        evaluations = read_results(output_dir)["evaluations"]
        known |= {name for each in evaluations for of_run in each.get("outputs", []) for name in of_run}
    found = {path.relative_to(output_dir).as_posix() for path in (output_dir / "outputs").rglob("*") if path.is_file()}
    refuse_foreign_files(output_dir, found - known, "release")
