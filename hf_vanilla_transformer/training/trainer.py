"""§5 training with the Hugging Face Trainer: batches by tokens, the paper's schedule, checkpoints one can trust."""

import json
import math
import shutil
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PrinterCallback, ProgressCallback, Seq2SeqTrainer, TrainerControl, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import SchedulerType
from transformers.utils import logging

from ..data.batching import TokenBatchLoader, TokenBatchSampler, collate
from ..data.examples import TrainingExamples
from ..data.streaming import TokenBatchStream
from ..data.tokenization import save_tokenizer
from ..evaluation import LabelLikelihood
from ..loss import IGNORED_LABEL
from .arguments import VanillaTransformerTrainingArguments
from .callbacks import EarlyStopping, LogBeforeSaving, StopAfterMinutes, UpdateMovingAverage
from .checkpoints import is_in_between, last_good_checkpoint, publish_checkpoint, rotate_checkpoints, writing_folder
from .folder_lock import training_folder
from .fsdp import embeddings_in_outermost_group, refuse_unsaved_models, zero_stage_of
from .hub import HubUploads
from .interruption import StopOnSignal
from .moving_average import MovingAverage, refuse_divided_weights
from .progress import PlainLines, ProgressBar
from .ranks import by_main_process
from .refused_options import refuse_data_parallel
from .resuming import RunIdentity, claim_folder, find_checkpoint
from .schedule import inverse_sqrt_schedule
from .teachers import TeacherModels
from .validation import ValidationOnPairs

logger = logging.get_logger(__name__)

_EMA_NAME = "moving_average.safetensors"
# Arguments of transformers' Trainer that this one would pass by.
_WITHOUT_EFFECT = {
    "compute_metrics": "evaluate() returns loss, perplexity, BLEU and chrF; override it for others",
    "preprocess_logits_for_metrics": "no logits are kept in evaluation",
    "compute_loss_func": "override compute_loss(), and call the model with return_logits=True for its logits",
}


class VanillaTransformerTrainer(HubUploads, ValidationOnPairs, Seq2SeqTrainer):
    """Seq2SeqTrainer with the paper's batches, schedule and evaluation, and with checkpoints that survive a kill.

    Args:
        train_sampler: makes the batches of `train_dataset`; None for a stream, which brings its own.
        first_update: the update of the schedule with which this run begins, from 0.
        data_fingerprint: what the training text is recognised by when the run is resumed; None if that is not checked.
        validation_fingerprint: likewise of the validation text, whose scores are compared with those of before.
        teachers: models that are learned from too; None without any.
        **kwargs: as transformers' Seq2SeqTrainer; `args` is a `VanillaTransformerTrainingArguments`, `train_dataset` a
            `TrainingExamples` or a stream of batches, and `data_collator`, by default, `data.batching.collate`.

    Raises:
        ValueError: averaged weights or adapters are asked for of an engine that divides weights, or it would save
            shards of them; there are several GPUs in one process; or an argument of transformers' would have no effect.
    """

    # Set by transformers' __init__; mypy does not look into it.
    args: VanillaTransformerTrainingArguments
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None
    control: TrainerControl
    state: TrainerState
    model: nn.Module

    def __init__(
        self,
        train_sampler: TokenBatchSampler | None = None,
        first_update: int = 0,
        data_fingerprint: str | None = None,
        validation_fingerprint: str | None = None,
        teachers: TeacherModels | None = None,
        **kwargs: Any,
    ) -> None:
        for name, instead in _WITHOUT_EFFECT.items():
            if kwargs.get(name) is not None:
                raise ValueError(f"`{name}` has no effect in {type(self).__name__}: {instead}")
        if kwargs.get("args") is not None:
            refuse_data_parallel(kwargs["args"])
        if kwargs.get("data_collator") is None and kwargs.get("processing_class") is not None:
            kwargs["data_collator"] = partial(collate, pad_token_id=kwargs["processing_class"].pad_token_id)
        super().__init__(**kwargs)
        config: Any = self.model.config
        if "use_cache" in getattr(config, "fixed_fields", ()):  # into which transformers has written that of `args`
            config.use_cache = config.fixed_fields["use_cache"]
        # A stack by itself has labels at the places of its input, many of them without any.
        self.has_targets: bool = getattr(config, "is_encoder_decoder", True)
        engine, stage = self.accelerator.distributed_type, zero_stage_of(self.accelerator.state)
        shards = getattr(getattr(self.accelerator.state, "fsdp_plugin", None), "state_dict_type", None)
        refuse_divided_weights(str(self.args.final_weights), engine, stage)
        refuse_unsaved_models(engine, stage, shards, self.args.lora_rank)
        if teachers is not None and stage == 3:
            raise ValueError(
                "distill_from: DeepSpeed's ZeRO-3 would divide the teachers too; use a lower stage, or DDP"
            )
        self.fingerprints, self.identity = (data_fingerprint, validation_fingerprint), RunIdentity()
        self.train_sampler, self.first_update, self.teachers = train_sampler, first_update, teachers
        self.interruption = StopOnSignal()
        self.moving_average: MovingAverage | None = None
        self.score_signatures: dict[str, str] = {}
        self.resumed_at: Path | None = None  # the checkpoint, until training goes on
        self._writing_to: Path | None = None
        self._micro_batches: list[list[int]] = []  # sentences of the batches since the last update
        # Of the batches since the last line of the log: nats, target tokens, all tokens, and places for tokens.
        precise = torch.float32 if self.args.device.type == "mps" else torch.float64
        self._sums = torch.zeros(4, dtype=precise, device=self.args.device)
        self._loss_sum = torch.zeros((), device=self.args.device)  # of the batches since the last update
        self._started = self._window_started = time.perf_counter()
        self.remove_callback(PrinterCallback if self.args.disable_tqdm else ProgressCallback)
        self.add_callback(PlainLines() if self.args.disable_tqdm else ProgressBar())
        if self.args.early_stopping_patience:
            self.add_callback(EarlyStopping(self.args.early_stopping_patience))
        self.time_limit = StopAfterMinutes(self.args.max_minutes) if self.args.max_minutes else None
        if self.time_limit is not None:
            self.add_callback(self.time_limit)
        if self.args.final_weights == "ema":
            self.add_callback(UpdateMovingAverage(lambda: self.moving_average, lambda: self.model))
        self.add_callback(self.interruption)
        self.add_callback(LogBeforeSaving())

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, ignore_keys_for_eval: Any = None
    ) -> Any:
        """Trains, in a folder that has no other run in it, or goes on where a checkpoint of this run was written.

        Args:
            resume_from_checkpoint: the checkpoint's folder; True or "last" for the newest good one in `output_dir`,
                "auto" for that if there is one; None for a fresh start.
            trial: of a hyper-parameter search, as in transformers.
            ignore_keys_for_eval: as in transformers.

        Returns:
            As in transformers.

        Raises:
            ValueError: there is another run in `output_dir`, or a process that trains there; there is no such
                checkpoint, or it is damaged; or settings that must not change have changed.
            FloatingPointError: a loss or gradient is not finite.
            OSError: a checkpoint could not be written.
        """
        checkpoint = find_checkpoint(resume_from_checkpoint, self.args.output_dir)
        data, validation = self.fingerprints
        identity = RunIdentity.of(self.args, data, self.processing_class, self.first_update, validation)
        self.identity = identity if checkpoint is None else identity.resumed_from(checkpoint)
        self.resumed_at, self.moving_average = checkpoint, None
        self._micro_batches = []
        self._loss_sum.zero_()
        self._sums.zero_()
        self._started = self._window_started = time.perf_counter()
        evaluates_first = self.args.eval_on_start
        with training_folder(self._get_output_dir(trial)):
            if trial is None:
                by_main_process(lambda: claim_folder(self.args.output_dir, checkpoint, self.args.overwrite_output_dir))
            try:
                self.args.eval_on_start = evaluates_first and checkpoint is None  # resumed, it has long begun
                return super().train(None if checkpoint is None else str(checkpoint), trial, ignore_keys_for_eval)
            finally:
                self.args.eval_on_start = evaluates_first
                self.interruption.stop_listening()

    # Batches, schedule, loss

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """Makes the loader of this process' share of the batches (§5.1); it is not to be sharded once more."""
        args = self.args
        workers: dict[str, Any] = {"num_workers": args.dataloader_num_workers, "pin_memory": args.dataloader_pin_memory}
        if self.train_sampler is None:  # a stream makes batches itself
            return torch.utils.data.DataLoader(self.train_dataset, batch_size=None, **workers)
        return TokenBatchLoader(
            self.train_dataset, batch_sampler=self.train_sampler, collate_fn=self.data_collator, **workers
        )

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Creates §5.3's schedule for `inverse_sqrt`, and any other as transformers does."""
        if self.lr_scheduler is None and self.args.lr_scheduler_type == SchedulerType.INVERSE_SQRT:
            warmup_steps = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = inverse_sqrt_schedule(optimizer or self.optimizer, warmup_steps, self.first_update)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def _init_training_state(self, max_steps: int, *args: Any, **kwargs: Any) -> Any:
        epochs_and_steps = super()._init_training_state(max_steps, *args, **kwargs)
        self.state.compute_steps(self.args, max_steps)  # resumed, it would log, evaluate and save as often as before
        if self.resumed_at is not None and not self.identity.is_scored_as(self.resumed_at):
            self.state.best_metric = self.state.best_global_step = self.state.best_model_checkpoint = None
        # What earlier starts took, up to the checkpoint, counts in the minutes of the log.
        self._started -= 60 * max((entry.get("minutes", 0.0) for entry in self.state.log_history), default=0.0)
        return epochs_and_steps

    def _finalize_training(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        self._make_missed_evaluation(trial)  # where there is no epoch left to train
        # transformers would remove the last checkpoint where one is to be kept and another is the best.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super()._finalize_training(trial, *args, **kwargs)
        finally:
            self.args.save_total_limit = limit

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        with embeddings_in_outermost_group(self.model) if self.is_fsdp_enabled else nullcontext():
            return super()._prepare_for_training(*args, **kwargs)

    def _run_epoch(self, **kwargs: Any) -> None:
        if self.args.final_weights == "ema" and self.moving_average is None:
            self.moving_average = MovingAverage(self.model, self.args.ema_decay)
        self._make_missed_evaluation(kwargs["trial"])
        is_over = self.control.should_training_stop or (self.time_limit is not None and self.time_limit.is_over)
        if self.state.global_step >= self.state.max_steps or is_over:  # resumed after its last update
            self.control.should_training_stop = True
            return
        super()._run_epoch(**kwargs)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Runs forward and backward for one batch, and remembers of which sentences it is."""
        self._micro_batches.append(inputs.pop("index", torch.zeros(0, dtype=torch.long)).tolist())
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._loss_sum += loss
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """§5.4: the model's own label-smoothed loss; with `r_drop`, of two dropouts, plus their divergence.

        With teachers, a share of it is the cross-entropy with their predictions.
        """
        labels = inputs["labels"]
        tokens = labels.ne(IGNORED_LABEL).sum()
        divisor = tokens if num_items_in_batch is None else num_items_in_batch
        taught: dict[str, Any] = {}
        if self.teachers is not None and model.training:
            with self.accelerator.autocast():
                taught["teachers"] = self.teachers.read(inputs)
        if self.args.r_drop:
            twice = {name: torch.cat([tensor, tensor]) for name, tensor in inputs.items()}
            outputs = model(**twice, num_items_in_batch=2 * divisor, r_drop=self.args.r_drop, **taught)
        else:
            outputs = model(**inputs, num_items_in_batch=divisor, **taught)
        loss = outputs.loss
        useful, places = inputs["attention_mask"].sum(), inputs["attention_mask"].numel()
        if self.has_targets:
            useful, places = useful + tokens, places + labels.numel()
        kind = self._sums.dtype
        self._sums[:3] += torch.stack([outputs.nll_loss.to(kind) * divisor, tokens.to(kind), useful.to(kind)]).detach()
        self._sums[3] += places
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # Gradients of processes are averaged, where they should be added up: the divisor counts all their tokens.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: torch.Tensor | None = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        # The one time in an update that this process waits for the device, since the update must not be made with such
        # numbers. With float16, an overflow is the scaler's everyday business.
        if self.accelerator.scaler is None:
            for what, value in (("the loss", self._loss_sum), ("the norm of the gradient", norm)):
                if value is not None and not math.isfinite(float(value)):
                    raise FloatingPointError(self._describe_failure(f"{what} is {float(value)}"))
        self._micro_batches = []
        self._loss_sum.zero_()
        return norm

    def _describe_failure(self, what: str) -> str:
        update, indices = self.state.global_step + 1, [index for batch in self._micro_batches for index in batch]
        path = Path(self.args.output_dir) / f"failed-batch-{update}-{self.args.process_index}.json"
        dataset = self.train_dataset
        knows = isinstance(dataset, TrainingExamples | TokenBatchStream)
        where = [dataset.where(index) for index in indices] if knows else []
        listed = {"update": update, "problem": what, "sentences": indices, "where": where}
        path.write_text(json.dumps(listed) + "\n", encoding="utf-8")
        return (
            f"update {update}: {what}. It comes of sentences {', '.join(map(str, indices[:20]))}"
            f"{', ...' if len(indices) > 20 else ''}{' (' + '; '.join(where[:3]) + '; ...)' if where else ''}, "
            f"all listed in {path}. The weights were not changed by it. Last good checkpoint: "
            f"{last_good_checkpoint(self.args.output_dir) or 'none'}. A lower learning_rate or a max_grad_norm may help"
        )

    # The log

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds to the log of training what one wants to see: unsmoothed loss, perplexity, speed, padding, minutes.

        The minutes are those of all starts of the run. What a killed start did after its last checkpoint is not in
        them, as it is in nothing else. With `max_minutes` there are also those that count for it, `training_minutes`.

        Args:
            logs: what transformers logs; extended in place.
            start_time: as in transformers.
        """
        if "loss" in logs:
            nll, tokens, useful, places = self.accelerator.reduce(self._sums.clone(), "sum").tolist()
            logs["nll"] = nll / max(tokens, 1)
            logs["perplexity"] = LabelLikelihood(nll, int(tokens)).perplexity
            logs["padding"] = 1 - useful / max(places, 1)
            logs["tokens_per_second"] = tokens / (time.perf_counter() - self._window_started)
            self._sums.zero_()
            self._window_started = time.perf_counter()
        for name in ("train_loss", "total_flos"):  # means and sums since the last start only
            logs.pop(name, None)
        logs["minutes"] = (time.perf_counter() - self._started) / 60
        if self.time_limit is not None:
            logs["training_minutes"] = self.time_limit.seconds / 60
        super().log(logs, start_time)

    # Checkpoints

    def _get_output_dir(self, trial: Any) -> str:
        # While a checkpoint is written, transformers is to put it where nobody takes it for whole.
        return super()._get_output_dir(trial) if self._writing_to is None else str(self._writing_to)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        is_best = super()._determine_best_metric(metrics, trial)
        if is_best and self.args.final_weights == "best":  # evaluations may be more frequent than checkpoints
            self.control.should_save = True
        return is_best

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        started = time.perf_counter()
        for each in (*self.callback_handler.callbacks, self.control):
            if isinstance(each, ExportableState):  # one that the run did not have when it was stopped
                self.state.stateful_callbacks.setdefault(type(each).__name__, each.state())
        output_dir = Path(self._get_output_dir(trial))
        self._writing_to = writing_folder(output_dir)
        written = self._writing_to / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            best = f"checkpoint-{self.state.best_global_step}"
            if best == written.name or ((output_dir / best).is_dir() and not is_in_between(output_dir / best)):
                self.state.best_model_checkpoint = str(output_dir / best)
            by_main_process(lambda: self._publish(written, output_dir))
        except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own for full disks
            shutil.rmtree(self._writing_to, ignore_errors=True)
            raise OSError(
                f"update {self.state.global_step}: the checkpoint could not be written ({error}). "
                f"Last good checkpoint: {last_good_checkpoint(output_dir) or 'none'}; make room and go on from there"
            ) from error
        finally:
            self._writing_to = None
        self._window_started += time.perf_counter() - started

    def _publish(self, written: Path, output_dir: Path) -> None:
        self.state.save_to_json(str(written / TRAINER_STATE_NAME))
        self.identity.write(written)
        for mark in self.interruption.marks:
            (written / mark).touch()
        published = publish_checkpoint(written, output_dir)
        rotate_checkpoints(published, self.args.save_total_limit or None, self.state.best_model_checkpoint)
        if self.args.push_to_hub:
            self._upload(published)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # one more for every checkpoint would tear the bar of the run apart
        super()._save(output_dir, state_dict)
        if bars:
            logging.enable_progress_bar()
        folder = Path(output_dir or self.args.output_dir)
        if self.args.should_save:
            # A pickle, which nobody should have to open; the log and the recipe say the same.
            (folder / "training_args.bin").unlink(missing_ok=True)
            save_tokenizer(self.processing_class, folder)
            if self.moving_average is not None and self._writing_to is not None:
                self.moving_average.save(folder / _EMA_NAME)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # Tied weights are stored once, which transformers takes for missing ones.
        tied = set(getattr(self.model, "all_tied_weights_keys", None) or ())
        load_result.missing_keys[:] = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        average = Path(resume_from_checkpoint) / _EMA_NAME
        if self.args.final_weights == "ema" and average.exists():
            self.moving_average = MovingAverage(self.model, self.args.ema_decay)
            self.moving_average.load(average)
