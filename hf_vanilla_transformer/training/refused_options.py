"""Options of transformers that would have no effect on a run of this package, each with what to use instead."""

from pathlib import Path
from typing import Any

from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_utils import SchedulerType

_BATCHES = "batches are made by max_tokens, of sentences as batching says"
_LOADER = "the loader of this package takes dataloader_num_workers and dataloader_pin_memory only"
_EVALUATION = "evaluation computes loss and validation_metrics itself, in batches of max_eval_tokens"

# By name: the value that asks for nothing, and what to use instead of any other. Not every version of transformers
# has all of them.
REFUSED: dict[str, tuple[Any, str]] = {
    # §5.4 is a field of the model, so that it smooths once.
    "label_smoothing_factor": (0.0, "label smoothing is the model's; use config_overrides label_smoothing=0.1"),
    "per_device_train_batch_size": (1, f"{_BATCHES}; use max_tokens"),
    "per_device_eval_batch_size": (8, "evaluation is in batches of max_eval_tokens; use that"),
    "auto_find_batch_size": (False, f"{_BATCHES}; use a lower max_tokens if memory runs out"),
    "group_by_length": (False, f"{_BATCHES}; leave it out"),
    "train_sampling_strategy": ("random", f"{_BATCHES}; leave it out"),
    "length_column_name": ("length", f"{_BATCHES}; leave it out"),
    "sortish_sampler": (False, f"{_BATCHES}; leave it out"),
    "dataloader_drop_last": (False, f"{_BATCHES}; leave it out"),
    "dataloader_persistent_workers": (False, _LOADER),
    "dataloader_prefetch_factor": (None, _LOADER),
    "dataloader_multiprocessing_context": (None, _LOADER),
    "dataloader_in_order": (True, _LOADER),
    "remove_unused_columns": (True, "the columns of a batch are chosen by the package; leave it out"),
    "label_names": (None, "the labels of a batch are chosen by the package; leave it out"),
    "predict_with_generate": (False, "every evaluation translates, for validation_metrics; leave it out"),
    "generation_max_length": (
        None,
        "translations may have 50 tokens more than their source (§6.1); set max_extra_tokens in the generation_config",
    ),
    "prediction_loss_only": (False, _EVALUATION),
    "eval_accumulation_steps": (None, _EVALUATION),
    "eval_do_concat_batches": (True, _EVALUATION),
    "eval_use_gather_object": (False, _EVALUATION),
    "include_for_metrics": ([], _EVALUATION),
    "batch_eval_metrics": (False, _EVALUATION),
    "bf16_full_eval": (False, "evaluation is of the weights as they are saved; leave it out"),
    "fp16_full_eval": (False, "evaluation is of the weights as they are saved; leave it out"),
    "use_liger_kernel": (False, "Liger has no kernels for this model, whose loss is fused already; leave it out"),
    "enable_jit_checkpoint": (False, "SIGTERM saves a checkpoint and ends the run by itself; leave it out"),
    "restore_callback_states_from_checkpoint": (
        False,
        "a resumed run goes on with the patience and the minutes of its checkpoint by itself; leave it out",
    ),
    "save_on_each_node": (
        False,
        "one process writes checkpoints, to an output_dir that all machines see; leave it out",
    ),
    "do_train": (False, "pretrain and finetune always train; leave it out"),
    "do_predict": (False, "use `vanilla-transformer translate` and `vanilla-transformer evaluate` afterwards"),
}


def refuse_options(args: Any) -> None:
    """Refuses what would have no effect on a run, or another than its name says.

    Args:
        args: the arguments of a run.

    Raises:
        ValueError: an option would do nothing here; the message says which, and what to use instead.
    """
    for name, (harmless, instead) in REFUSED.items():
        value = getattr(args, name, harmless)
        if value != harmless:
            raise ValueError(f"{name}={value} has no effect here: {instead}")
    inverse_sqrt = args.lr_scheduler_type == SchedulerType.INVERSE_SQRT
    if getattr(args, "continue_schedule", False) and not inverse_sqrt:
        raise ValueError(
            f"continue_schedule=True has no effect with lr_scheduler_type={_plain(args.lr_scheduler_type)}: only "
            "inverse_sqrt goes on where a model stopped; use it, or a learning_rate of your own"
        )
    if inverse_sqrt and args.lr_scheduler_kwargs:
        raise ValueError(
            f"lr_scheduler_kwargs={args.lr_scheduler_kwargs} has no effect here: inverse_sqrt is §5.3, which "
            "learning_rate and warmup_steps describe; use these"
        )
    if args.load_best_model_at_end and args.final_weights != "best":
        raise ValueError(
            f"load_best_model_at_end=True does not go with final_weights={args.final_weights}; use final_weights=best"
        )
    for what, unset in (("eval", None), ("save", 500)):
        strategy, steps = _plain(getattr(args, f"{what}_strategy")), getattr(args, f"{what}_steps")
        if strategy == "epoch" and steps != unset:
            raise ValueError(
                f"{what}_steps={steps} has no effect with {what}_strategy=epoch; use {what}_strategy=steps"
            )
    for name in ("split_batches", "dispatch_batches"):
        if getattr(args.accelerator_config, name, None):
            raise ValueError(f"accelerator_config: {name} has no effect here: {_BATCHES}; leave it out")
    if missing := set(args.report_to) & set(INTEGRATION_TO_CALLBACK) - set(get_available_reporting_integrations()):
        raise ValueError(
            f"report_to={' '.join(sorted(missing))} needs a package that is not installed; `pip install` it, such as "
            "tensorboard or wandb, or leave it out"
        )
    model = getattr(args, "model_name_or_path", None)
    if model is not None and Path(args.output_dir).resolve() == Path(model).resolve():
        raise ValueError(
            f"output_dir={args.output_dir} is the folder of model_name_or_path, which the run would overwrite; "
            "choose another"
        )


def refuse_data_parallel(args: Any) -> None:
    """Refuses several GPUs in one process, which would make batches of other sizes, and learn something else.

    Args:
        args: the run.

    Raises:
        ValueError: there are several GPUs and no launcher; the message says how to use all of them, or one.
    """
    if args.n_gpu > 1:
        raise ValueError(
            f"there are {args.n_gpu} GPUs and one process. To use all: torchrun --nproc-per-node {args.n_gpu} "
            "-m hf_vanilla_transformer pretrain ...; to use one: CUDA_VISIBLE_DEVICES=0"
        )


def _plain(value: Any) -> str:
    return str(getattr(value, "value", value))
