"""BLEU, chrF and TER as a metric of the `evaluate` library that needs no network."""

from pathlib import Path
from typing import Any


def translation_metric_path() -> Path:
    """Returns the path of the metric.

    Returns:
        The folder, for `evaluate.load(str(folder))`.
    """
    return Path(__file__).parent


def load_translation_metric(**options: Any) -> Any:
    """Loads the metric.

    Args:
        **options: for `evaluate.load`.

    Returns:
        An `evaluate.Metric`. Its `compute(predictions=..., references=...)` takes one reference for each prediction, or
        a list of them, and the options of `score_translations`, whose `metrics` here have TER too; it returns values
        and signatures by name, such as `bleu` and `bleu_signature`.
    """
    import evaluate  # takes a second, and nothing else here needs it

    return evaluate.load(str(translation_metric_path()), **options)


__all__ = ["load_translation_metric", "translation_metric_path"]
