"""One system, or one against another: translated, scored, tested for significance, and written as a table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers.utils import logging

from ..inference import load_translator, translate
from .moses import moses_description, moses_lowercased
from .pair_scores import ScoreTotals, score_pairs
from .scores import score_translations
from .significance import paired_bootstrap

logger = logging.get_logger(__name__)

_TITLES = {"bleu": "BLEU", "chrf": "chrF", "ter": "TER"}


@dataclass(frozen=True)
class System:
    """The translations of a text by one system.

    Args:
        name: of the system.
        translations: detokenised, one for each sentence.
        likelihood: how probable the system finds all references; None if it is not a model.
    """

    name: str
    translations: list[str]
    likelihood: ScoreTotals | None = None


def system_of_model(
    name: str,
    sources: Sequence[str],
    references: Sequence[Sequence[str]],
    device: str = "auto",
    dtype: str = "auto",
    batch_tokens: int = 4096,
    tag: str | None = None,
    **translation_options: Any,
) -> System:
    """Translates with a model, and scores the references by it.

    Args:
        name: folder (or Hub name) of the model and its tokenizer.
        sources: sentences.
        references: whole texts, each with one translation for each sentence.
        device: where to compute; "auto" for the best device there is.
        dtype: of the weights; "auto" for the one in which they are saved.
        batch_tokens: tokens of a side that are translated or scored at a time, padding included.
        tag: what to put in front of each source, such as "2de" for the token `<2de>`.
        **translation_options: for `translate()` and so for `generate()`, such as `num_beams`.

    Returns:
        Translations, each without line breaks, and likelihood. If a reference cannot be scored, a warning says why, and
        the likelihood is None.

    Raises:
        OSError: there is no such model.
        ValueError: an option is out of its range.
    """
    model, tokenizer = load_translator([name], device, dtype)
    translations = list(translate(model, tokenizer, sources, batch_tokens=batch_tokens, tag=tag, **translation_options))
    totals = ScoreTotals()
    try:
        for text in references:
            for score in score_pairs(model, tokenizer, zip(sources, text, strict=True), batch_tokens, tag=tag):
                totals.add(score)
    except ValueError as error:  # the translations are still of use
        logger.warning(f"no perplexity of {name}: {error}")
        return System(name, translations)
    return System(name, translations, totals)


def compare_systems(
    system: System,
    baseline: System | None,
    references: Sequence[Sequence[str]],
    ter: bool = True,
    lowercase: bool = False,
    tokenize: str = "13a",
    moses_language: str | None = None,
    num_resamples: int = 1000,
    seed: int = 12345,
    test_set: str | None = None,
) -> dict[str, Any]:
    """Scores one system, or two and the difference between them.

    Args:
        system: the system to score.
        baseline: a system to compare it with; None for none.
        references: whole texts, each with one translation for each sentence.
        ter: whether to compute TER too.
        lowercase: whether to ignore case.
        tokenize: name of sacrebleu's tokeniser for BLEU.
        moses_language: language of the texts, which are then changed by `moses_lowercased` and scored with
            `tokenize="none"`; None to score them as they are.
        num_resamples: samples of the paired bootstrap test, which is done if there is a baseline.
        seed: of its samples.
        test_set: name of the text, if it has one.

    Returns:
        To be written as JSON: `test_set`, `sentences`, `references` (how many each sentence has), `text` (what was
        done to it, or None), `systems` (`name`, `scores`, and `likelihood` or None, each) and `paired_bootstrap`, by
        metric, or None.

    Raises:
        ValueError: the numbers of sentences differ or are 0, an option is out of its range, or `moses_language` is
            given and sacremoses is not installed.
    """
    systems = [system] if baseline is None else [system, baseline]
    texts = [each.translations for each in systems]
    if moses_language is not None:
        tokenize = "none"
        texts = [moses_lowercased(text, moses_language) for text in texts]
        references = [moses_lowercased(text, moses_language) for text in references]
    by_sentence = list(zip(*references, strict=True))
    options: dict[str, Any] = {"ter": ter, "lowercase": lowercase, "tokenize": tokenize}
    tested = None
    if len(texts) == 2:
        options_of_test = {**options, "num_resamples": num_resamples, "seed": seed}
        comparisons = paired_bootstrap(texts[0], texts[1], by_sentence, **options_of_test)
        tested = {name: asdict(comparison) for name, comparison in comparisons.items()}
    return {
        "test_set": test_set,
        "sentences": len(by_sentence),
        "references": len(references),
        "text": None if moses_language is None else moses_description(moses_language),
        "systems": [
            {
                "name": each.name,
                "scores": asdict(score_translations(text, by_sentence, **options)),
                "likelihood": None if each.likelihood is None else each.likelihood.as_dict(),
            }
            for each, text in zip(systems, texts, strict=True)
        ],
        "paired_bootstrap": tested,
    }


def comparison_table(comparison: dict[str, Any]) -> str:
    """Formats the result of `compare_systems` as a table.

    Args:
        comparison: the result.

    Returns:
        Several lines of text.
    """
    first = comparison["systems"][0]["scores"]
    metrics = [name for name in _TITLES if first[name] is not None]
    rows = [["", *(_TITLES[name] for name in metrics)]]
    has_likelihood = any(system["likelihood"] for system in comparison["systems"])
    if has_likelihood:
        rows[0] += ["perplexity", "nats per character"]
    for system in comparison["systems"]:
        row = [system["name"], *(f"{system['scores'][name]:.2f}" for name in metrics)]
        if likelihood := system["likelihood"]:
            row += [f"{likelihood['perplexity']:.3f}", f"{likelihood['nats_per_character']:.4f}"]
        rows.append(row + ["-"] * (len(rows[0]) - len(row)))
    lines = _aligned(rows)
    if tested := comparison["paired_bootstrap"]:
        lines += ["", "Paired bootstrap of the two: mean and 95 % interval of the samples, p-value of the difference"]
        lines += _aligned([[_TITLES[name], *_test_cells(one)] for name, one in tested.items()])
    lines.append("")
    if comparison["test_set"]:
        lines.append(f"Test set: {comparison['test_set']}, {comparison['sentences']} sentences")
    if comparison["text"]:
        lines.append(f"Text: {comparison['text']}")
    for name in metrics:
        signature = tested[name]["signature"] if tested else first[f"{name}_signature"]
        lines.append(f"{_TITLES[name]}: {signature}")
    return "\n".join(lines)


def _test_cells(comparison: dict[str, Any]) -> list[str]:
    own, other = ((comparison[f"{which}mean"], comparison[f"{which}interval"]) for which in ("", "baseline_"))
    # Samples of two equal texts never differ, which sacrebleu takes for significant.
    is_equal = own == other and comparison["score"] == comparison["baseline_score"]
    p_value = "the same" if is_equal else f"p = {comparison['p_value']:.4f}"
    return [f"{own[0]:.2f} ± {own[1]:.2f}", f"{other[0]:.2f} ± {other[1]:.2f}", p_value]


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
