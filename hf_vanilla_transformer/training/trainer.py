"""The Hugging Face Trainer with the paper's schedule, and with an evaluation that means something for translation."""

import time
from typing import Any

import torch
from datasets import Dataset
from transformers import Seq2SeqTrainer, TrainerControl
from transformers.trainer_utils import SchedulerType

from ..evaluation import label_likelihood, score_translations
from ..inference import translate
from .schedule import inverse_sqrt_schedule


class VanillaTransformerTrainer(Seq2SeqTrainer):
    """Seq2SeqTrainer, but for the schedule and the evaluation; every other part is transformers'.

    The `inverse_sqrt` schedule is §5.3's, exact from the first update. `evaluate()` reports the loss without label
    smoothing as a mean over all tokens, the perplexity, and BLEU and chrF of the model's own translations of the
    column `source`, against the column `target`.
    """

    # Set by transformers' __init__; mypy does not look into it.
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None
    control: TrainerControl

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Creates §5.3's schedule for `inverse_sqrt`, and any other as transformers does."""
        if self.lr_scheduler is None and self.args.lr_scheduler_type == SchedulerType.INVERSE_SQRT:
            warmup_steps = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = inverse_sqrt_schedule(optimizer or self.optimizer, warmup_steps)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def evaluate(
        self,
        eval_dataset: Dataset | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
        **generation_options: Any,
    ) -> dict[str, float]:
        """Scores a set of sentence pairs, and logs the scores.

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
        model = self.accelerator.unwrap_model(self.model)
        batch_size = self.args.eval_batch_size
        likelihood = label_likelihood(model, dataset, batch_size)
        metrics = {
            f"{metric_key_prefix}_loss": likelihood.nll_per_token,
            f"{metric_key_prefix}_perplexity": likelihood.perplexity,
        }
        if {"source", "target"} <= set(dataset.column_names):
            options = {"num_beams": self.args.generation_num_beams or 1, **generation_options}
            translations = list(
                translate(model, self.processing_class, dataset["source"], batch_size=batch_size, **options)
            )
            scores = score_translations(translations, dataset["target"])
            self.score_signatures = {"bleu": scores.bleu_signature, "chrf": scores.chrf_signature}
            metrics |= {f"{metric_key_prefix}_bleu": scores.bleu, f"{metric_key_prefix}_chrf": scores.chrf}
        metrics[f"{metric_key_prefix}_runtime"] = time.perf_counter() - started
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
