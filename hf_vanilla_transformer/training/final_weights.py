"""§6.1: which weights a run ends with: an average, the last, the best; and whether an average is any better."""

from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.utils import logging

from .averaging import average_weights, last_checkpoints
from .ranks import broadcast_weights, by_main_process
from .validation_metrics import deciding_metric

if TYPE_CHECKING:
    from .trainer import VanillaTransformerTrainer

logger = logging.get_logger(__name__)


def take_final_weights(trainer: "VanillaTransformerTrainer") -> str:
    """Gives the model the weights that its run is to end with.

    An average, of checkpoints or moving, is compared with the last update on the validation set, by
    `metric_for_best_model`. The better of the two is kept, unless `keep_worse_average` says otherwise: the average of a
    run that was too short for it is worse than its last update. Without a validation set, the average is kept.

    Args:
        trainer: after training.

    Returns:
        Which weights they are, and how the two compared. Without a best checkpoint, it is the last update, with the
        reason.

    Raises:
        ValueError: the checkpoints cannot be averaged, or have other weights than the model.
    """
    args, state, model = trainer.args, trainer.state, trainer.accelerator.unwrap_model(trainer.model)
    if args.final_weights == "best":
        if state.best_model_checkpoint is None:
            reason = _why_there_is_no_best(trainer)
            _warn(trainer, f"final_weights=best keeps the last update: {reason}")
            return f"last update ({reason})"
        return f"best {args.metric_for_best_model}, update {state.best_global_step}"
    if args.final_weights == "last":
        return "last update"
    former = _score(trainer)
    last = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    if args.final_weights == "ema":
        assert trainer.moving_average is not None
        trainer.moving_average.copy_to(model)
        name = f"moving average, decay {args.ema_decay}"
    else:
        name = _average(trainer, model)
    averaged = _score(trainer)
    if former is None or averaged is None:
        _warn(trainer, f"without a validation set, whether the {name} is better than the last update was not found out")
        return name
    metric = args.metric_for_best_model
    is_worse = averaged < former if args.greater_is_better else averaged > former
    compared = f"{metric} {averaged:.4f}, of the last update {former:.4f}"
    if not is_worse:
        return f"{name}: {compared}"
    if args.keep_worse_average:
        _warn(trainer, f"the {name} is worse than the last update, and kept: {compared}")
        return f"{name}, though worse: {compared}"
    _warn(
        trainer,
        f"the {name} is worse than the last update, which is kept instead: {compared}. "
        "To keep it anyway, give --keep_worse_average true",
    )
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.copy_(last[parameter_name])
    return f"last update: {metric} {former:.4f}, of the {name} {averaged:.4f}"


def _why_there_is_no_best(trainer: "VanillaTransformerTrainer") -> str:
    metric = deciding_metric(trainer.args)
    if trainer.state.best_global_step is not None:
        return f"the best, of update {trainer.state.best_global_step}, is not there any more"
    is_evaluated = any(f"eval_{metric}" in entry for entry in trainer.state.log_history)
    return f"no evaluation found a finite {metric}" if is_evaluated else "no evaluation was made"


def _warn(trainer: "VanillaTransformerTrainer", message: str) -> None:
    if trainer.is_world_process_zero():  # all processes come to the same conclusion
        logger.warning(message)


def load_exactly(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Loads weights that are the model's own, each once.

    Args:
        model: its tied weights are one parameter of several names, of which `weights` has one.
        weights: by name. Buffers may be among them, such as the directions of random features, which stay as they are.

    Raises:
        ValueError: a weight is missing, or belongs nowhere, or a buffer is another; nothing was loaded then.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    places = {name: parameters[name] for name in weights if name in parameters}
    buffers = {name: buffer for name, buffer in model.named_buffers() if name in weights}
    if other := [name for name, each in buffers.items() if not _is_close(each, weights[name])]:
        raise ValueError(f"the checkpoints are not of this model: {other[0]} is another, and is not learned")
    foreign = weights.keys() - places.keys() - buffers.keys()
    given = {id(parameter) for parameter in places.values()}
    missing = [name for name, parameter in model.named_parameters() if id(parameter) not in given]
    if foreign or missing:
        raise ValueError(
            f"the checkpoints are not of this model: they lack {missing[:5]}, and have {sorted(foreign)[:5]} instead"
        )
    for name, parameter in places.items():
        if parameter.shape != weights[name].shape:
            raise ValueError(f"{name} is {tuple(weights[name].shape)}, in the model {tuple(parameter.shape)}")
    with torch.no_grad():
        for name, parameter in places.items():
            parameter.copy_(weights[name])


def _is_close(buffer: torch.Tensor, other: torch.Tensor) -> bool:
    return buffer.shape == other.shape and torch.allclose(buffer.double().cpu(), other.double().cpu(), rtol=1e-6)


def _average(trainer: "VanillaTransformerTrainer", model: nn.Module) -> str:
    def work() -> int:
        checkpoints = last_checkpoints(trainer.args.output_dir, trainer.args.average_last)
        load_exactly(model, average_weights(checkpoints))
        return len(checkpoints)

    # One process reads and adds up, and the others are given the result.
    count = by_main_process(work)
    broadcast_weights(model)
    return f"average of {count} checkpoint{'s' if count > 1 else ''}"


def _score(trainer: "VanillaTransformerTrainer") -> float | None:
    """The metric by which the weights are judged, of those that the model has now."""
    if trainer.eval_dataset is None:
        return None
    metric = deciding_metric(trainer.args)
    return trainer.scores(trainer.eval_dataset, translations=metric not in ("loss", "perplexity"))[metric]


__all__ = ["load_exactly", "take_final_weights"]
