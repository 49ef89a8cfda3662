"""§5 training with the Hugging Face Trainer: batches by tokens, the paper's schedule, checkpoints one can trust."""

import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    Seq2SeqTrainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import SchedulerType
from transformers.utils import logging

from ..data.batching import TokenBatchLoader, TokenBatchSampler, sorted_batches
from ..data.examples import TrainingExamples
from ..data.tokenization import save_tokenizer
from ..evaluation import LabelLikelihood, label_likelihood, score_translations
from ..inference import translate
from ..loss import IGNORED_LABEL
from .arguments import VanillaTransformerTrainingArguments
from .averaging import MovingAverage
from .checkpoints import list_checkpoints, publish_checkpoint, rotate_checkpoints, writing_folder
from .fsdp import embeddings_in_outermost_group
from .interruption import StopOnSignal
from .progress import PlainLines, ProgressBar
from .r_drop import r_drop_divergence
from .schedule import inverse_sqrt_schedule

logger = logging.get_logger(__name__)

_EMA_NAME = "moving_average.safetensors"
# Tokens of a side that are scored or translated at a time in evaluation, padding included.
_EVALUATION_TOKENS = 4096


class VanillaTransformerTrainer(Seq2SeqTrainer):
    """Seq2SeqTrainer with the paper's batches, schedule and evaluation, and with checkpoints that survive a kill.

    Args:
        train_sampler: makes the batches of `train_dataset`; None for a stream, which brings its own.
        first_update: the update of the schedule with which this run begins, from 0.
        **kwargs: as transformers' Seq2SeqTrainer; `args` is a `VanillaTransformerTrainingArguments`, and
            `train_dataset` a `TrainingExamples` or a stream of batches.
    """

    # Set by transformers' __init__; mypy does not look into it.
    args: VanillaTransformerTrainingArguments
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None
    control: TrainerControl
    state: TrainerState
    model: nn.Module

    def __init__(self, train_sampler: TokenBatchSampler | None = None, first_update: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.train_sampler, self.first_update = train_sampler, first_update
        self.interruption = StopOnSignal()
        self.moving_average: MovingAverage | None = None
        self.score_signatures: dict[str, str] = {}
        self._writing_to: Path | None = None
        self._micro_batches: list[list[int]] = []  # sentences of the batches since the last update
        # Of the batches since the last line of the log: nats, target tokens, all tokens, and places for tokens.
        precise = torch.float32 if self.args.device.type == "mps" else torch.float64
        self._sums = torch.zeros(4, dtype=precise, device=self.args.device)
        self._started = self._window_started = time.perf_counter()
        self.remove_callback(PrinterCallback if self.args.disable_tqdm else ProgressCallback)
        self.add_callback(PlainLines() if self.args.disable_tqdm else ProgressBar())
        if self.args.early_stopping_patience:
            self.add_callback(EarlyStoppingCallback(self.args.early_stopping_patience))
        if self.args.final_weights == "ema":
            self.add_callback(_UpdateMovingAverage(self))
        self.add_callback(self.interruption)
        self.add_callback(_LogBeforeSaving())

    # Batches, schedule, loss

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """Makes the loader of this process' share of the batches (§5.1); it is not to be sharded once more."""
        workers = {"num_workers": self.args.dataloader_num_workers, "pin_memory": self.args.dataloader_pin_memory}
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

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        with embeddings_in_outermost_group(self.model) if self.is_fsdp_enabled else nullcontext():
            return super()._prepare_for_training(*args, **kwargs)

    def _run_epoch(self, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:  # resumed after its last update
            self.control.should_training_stop = True
            return
        super()._run_epoch(**kwargs)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Runs forward and backward for one batch, and remembers of which sentences it is.

        Raises:
            FloatingPointError: the loss is not finite; the message says at which update, for which sentences.
        """
        self._micro_batches.append(inputs.pop("index", torch.zeros(0, dtype=torch.long)).tolist())
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.scaler is None and not torch.isfinite(loss):
            raise FloatingPointError(self._describe_failure(f"the loss is {float(loss)}"))
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """§5.4: the model's own label-smoothed loss; with `r_drop`, of two dropouts, plus their divergence."""
        labels = inputs["labels"]
        tokens = labels.ne(IGNORED_LABEL).sum()
        divisor = tokens if num_items_in_batch is None else num_items_in_batch
        if self.args.r_drop:
            twice = {name: torch.cat([tensor, tensor]) for name, tensor in inputs.items()}
            outputs = model(**twice, num_items_in_batch=2 * divisor, return_logits=True)
            first, second = outputs.logits.chunk(2)
            loss = outputs.loss + self.args.r_drop * r_drop_divergence(first, second, labels) / divisor
        else:
            outputs = model(**inputs, num_items_in_batch=divisor)
            loss = outputs.loss
        useful = inputs["attention_mask"].sum() + tokens
        places = inputs["attention_mask"].numel() + labels.numel()
        kind = self._sums.dtype
        self._sums[:3] += torch.stack([outputs.nll_loss.to(kind) * divisor, tokens.to(kind), useful.to(kind)]).detach()
        self._sums[3] += places
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            # Gradients of processes are averaged, where they should be added up: the divisor counts all their tokens.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: torch.Tensor | None = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        # With float16, an overflow is the scaler's everyday business.
        if self.accelerator.scaler is None and not math.isfinite(float(norm)):
            raise FloatingPointError(self._describe_failure(f"the norm of the gradient is {float(norm)}"))
        self._micro_batches = []
        return norm

    def _describe_failure(self, what: str) -> str:
        update, indices = self.state.global_step + 1, [index for batch in self._micro_batches for index in batch]
        path = Path(self.args.output_dir) / f"failed-batch-{update}-{self.args.process_index}.json"
        path.write_text(json.dumps({"update": update, "problem": what, "sentences": indices}) + "\n", encoding="utf-8")
        dataset = self.train_dataset
        where = [dataset.where(index) for index in indices[:3]] if isinstance(dataset, TrainingExamples) else []
        checkpoints = list_checkpoints(self.args.output_dir)
        return (
            f"update {update}: {what}. It comes of sentences {', '.join(map(str, indices[:20]))}"
            f"{', ...' if len(indices) > 20 else ''}{' (' + '; '.join(where) + '; ...)' if where else ''}, "
            f"all listed in {path}. The weights were not changed by it. Last good checkpoint: "
            f"{checkpoints[-1] if checkpoints else 'none'}. A lower learning_rate or a max_grad_norm may help"
        )

    # The log

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds to the log of training what one wants to see: unsmoothed loss, perplexity, speed, padding.

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
        super().log(logs, start_time)

    # Evaluation

    def evaluate(
        self,
        eval_dataset: Dataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
        **generation_options: Any,
    ) -> dict[str, float]:
        """Scores a set of sentence pairs, each by one of the processes, and logs the scores.

        Args:
            eval_dataset: with `input_ids` and `labels`, and for BLEU `source` and `target`; default is that of the
                trainer.
            ignore_keys: not used; in the signature of transformers.
            metric_key_prefix: what the names of the scores begin with.
            **generation_options: for `generate()`, in place of the arguments' `generation_num_beams`.

        Returns:
            `eval_loss` (nats a token, without label smoothing), `eval_perplexity`, `eval_bleu` and `eval_chrf` if
            there is text, `eval_runtime` in seconds and the epoch. The signatures of BLEU and chrF are in
            `self.score_signatures`.

        Raises:
            ValueError: there is no evaluation set.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            raise ValueError("there is nothing to evaluate on; give the trainer an `eval_dataset`")
        started = time.perf_counter()
        if self.moving_average is not None and self.is_in_train:
            with self.moving_average.applied_to(self.model):
                metrics = self._scores(dataset, generation_options)
        else:
            metrics = self._scores(dataset, generation_options)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        metrics[f"{metric_key_prefix}_runtime"] = time.perf_counter() - started
        self._window_started += time.perf_counter() - started
        self.log(metrics)
        if self.is_in_train:
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _scores(self, dataset: Dataset, generation_options: dict[str, Any]) -> dict[str, float]:
        model = self.accelerator.unwrap_model(self.model)
        modes = [(part, part.training) for part in model.modules()]
        model.eval()
        try:
            with _without_autocast(model):
                return self._scores_of(model, dataset, generation_options)
        finally:
            for part, was_training in modes:
                part.training = was_training

    def _scores_of(self, model: nn.Module, dataset: Dataset, generation_options: dict[str, Any]) -> dict[str, float]:
        # Longest first, dealt out in turns: the processes have equally much to do.
        lengths = [len(ids) for ids in dataset["input_ids"]]
        order = [index for batch in sorted_batches(lengths, len(dataset)) for index in batch]
        mine, gather = order[self.args.process_index :: self.args.world_size], gather_object
        if self.is_fsdp_enabled:  # a divided model has to be called by all processes alike: each does everything
            mine, gather = order, list
        part = dataset.select(mine)
        likelihood = label_likelihood(model, part, _EVALUATION_TOKENS)
        nll, tokens = map(sum, zip(*gather([(likelihood.nll, likelihood.num_tokens)]), strict=True))
        whole = LabelLikelihood(nll, tokens)
        metrics = {"loss": whole.nll_per_token, "perplexity": whole.perplexity}
        if {"source", "target"} <= set(dataset.column_names):
            beams = self.args.generation_num_beams or 1
            options = {"num_beams": beams, "batch_tokens": _EVALUATION_TOKENS, **generation_options}
            texts = translate(model, self.processing_class, part["source"], **options)
            by_index = dict(gather(list(zip(mine, texts, strict=True))))
            scores = score_translations([by_index[index] for index in range(len(dataset))], dataset["target"])
            self.score_signatures = {"bleu": scores.bleu_signature, "chrf": scores.chrf_signature}
            metrics |= {"bleu": scores.bleu, "chrf": scores.chrf}
        return metrics

    # Checkpoints

    def _get_output_dir(self, trial: Any) -> str:
        # While a checkpoint is written, transformers is to put it where nobody takes it for whole.
        return super()._get_output_dir(trial) if self._writing_to is None else str(self._writing_to)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        started = time.perf_counter()
        output_dir = Path(self.args.output_dir)
        self._writing_to = writing_folder(output_dir)
        written = self._writing_to / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.state.best_global_step:
                self.state.best_model_checkpoint = str(output_dir / f"checkpoint-{self.state.best_global_step}")
            if self.is_world_process_zero():
                self.state.save_to_json(str(written / TRAINER_STATE_NAME))
                publish_checkpoint(written, output_dir)
                keep = self.args.save_total_limit or len(list_checkpoints(output_dir))
                rotate_checkpoints(output_dir, keep, self.state.best_model_checkpoint)
            self.accelerator.wait_for_everyone()
        except OSError as error:
            shutil.rmtree(self._writing_to, ignore_errors=True)
            last = list_checkpoints(output_dir)
            raise OSError(
                f"update {self.state.global_step}: the checkpoint could not be written ({error}). "
                f"Last good checkpoint: {last[-1] if last else 'none'}; make room and go on from there"
            ) from error
        finally:
            self._writing_to = None
        self._window_started += time.perf_counter() - started

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


@contextmanager
def _without_autocast(model: nn.Module) -> Iterator[None]:
    """Takes off what accelerate wraps around `forward` for bf16: scores are those of the weights that are saved."""
    wrapped = model.__dict__.pop("forward", None)
    try:
        yield
    finally:
        if wrapped is not None:
            model.forward = wrapped


class _UpdateMovingAverage(TrainerCallback):
    def __init__(self, trainer: VanillaTransformerTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        if self._trainer.moving_average is None:
            self._trainer.moving_average = MovingAverage(self._trainer.model, self._trainer.args.ema_decay)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        assert self._trainer.moving_average is not None
        self._trainer.moving_average.update(self._trainer.model)


class _LogBeforeSaving(TrainerCallback):
    """Has the log written with every checkpoint, so that a resumed run adds up no part of a line twice or never."""

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        control.should_log = control.should_log or control.should_save

    on_epoch_end = on_step_end
