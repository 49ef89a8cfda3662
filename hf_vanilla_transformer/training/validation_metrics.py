"""What an evaluation finds, by name: likelihood, and the scores of translations that a run asks for."""

from typing import Any

from ..evaluation.scores import HIGHER_IS_BETTER, OF_TRANSLATIONS

LIKELIHOOD = ("loss", "perplexity")
DEFAULT = ("bleu", "chrf")


def is_better_higher(metric: str) -> bool:
    """Returns whether more is better of a metric.

    Args:
        metric: as `metric_for_best_model` names it, such as `bleu` or `eval_bleu`.
    """
    return metric.rpartition("_")[2] in HIGHER_IS_BETTER


def deciding_metric(args: Any) -> str:
    """Returns the metric by which weights are judged, without transformers' prefix of validation scores.

    Args:
        args: the arguments of a run.
    """
    return str(args.metric_for_best_model or "loss").removeprefix("eval_")


def decided_by_scores(args: Any) -> list[str]:
    """Finds what of a run its validation scores decide.

    Args:
        args: the arguments of a run.

    Returns:
        Settings, as `name=value`.
    """
    needs = {
        "final_weights=best": args.final_weights == "best",
        f"early_stopping_patience={args.early_stopping_patience}": args.early_stopping_patience > 0,
        "save_strategy=best": args.save_strategy == "best",
    }
    return [name for name, is_asked in needs.items() if is_asked]


def check_validation_metrics(args: Any, one_set: bool = False) -> None:
    """Refuses metrics that there are not, and to be judged by one that the run does not compute.

    Args:
        args: the arguments of a run.
        one_set: whether there is one validation set, whose scores have no name of a set in front of them, as those of
            several sets by name do, which a trainer may be given.

    Raises:
        ValueError: a metric is unknown, not computed, or of translations where there are none.
    """
    for name in args.validation_metrics:
        if name not in OF_TRANSLATIONS:
            raise ValueError(f"validation_metrics has {name!r}, which is none of {', '.join(OF_TRANSLATIONS)}")
    if args.objective != "translation" and tuple(args.validation_metrics) != DEFAULT:
        raise ValueError(f"validation_metrics are of translations; {args.objective} has loss and perplexity")
    metric = deciding_metric(args)
    if not one_set:
        metric = metric.rpartition("_")[2]
    if metric in OF_TRANSLATIONS and args.objective != "translation":
        raise ValueError(f"metric_for_best_model={metric} is of translations; {args.objective} has loss and perplexity")
    if metric in OF_TRANSLATIONS and metric not in args.validation_metrics:
        raise ValueError(
            f"metric_for_best_model={args.metric_for_best_model} is not computed; give validation_metrics "
            f"{' '.join([*args.validation_metrics, metric])}"
        )
    if metric not in (*LIKELIHOOD, *OF_TRANSLATIONS):
        raise ValueError(
            f"metric_for_best_model={args.metric_for_best_model!r} is none of "
            f"{', '.join([*LIKELIHOOD, *OF_TRANSLATIONS])}"
        )


__all__ = [
    "DEFAULT",
    "LIKELIHOOD",
    "check_validation_metrics",
    "decided_by_scores",
    "deciding_metric",
    "is_better_higher",
]
