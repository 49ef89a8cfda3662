"""What a release measures: translations of every test set by every run, scored in each way that the card asks for."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..evaluation import (
    EvaluationSet,
    Scoring,
    System,
    compare_systems,
    default_tokenizer,
    moses_lowercase_scoring,
    read_test_set,
)
from ..evaluation.scores import HIGHER_IS_BETTER, METRICS, make_metrics
from ..evaluation.systems import check_translatable
from ..inference import translate
from .card_file import CardFile, CardTestSet
from .public_recipe import PublicPaths
from .results_schema import Evaluation
from .results_schema import Scoring as ScoringResults
from .runs import FinishedRun

# Ways to score by name, and what a card calls them; nothing for text that has neither case nor tokens.
_TITLES = {
    "cased": "cased, detokenised",
    "moses_lowercase": "lowercased, tokenised by Moses",
}
_OF_UNITS = {"wer", "per"}


def read_texts(test_set: CardTestSet, card: CardFile, paths: PublicPaths) -> list[EvaluationSet]:
    """Reads the texts of a test set.

    Args:
        test_set: of a card.
        card: which names the languages, for texts whose rows have them as keys.
        paths: where texts are on this machine.

    Returns:
        The texts, in the order of the card.

    Raises:
        OSError: a text is missing.
        ValueError: a text is damaged.
    """
    texts = []
    for corpus in test_set.texts.values():
        description = ",".join(f"{key}={paths.to_local(value)}" for key, value in corpus.items())
        is_file = "source" in corpus
        languages = card.languages if len(card.languages) == 2 and not is_file else (None, None)
        texts.append(read_test_set(description, *languages))
    return texts


def scorings_of(test_set: CardTestSet, card: CardFile) -> dict[str, Scoring]:
    """Says in which ways a test set is scored, and refuses what cannot be computed.

    Args:
        test_set: of a card.
        card: its last language decides how BLEU cuts text.

    Returns:
        Scorings by name: `cased` and, on request, `moses_lowercase`.

    Raises:
        ValueError: a metric or its tokeniser is not installed.
    """
    tokenize = default_tokenizer(card.languages[-1])
    make_metrics(test_set.metrics, tokenize=tokenize)
    scorings = {"cased": Scoring(test_set.metrics, tokenize=tokenize)}
    if test_set.moses_lowercase:
        scorings["moses_lowercase"] = moses_lowercase_scoring(test_set.moses_lowercase, test_set.metrics)
    return scorings


def translate_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, Sequence[EvaluationSet]],
    batch_tokens: int,
) -> dict[str, list[list[str]]]:
    """Translates all test sets by one model, as its `generation_config` says.

    Args:
        model: in eval mode.
        tokenizer: its tokenizer.
        texts: of each test set by name.
        batch_tokens: tokens of a side at a time, padding included.

    Returns:
        Translations of each text of each test set by name.

    Raises:
        ValueError: the tokenizer cannot read a text (`check_translatable`).
    """
    for text in (text for of_set in texts.values() for text in of_set):
        check_translatable(tokenizer, text)
    return {
        name: [list(translate(model, tokenizer, text.sources, batch_tokens=batch_tokens)) for text in of_set]
        for name, of_set in texts.items()
    }


def evaluate_test_set(
    test_set: CardTestSet,
    texts: Sequence[EvaluationSet],
    scorings: Mapping[str, Scoring],
    translations: Sequence[Sequence[Sequence[str]]],
    num_resamples: int,
) -> Evaluation:
    """Scores the translations of one test set.

    Args:
        test_set: of a card.
        texts: its texts.
        scorings: as `scorings_of` returns them.
        translations: of each run, of each text.
        num_resamples: samples of which the 95 % intervals are.

    Returns:
        Its figures, but for what `apply_card` adds.
    """
    systems = [System(str(number), [list(text) for text in each]) for number, each in enumerate(translations)]
    compared = compare_systems(systems, texts, list(scorings.values()), num_resamples=num_resamples)
    names = list(test_set.texts)
    found: list[ScoringResults] = []
    for name, scored in zip(scorings, compared["scorings"], strict=True):
        of_texts = [[system["scores"] for system in each["systems"]] for each in scored["test_sets"]]
        macro = scored["macro_average"]
        found.append(
            {
                "name": name,
                "title": "" if _OF_UNITS.issuperset(test_set.metrics) else _TITLES[name],
                "text": scored["text"],
                "runs": of_texts[0] if macro is None else [system["scores"] for system in macro["systems"]],
                "parts": {} if macro is None else dict(zip(names, of_texts, strict=True)),
            }
        )
    return {
        "name": test_set.name,
        "role": test_set.role,
        "texts": names,
        "sentences": sum(len(text.references[0]) for text in texts),
        "references": len(texts[0].references),
        "scorings": found,
    }


def choose_run(evaluations: Sequence[Evaluation]) -> tuple[int, str | None]:
    """Chooses the run that becomes the checkpoint: on the first validation set, by its first score.

    Args:
        evaluations: of all test sets.

    Returns:
        Which run it is, counted from 0, and by what it was chosen; the first one and None where there is no choice.
    """
    of_validation = [each for each in evaluations if each["role"] == "validation"]
    if not of_validation or len(of_validation[0]["scorings"][0]["runs"]) < 2:
        return 0, None
    scoring = of_validation[0]["scorings"][0]
    metric = next(iter(scoring["runs"][0]))
    values = [scores[metric]["value"] for scores in scoring["runs"]]
    best = max(values) if metric in HIGHER_IS_BETTER else min(values)
    return values.index(best), f"the best {METRICS[metric]} on {of_validation[0]['name']}"


def write_outputs(
    folder: Path,
    evaluation: Evaluation,
    runs: Sequence[FinishedRun],
    shipped: int,
    translations: Sequence[Sequence[Sequence[str]]],
) -> None:
    """Writes what was scored, so that it can be scored again without the model.

    Args:
        folder: of the checkpoint.
        evaluation: of the test set; is told the names of the files.
        runs: all runs.
        shipped: which of them is the checkpoint.
        translations: of each run, of each text.
    """
    (folder / "outputs").mkdir(exist_ok=True)
    evaluation["outputs"] = []
    for number, (run, of_run) in enumerate(zip(runs, translations, strict=True)):
        names = _output_names(evaluation["name"], evaluation["texts"], None if number == shipped else run.seed)
        for name, lines in zip(names, of_run, strict=True):
            (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
        evaluation["outputs"].append(names)


def possible_outputs(test_set: CardTestSet, run: FinishedRun) -> list[str]:
    """Names the files that `write_outputs` may write for a run, before it is known which run is the checkpoint.

    Args:
        test_set: of a card.
        run: it.
    """
    return [name for seed in (None, run.seed) for name in _output_names(test_set.name, list(test_set.texts), seed)]


def _output_names(name: str, texts: Sequence[str], seed: int | None) -> list[str]:
    """The files of a run, one for each text; None for the checkpoint's seed."""
    of_run = "" if seed is None else f".seed{seed}"
    return [f"outputs/{name}{f'.{text}' if len(texts) > 1 else ''}{of_run}.txt" for text in texts]
