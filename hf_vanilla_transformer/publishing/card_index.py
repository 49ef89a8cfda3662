"""The index of checkpoints: tables of all folders beside it, made of what their results.json say."""

from pathlib import Path

from ..inference import open_output
from .card_tables import cell, metric_title, table
from .release import read_results
from .results_schema import Results, Score

BEGIN = "<!-- checkpoints: written by `vanilla-transformer release --index` -->"
END = "<!-- end of checkpoints -->"

_NEW = f"""# Checkpoints

Each folder is the repository of one checkpoint on the Hub, but for the code, which `vanilla-transformer publish` adds.
`vanilla-transformer release` has made it of a finished run. Everything was chosen on validation sets; test sets are
scored once for a release.

{BEGIN}
{END}
"""


def index_text(folder: str | Path) -> str:
    """Writes the tables of all checkpoints in a folder: what they are, then their scores by test set and scoring.

    Args:
        folder: has a folder for each checkpoint.

    Returns:
        Markdown, between the marks by which `write_index` finds it again.

    Raises:
        ValueError: a folder has a results.json that is not of a release.
    """
    checkpoints = [read_results(path.parent) for path in sorted(Path(folder).glob("*/results.json"))]
    rows = []
    for each in checkpoints:
        training = each["training"]
        run = training["runs"][training["shipped"]]
        licence = each["card"].get("license_name") or each["card"]["license"]
        cells = [each["card"]["title"], f"{each['model']['parameters']:,}", f"{run['updates']:,}"]
        minutes = f"{run['minutes']:.1f}" + (" (last step)" if each["card"].get("begins_with") else "")
        rows.append([each["name"], *cells, minutes, str(len(training["runs"])), licence])
    header = ["Checkpoint", "What it is", "Parameters", "Updates", "Minutes", "Seeds", "Licence"]
    parts = [_linked(table(header, rows), checkpoints)] if rows else ["There is no checkpoint yet."]
    for title, scores in _scores(checkpoints).items():
        metrics = list(dict.fromkeys(name for of_one in scores.values() for name in of_one))
        lines = [[name, *(_said(of_one.get(metric)) for metric in metrics)] for name, of_one in scores.items()]
        of_scores = table(["Checkpoint", *map(metric_title, metrics)], lines)
        parts += [f"{title}; ± is half the width of the 95 % interval:", _linked(of_scores, checkpoints)]
    return "\n\n".join([BEGIN, *parts, END])


def write_index(path: str | Path) -> None:
    """Writes the tables into a file, in the place of those that it has; what else is in it stays.

    Args:
        path: such as `model_cards/README.md`; made where there is none.

    Raises:
        OSError: it cannot be written.
        ValueError: it has no place for the tables.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8") if path.exists() else _NEW
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no place for the tables, which is between the lines {BEGIN} and {END}")
    with open_output(path) as file:
        file.write(before + index_text(path.parent) + after)


def _scores(checkpoints: list[Results]) -> dict[str, dict[str, dict[str, Score]]]:
    """Scores of the checkpoints by name, for each test set and way to score: never two ways in one table."""
    found: dict[str, dict[str, dict[str, Score]]] = {}
    for each in checkpoints:
        for evaluation in each["evaluations"]:
            if evaluation["role"] == "test":
                for scoring in evaluation["scorings"]:
                    title = ", ".join(filter(None, [evaluation["title"], scoring["title"]]))
                    found.setdefault(title, {})[each["name"]] = scoring["runs"][each["training"]["shipped"]]
    return found


def _said(score: Score | None) -> str:
    if score is None:
        return ""
    half = score.get("interval")
    return f"{score['value']:.2f}" + ("" if half is None else f" ± {half:.2f}")


def _linked(text: str, checkpoints: list[Results]) -> str:
    for each in checkpoints:
        text = text.replace(f"| {cell(each['name'])} |", f"| [{cell(each['name'])}]({each['name']}) |")
    return text
