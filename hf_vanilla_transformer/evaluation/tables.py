"""What `compare_systems` finds, as tables to read."""

from collections.abc import Mapping, Sequence
from typing import Any

from .by_length import LengthComparison
from .scores import METRICS
from .tuning import TriedDecoding

_LIKELIHOOD = ["perplexity", "nats per character"]


def comparison_table(comparison: Mapping[str, Any]) -> str:
    """Formats the result of `compare_systems`: one table of systems for each way to score, and one of test sets.

    What models translated with stands below.

    Args:
        comparison: the result.

    Returns:
        Several lines of text.
    """
    parts = ["\n".join(_scoring_lines(each)) for each in comparison["scorings"]]
    if engines := comparison.get("engines"):  # which older results have not
        parts.append("Translated by " + "; ".join(f"{engine}: {name}" for name, engine in engines.items()))
    return "\n\n".join(parts)


def length_tables(comparisons: Sequence[LengthComparison]) -> str:
    """Formats scores by length: a table for each test set.

    Args:
        comparisons: as `compare_by_length` returns them.

    Returns:
        Several lines of text.
    """
    tables = []
    for each in comparisons:
        title = [] if len(comparisons) == 1 or each.name is None else [f"{each.name}:"]
        tables.append("\n".join([*title, *_aligned(each.rows())]))
    return "\n\n".join(tables)


def tried_table(tried: Sequence[TriedDecoding], names: Sequence[str], metric: str) -> str:
    """Formats what `try_decodings` finds: a row for each number of beams and length penalty.

    Args:
        tried: what was tried.
        names: of the models.
        metric: what the scores are of.

    Returns:
        Several lines of text.
    """
    title = METRICS[metric]
    of_models = [f"{title} of {name}" for name in names] if len(names) > 1 else []
    rows = [["beams", "alpha", *of_models, f"mean {title}" if of_models else title, "length"]]
    for each in tried:
        of_each = [f"{score:.2f}" for score in each.scores] if of_models else []
        rows.append(
            [str(each.num_beams), f"{each.length_penalty:g}", *of_each, f"{each.mean:.2f}", f"{each.length_ratio:.3f}"]
        )
    return "\n".join(_aligned(rows))


def _scoring_lines(scoring: Mapping[str, Any]) -> list[str]:
    test_sets, macro = scoring["test_sets"], scoring["macro_average"]
    whole = macro or test_sets[0]
    scores = whole["systems"][0]["scores"]
    metrics, count = list(scores), len(whole["systems"])
    lines = []
    if macro is not None:
        lines.append(f"Average over {len(test_sets)} test sets")
    lines += _aligned(_system_rows(whole, metrics))
    if macro is not None:
        what = "" if count == 1 else f": mean of {count} systems ± standard deviation"
        lines += ["", f"By test set{what}", *_aligned(_test_set_rows(test_sets, metrics))]
    tested = test_sets[0]["paired_bootstrap"]
    if tested:
        lines += ["", "Paired bootstrap of the two: mean and 95 % interval of the samples, p-value of the difference"]
        lines += _aligned([[METRICS[name], *_test_cells(one)] for name, one in tested.items()])
    lines.append("")
    if any(scores[name]["interval"] is not None for name in metrics):
        lines.append("± is half the width of the 95 % interval by bootstrap over sentences.")
    if macro is None and test_sets[0]["name"]:
        lines.append(f"Test set: {test_sets[0]['name']}, {test_sets[0]['sentences']} sentences")
    if scoring["text"]:
        lines.append(
            f"Text: {scoring['text']} (changed so before scoring: figures that belong in no table with others)"
        )
    return [*lines, *(f"{METRICS[name]}: {scores[name]['signature']}" for name in metrics)]


def _system_rows(whole: Mapping[str, Any], metrics: Sequence[str]) -> list[list[str]]:
    rows = [["", *(METRICS[name] for name in metrics)]]
    if any(system.get("likelihood") for system in whole["systems"]):
        rows[0] += _LIKELIHOOD
    for system in whole["systems"]:
        cells = [system["name"], *_score_cells(system, metrics), *_likelihood_cells(system)]
        rows.append(_filled(cells, rows[0]))
    if spread := whole["spread"]:
        for key, name in (
            ("mean", "mean"),
            ("standard_deviation", "standard deviation"),
            ("min", "min"),
            ("max", "max"),
        ):
            rows.append(_filled([name, *(f"{spread[metric][key]:.2f}" for metric in metrics)], rows[0]))
    return rows


def _test_set_rows(test_sets: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[list[str]]:
    rows = [["", "sentences", *(METRICS[name] for name in metrics)]]
    if any(each["spread"] is None and each["systems"][0]["likelihood"] for each in test_sets):
        rows[0] += _LIKELIHOOD
    for each in test_sets:
        cells = [each["name"], f"{each['sentences']:,}"]
        if spread := each["spread"]:
            cells += [f"{spread[name]['mean']:.2f} ± {spread[name]['standard_deviation']:.2f}" for name in metrics]
        else:
            cells += [*_score_cells(each["systems"][0], metrics), *_likelihood_cells(each["systems"][0])]
        rows.append(_filled(cells, rows[0]))
    return rows


def _score_cells(system: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    scores = [system["scores"][name] for name in metrics]
    return [
        f"{each['value']:.2f}" + ("" if each["interval"] is None else f" ± {each['interval']:.2f}") for each in scores
    ]


def _likelihood_cells(system: Mapping[str, Any]) -> list[str]:
    likelihood = system.get("likelihood")
    return [f"{likelihood['perplexity']:.3f}", f"{likelihood['nats_per_character']:.4f}"] if likelihood else []


def _filled(cells: list[str], titles: list[str]) -> list[str]:
    return cells + ["-"] * (len(titles) - len(cells))


def _test_cells(comparison: Mapping[str, Any]) -> list[str]:
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
