"""The tables of a card: scores, each kind of scoring by itself; examples; training."""

import statistics
from collections.abc import Sequence

from ..evaluation.scores import HIGHER_IS_BETTER, METRICS
from ..lab.planning import format_table
from .results_schema import Evaluation, Example, Examples, Score, Scoring, Training


def results_section(evaluations: Sequence[Evaluation], training: Training) -> str:
    """Writes all scores, the test sets first, with their intervals, runs and signatures.

    Args:
        evaluations: of results.json.
        training: likewise.

    Returns:
        Markdown.
    """
    parts = []
    for evaluation in sorted(evaluations, key=lambda each: each["role"] != "test"):
        parts.append(f"### {evaluation['title']}")
        parts += [part for part in [_described(evaluation)] if part]
        for scoring in evaluation["scorings"]:
            if scoring.get("title"):
                parts.append(f"#### {scoring['title'][:1].upper()}{scoring['title'][1:]}")
            parts.append(score_table(scoring, training))
            parts += [part for part in (_published_table(scoring, training), _parts_table(scoring, training)) if part]
            parts.append(_signatures(scoring, training))
    return "\n\n".join(parts)


def score_table(scoring: Scoring, training: Training) -> str:
    """Writes the scores of one scoring: those of the shipped run and, where there are several, of each run.

    Args:
        scoring: a line for each of its metrics.
        training: the runs.

    Returns:
        A table in Markdown.
    """
    runs, shipped = training["runs"], scoring["runs"][training["shipped"]]
    has_intervals = any(score.get("interval") is not None for score in shipped.values())
    header = ["Metric", "This checkpoint", *(["95 % interval"] if has_intervals else [])]
    if len(runs) > 1:
        header += [f"Seed {run['seed']}" for run in runs] + ["Mean ± standard deviation"]
    rows = []
    for name, score in shipped.items():
        row = [metric_title(name), f"{score['value']:.2f}", *([_interval(score)] if has_intervals else [])]
        if len(runs) > 1:
            values = [each[name]["value"] for each in scoring["runs"]]
            row += [f"{value:.2f}" for value in values]
            row.append(f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}")
        rows.append(row)
    return table(header, rows)


def metric_title(name: str) -> str:
    """What tables call a metric: `WER (lower is better)`.

    Args:
        name: of `evaluation.METRICS`.

    Returns:
        The words.
    """
    return METRICS[name] + ("" if name in HIGHER_IS_BETTER else " (lower is better)")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Writes a table in Markdown, in which text of any kind stays in its cell.

    Args:
        header: names of the columns.
        rows: cells.

    Returns:
        Its lines.
    """
    return "\n".join(format_table(*([cell(text) for text in row] for row in (header, *rows))))


def cell(text: str) -> str:
    """Escapes what would end a cell of a table or be taken for Markdown or HTML in it.

    Args:
        text: any.

    Returns:
        The same text for readers.
    """
    for special in ("\\", "|", "*", "_", "`", "<", "["):
        text = text.replace(special, "\\" + special)
    return " ".join(text.split())


def examples_section(examples: Examples) -> str:
    """Writes the best and the worst translations of a test set.

    Args:
        examples: of results.json.

    Returns:
        Markdown.
    """
    parts = [examples["rule"]]
    for title, chosen in (("The best:", examples["good"]), ("The worst:", examples["bad"])):
        parts += [title, "\n".join(_example(each, METRICS[examples["metric"]]) for each in chosen)]
    return "\n\n".join(parts)


def _example(example: Example, metric: str) -> str:
    score = f"{metric} {example['score']:.1f}"
    lines = [f"- {cell(example['source'])}", f"  - output ({score}): {cell(example['output'])}"]
    return "\n".join([*lines, f"  - reference: {cell(example['reference'])}"])


def _described(evaluation: Evaluation) -> str:
    if "sentences" not in evaluation:
        return ""
    references = "one reference" if evaluation["references"] == 1 else f"{evaluation['references']} references"
    text = f"{evaluation['sentences']:,} lines, {references} each"
    if (count := len(evaluation["texts"])) > 1:
        text += f", in {count} texts, over which scores are averaged"
    return f"{text}. The outputs are in [outputs](outputs)."


def _interval(score: Score) -> str:
    if score.get("interval") is None:
        return "-"
    half: float = score["interval"] or 0.0
    return f"{score['value'] - half:.2f} to {score['value'] + half:.2f}"


def _mean(of_runs: Sequence[dict[str, Score]], metric: str) -> str:
    return f"{statistics.fmean(each[metric]['value'] for each in of_runs):.2f}"


def _published_table(scoring: Scoring, training: Training) -> str:
    if not scoring.get("published"):
        return ""
    shipped = scoring["runs"][training["shipped"]]
    rows: list[list[str]] = []
    for name in dict.fromkeys(each["metric"] for each in scoring["published"]):
        if name in shipped:
            rows.append(["this checkpoint", metric_title(name), f"{shipped[name]['value']:.2f}", ""])
            if (count := len(scoring["runs"])) > 1:
                rows.append([f"mean of {count} seeds", metric_title(name), _mean(scoring["runs"], name), ""])
        given = [each for each in scoring["published"] if each["metric"] == name]
        rows += [[each["system"], metric_title(name), f"{each['value']:.2f}", each["source"]] for each in given]
    return "Beside figures that others published, scored in this way:\n\n" + table(
        ["System", "Metric", "Score", "Source"], rows
    )


def _parts_table(scoring: Scoring, training: Training) -> str:
    """Scores of the checkpoint by text, such as a language, and the mean over seeds, beside the published ones."""
    by_run = scoring.get("parts") or {}
    parts = {name: of_runs[training["shipped"]] for name, of_runs in by_run.items()}
    if not parts:
        return ""
    columns: list[list[str]] = [["Text", *parts]]
    for metric in next(iter(parts.values())):
        title = metric_title(metric)
        columns.append([title, *(f"{scores[metric]['value']:.2f}" for scores in parts.values())])
        columns.append(["95 % interval", *(_interval(scores[metric]) for scores in parts.values())])
        if (count := len(training["runs"])) > 1:
            columns.append([f"Mean of {count} seeds", *(_mean(of_runs, metric) for of_runs in by_run.values())])
        for each in scoring.get("published") or []:
            if each["metric"] == metric and each["by_text"]:
                found = [each["by_text"].get(name) for name in parts]
                figures = ["" if value is None else f"{value:.2f}" for value in found]
                columns.append([f"{METRICS[metric]} of {each['system']}", *figures])
    header, *rows = zip(*columns, strict=True)
    return table(header, rows)


def _signatures(scoring: Scoring, training: Training) -> str:
    shipped = scoring["runs"][training["shipped"]]
    lines = [f"- {METRICS[name]}: `{score['signature']}`" for name, score in shipped.items() if score.get("signature")]
    if scoring.get("text"):
        lines.insert(0, f"- text, changed before it was scored: `{scoring['text']}`")
        lines.append("\nCompare these figures with those of papers that score so, and not with those of other tables.")
    return "\n".join(lines)
