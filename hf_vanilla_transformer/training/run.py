"""From text to a model: a run of training, §5 of the paper in one function."""

import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, set_seed

from ..data.batching import collate
from ..data.corpora import Corpus
from ..data.tokenization import save_tokenizer
from ..evaluation.scores import METRICS
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .adapters import merge_adapters, refuse_other_adapters, save_adapter
from .arguments import VanillaTransformerTrainingArguments
from .checkpoints import is_in_between, prepare_folder
from .data_setup import PreparedText, corpora_of, prepare_text
from .environment import describe_environment
from .final_weights import take_final_weights
from .folder_lock import training_folder
from .model_setup import build_model, learned_positions, model_class
from .ranks import by_main_process, require_shared
from .recipes import given_values, refuse_evaluation_without_text
from .refused_options import refuse_data_parallel
from .report import write_results
from .resuming import FIRST_UPDATE, RunIdentity, claim_folder, find_checkpoint
from .schedule import peak_learning_rate
from .teachers import TeacherModels
from .trainer import VanillaTransformerTrainer
from .validation_metrics import check_validation_metrics, decided_by_scores


@dataclass(frozen=True)
class PreparedRun:
    """Everything that training needs, checked and ready.

    Args:
        model: with its initial weights; a peft model where adapters learn.
        text: tokenizer, training set and validation set.
        first_update: the update of the schedule with which the run begins, from 0.
        checkpoint: what the run is resumed from; None for a fresh start.
        teachers: models that are learned from too; None without any.
    """

    model: Any
    text: PreparedText
    first_update: int = 0
    checkpoint: Path | None = None
    teachers: TeacherModels | None = None


@dataclass(frozen=True)
class TrainingResult:
    """What a run leaves behind in memory; `results.json` in the folder of the run has its numbers.

    Args:
        model: the trained model.
        tokenizer: its tokenizer.
        metrics: scores of the saved weights, if there was validation text, and what training took.
        history: the log of the run, one entry a line.
        interrupted_by: the signal that stopped the run before its end; None if it came to its end.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    interrupted_by: int | None = None


def pretrain(args: VanillaTransformerTrainingArguments) -> TrainingResult:
    """Trains a model on the text that `args` name, and saves it with its tokenizer.

    Args:
        args: the run. With `resume_from_checkpoint` "last", it is resumed from the newest good checkpoint in
            `output_dir`.

    Returns:
        The model, its tokenizer and its numbers.

    Raises:
        ValueError: as `prepare`.
        OSError: likewise.
    """
    return train(prepare(args), args)


def prepare(args: VanillaTransformerTrainingArguments) -> PreparedRun:
    """Loads the text, gets or trains the tokenizer, and builds the model: all that can go wrong before training.

    Args:
        args: the run; its `learning_rate` is set, if it is None.

    Returns:
        What `train` needs.

    Raises:
        ValueError: data, preset or overrides are not usable; the message says which value, where. Or another process
            trains in the folder of the run.
        OSError: a file is missing or cannot be read, or the folder of the run cannot be written.
    """
    for name, instead in (("prepare_only", "training.prepare_only(args)"), ("dry_run", "lab.dry_run.dry_run(args)")):
        if getattr(args, name):
            raise ValueError(f"{name} is for the command line; in Python, call {instead}")
    set_seed(args.seed)
    training, validation = check_run(args)
    checkpoint = find_checkpoint(args.resume_from_checkpoint, args.output_dir)
    if not args.overwrite_output_dir:  # else when nothing is wrong: a mistake is no reason to lose the other run
        by_main_process(lambda: claim_folder(args.output_dir, checkpoint))
    by_main_process(lambda: prepare_folder(args.output_dir))
    require_shared(args.output_dir)
    with training_folder(args.output_dir):
        return _prepare(args, training, validation, checkpoint)


def _prepare(
    args: VanillaTransformerTrainingArguments,
    training: list[Corpus],
    validation: list[Corpus],
    checkpoint: Path | None,
) -> PreparedRun:
    text = prepare_text(args, training, validation, checkpoint, learned_positions(args))
    model, first_update = build_model(args, text.tokenizer)
    if checkpoint is not None:
        refuse_other_adapters(model, checkpoint)
    teachers = None
    if args.distill_from:
        vocab_size = model.config.vocab_size
        teachers = TeacherModels(args.distill_from, text.tokenizer, args.distill_share, vocab_size, args.device)
    if args.learning_rate is None:
        args.learning_rate = peak_learning_rate(model.config.d_model, int(args.warmup_steps))
    if checkpoint is not None:
        identity = (text.fingerprint, text.tokenizer, first_update, text.validation_fingerprint)
        RunIdentity.of(args, *identity).resumed_from(checkpoint)
    if args.overwrite_output_dir:
        by_main_process(lambda: claim_folder(args.output_dir, checkpoint, overwrite=True))
    # Weights, and Adam's two moments for those that learn; as many as stay, the best one, and one that is written.
    learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    size = 4 * (sum(weight.numel() for weight in model.parameters()) + 2 * learning)
    checkpoints = 0 if args.save_strategy == "no" else (args.save_total_limit or 2) + 2
    checkpoints += checkpoint is not None and is_in_between(checkpoint)  # which stays until the next is written
    by_main_process(lambda: prepare_folder(args.output_dir, size, checkpoints))
    return PreparedRun(model, text, first_update, checkpoint, teachers)


def check_run(args: VanillaTransformerTrainingArguments) -> tuple[list[Corpus], list[Corpus]]:
    """Finds what is wrong with a run as far as its arguments and the names of its files tell, without reading any text.

    Args:
        args: the run.

    Returns:
        The corpora for training, and those for validation.

    Raises:
        ValueError: there is nothing to learn from; a corpus, the preset or an override is not usable; or what is to be
            judged by validation scores has none.
        OSError: a file of text is missing.
    """
    refuse_data_parallel(args)
    training, validation = corpora_of(args)
    _check_validation(args, bool(validation))
    if args.model_name_or_path is None:  # a model may be there only when it is needed
        learned_positions(args)
    own = VanillaTransformerForConditionalGeneration
    if args.distill_from and not issubclass(model_class(args.model_class, args.objective), own):
        raise ValueError(
            f"distill_from={' '.join(args.distill_from)} is for {own.__name__} and its subclasses, "
            f"and model_class={args.model_class} is none"
        )
    return training, validation


def prepare_only(args: VanillaTransformerTrainingArguments) -> str:
    """Does what of `prepare` takes long and is kept: a tokenizer is trained, text tokenised, batches are planned.

    It can be interrupted and repeated; `prepare` of the same run is soon done then, in any number of processes.

    Args:
        args: the run.

    Returns:
        One line that says what is ready.

    Raises:
        ValueError: data are not usable; the message says which value, where.
        OSError: a file is missing or cannot be read, or the folder of the run cannot be written.
    """
    set_seed(args.seed)
    training, validation = corpora_of(args)
    by_main_process(lambda: prepare_folder(args.output_dir))
    return prepare_text(args, training, validation, None, learned_positions(args)).describe()


def train(run: PreparedRun, args: VanillaTransformerTrainingArguments) -> TrainingResult:
    """Trains a prepared model, and saves it with its tokenizer and numbers in `args.output_dir`.

    Args:
        run: as `prepare` returns it.
        args: the run; its data and model fields are not looked at.

    Returns:
        The model, its tokenizer and its numbers.

    Raises:
        ValueError: averaged weights are asked for of an engine that divides them; or another process trains in the
            folder of the run.
        FloatingPointError: a loss or gradient is not finite.
        OSError: a checkpoint could not be written.
    """
    with training_folder(args.output_dir):
        return _train(run, args)


def _train(run: PreparedRun, args: VanillaTransformerTrainingArguments) -> TrainingResult:
    trainer = _trainer(run, args)
    output = trainer.train(resume_from_checkpoint=str(run.checkpoint) if run.checkpoint else None)
    history = trainer.state.log_history
    metrics: dict[str, Any] = {"train_runtime": output.metrics["train_runtime"], "updates": output.global_step}
    if trainer.interruption.stopped_by is not None:
        return TrainingResult(run.model.eval(), run.text.tokenizer, metrics, history, trainer.interruption.stopped_by)
    if run.first_update:
        metrics[FIRST_UPDATE] = run.first_update
    metrics["final_weights"] = take_final_weights(trainer)
    for name, all_of_them in (("parameters", True), ("learned_parameters", False)):
        weights = [weight for weight in run.model.parameters() if all_of_them or weight.requires_grad]
        metrics[name] = sum(weight.numel() for weight in weights)
    for name, whole in (("tokens_per_second", statistics.median), ("padding", statistics.fmean)):
        values = [entry[name] for entry in history if name in entry]
        if values:
            metrics[name] = whole(values)
    if run.text.validation_set is not None:
        metrics |= _last_evaluation(trainer) or trainer.evaluate(metric_key_prefix="final")
        metrics["signatures"] = trainer.score_signatures
    metrics["minutes"] = history[-1]["minutes"]
    if trainer.time_limit is not None:
        metrics["training_minutes"] = trainer.time_limit.seconds / 60
        metrics["clock"] = " and ".join(trainer.time_limit.clocks)
    model = _save(trainer).eval()
    if trainer.is_world_process_zero():
        write_results(args.output_dir, given_values(args), metrics, history, describe_environment(args.device))
    if args.push_to_hub:
        trainer.push_to_hub()
    return TrainingResult(model, run.text.tokenizer, metrics, history)


def _check_validation(args: VanillaTransformerTrainingArguments, has_validation: bool) -> None:
    """Refuses what is judged by validation scores that there will not be, and options of finding them."""
    for setting in decided_by_scores(args):
        if not has_validation:
            raise ValueError(f"{setting} is decided by validation scores; give validation_data")
        if args.eval_strategy == "no":
            raise ValueError(f"{setting} is decided by validation scores; eval_strategy=no finds none")
    if not has_validation:
        refuse_evaluation_without_text(args)
    check_validation_metrics(args, one_set=True)


def _trainer(run: PreparedRun, args: VanillaTransformerTrainingArguments) -> VanillaTransformerTrainer:
    if run.text.validation_set is None:
        args.eval_strategy = "no"
    return VanillaTransformerTrainer(
        model=run.model,
        args=args,
        train_dataset=run.text.train_set,
        eval_dataset=run.text.validation_set,
        data_collator=partial(collate, pad_token_id=run.text.tokenizer.pad_token_id),
        processing_class=run.text.tokenizer,
        train_sampler=run.text.train_sampler,
        first_update=run.first_update,
        data_fingerprint=run.text.fingerprint,
        validation_fingerprint=run.text.validation_fingerprint,
        teachers=run.teachers,
    )


def _last_evaluation(trainer: VanillaTransformerTrainer) -> dict[str, Any]:
    """What an evaluation of these very weights found, so that it need not be repeated."""
    if trainer.args.final_weights != "last":
        return {}
    for entry in reversed(trainer.state.log_history):
        if "eval_loss" in entry and entry["step"] == trainer.state.global_step:
            if any(f"eval_{name}" in entry for name in METRICS) and not trainer.score_signatures:
                return {}  # an earlier process found it, which took the signatures along
            return {f"final_{name[5:]}": value for name, value in entry.items() if name.startswith("eval_")}
    return {}


def _save(trainer: VanillaTransformerTrainer) -> Any:
    """Saves model and tokenizer in the folder of the run, adapters merged, and returns the model."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    output_dir = Path(trainer.args.output_dir)
    if not trainer.args.lora_rank:
        trainer.save_model(_internal_call=True)  # by all processes, which may each have a part of it
        return model
    if trainer.is_world_process_zero():  # the adapter by itself too, for those who have the model it belongs to
        save_adapter(model, trainer.processing_class, output_dir / "adapter")
    model = merge_adapters(model)
    if trainer.is_world_process_zero():
        model.save_pretrained(output_dir)
        save_tokenizer(trainer.processing_class, output_dir)
    return model
