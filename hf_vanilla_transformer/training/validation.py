"""Scores of a model on sentence pairs, each by one of the processes: likelihood, and metrics of translations."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase, Seq2SeqTrainer, TrainerControl
from transformers.trainer_utils import IntervalStrategy, PredictionOutput, SaveStrategy

from ..data.batching import padded
from ..evaluation import LabelLikelihood, label_likelihood, score_translations
from ..inference import translate_with_details
from ..loss import IGNORED_LABEL
from .arguments import VanillaTransformerTrainingArguments
from .checkpoints import EVALUATION_DUE, find_damage, is_in_between
from .fsdp import zero_stage_of
from .moving_average import MovingAverage
from .ranks import by_main_process
from .validation_metrics import DEFAULT

# Files of a checkpoint that have weights, whatever engine wrote them, and not the state of an optimizer alone.
_WEIGHTS = ("model*", "adapter*", "pytorch_model*", "global_step*")


@dataclass(frozen=True)
class ValidationScores:
    """What a model makes of a set of sentence pairs.

    Args:
        metrics: `loss` (nats per token, without label smoothing), `perplexity` and, of pairs with text that were
            translated, the metrics of translations.
        signatures: of the metrics of translations, by the same names.
        tokens: ids of each translation, `</s>` included, in the order of the pairs; empty if they were not asked for.
    """

    metrics: dict[str, float]
    signatures: dict[str, str] = field(default_factory=dict)
    tokens: list[list[int]] = field(default_factory=list)


def validation_scores(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    batch_tokens: int,
    share: tuple[int, int] = (0, 1),
    translations: bool = True,
    metrics: Sequence[str] = DEFAULT,
    token_ids: bool = False,
    **generation_options: Any,
) -> ValidationScores:
    """Scores a model on a set of sentence pairs; all processes call it, and all get the scores of the whole set.

    Args:
        model: put into eval mode for as long as this takes.
        tokenizer: its tokenizer.
        dataset: with `input_ids` and `labels`, and for translations `source` and `target`.
        batch_tokens: tokens of a side that are scored or translated at a time, padding included.
        share: which part of the set this process does, and of how many; (0, 1) is everything.
        translations: whether to translate, where the set has text.
        metrics: names of the metrics of translations; where there are none, and no ids are asked for, nothing is
            translated.
        token_ids: whether to return the ids of the translations too.
        **generation_options: for `generate()`.

    Returns:
        The scores.
    """
    with _eval_mode(model), _without_autocast(model):
        # Longest first, dealt out in turns: the processes have equally much to do.
        lengths = [len(ids) for ids in dataset["input_ids"]]
        order = sorted(range(len(dataset)), key=lambda index: -lengths[index])
        part, parts = share
        mine = order[part::parts]
        gather: Any = gather_object if parts > 1 else list
        rows = dataset.select(mine)
        likelihood = label_likelihood(model, rows, batch_tokens)
        nll, tokens = map(sum, zip(*gather([(likelihood.nll, likelihood.num_tokens)]), strict=True))
        whole = LabelLikelihood(nll, tokens)
        values = {"loss": whole.nll_per_token, "perplexity": whole.perplexity}
        is_asked = translations and (metrics or token_ids)
        if not is_asked or not {"source", "target"} <= set(dataset.column_names):
            return ValidationScores(values)
        found = translate_with_details(
            model,
            tokenizer,
            rows["source"],
            batch_tokens=batch_tokens,
            scores=False,
            alignments=token_ids,
            **generation_options,
        )
        made = [(best.text, _ids(tokenizer, best.tokens) if token_ids else []) for (best,) in found]
        by_index = dict(gather(list(zip(mine, made, strict=True))))
    texts, ids = zip(*(by_index[index] for index in range(len(dataset))), strict=True)
    scores = score_translations(texts, dataset["target"], metrics)
    values |= {name: score.value for name, score in scores.items()}
    signatures = {name: score.signature for name, score in scores.items()}
    return ValidationScores(values, signatures, list(ids) if token_ids else [])


def _ids(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str] | None) -> list[int]:
    return [*tokenizer.convert_tokens_to_ids(list(tokens or ())), tokenizer.eos_token_id]


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, was_training in modes:
            part.training = was_training


@contextmanager
def _without_autocast(model: nn.Module) -> Iterator[None]:
    """Takes off what accelerate wraps around `forward` for bf16: scores are those of the weights that are saved."""
    wrapped = model.__dict__.pop("forward", None)
    try:
        yield
    finally:
        if wrapped is not None:
            model.forward = wrapped


class ValidationOnPairs(Seq2SeqTrainer):
    """The part of the trainer that evaluates, goes by what it finds, and predicts."""

    args: VanillaTransformerTrainingArguments
    control: TrainerControl
    score_signatures: dict[str, str]
    moving_average: MovingAverage | None
    resumed_at: Path | None
    _window_started: float

    def _make_missed_evaluation(self, trial: Any) -> None:
        """Evaluates first where the run was saved before it could, and saves again what that evaluation is part of.

        All is as if the run had not been stopped, random numbers included.
        """
        checkpoint, self.resumed_at = self.resumed_at, None
        if checkpoint is None or self.args.eval_strategy == "no":
            return
        if not by_main_process(lambda: (checkpoint / EVALUATION_DUE).exists()):
            return
        self._load_rng_state(str(checkpoint))
        was_due = not is_in_between(checkpoint)
        # What is saved by updates is saved before the epoch ends.
        is_before = (self.args.eval_strategy, self.args.save_strategy) == (IntervalStrategy.EPOCH, SaveStrategy.STEPS)
        self.control.should_evaluate, self.control.should_save = True, was_due and not is_before
        self._maybe_log_save_evaluate(self._tr_loss, None, self.model, trial, self.state.epoch, None, time.time())
        if self.control.should_training_stop and not was_due and self.args.save_strategy == SaveStrategy.EPOCH:
            self._save_checkpoint(self.model, trial)  # early stopping has ended an epoch before its time

    def _load_best_model(self) -> None:
        best = str(self.state.best_model_checkpoint)
        damage = by_main_process(lambda: find_damage(best, _WEIGHTS))
        if damage is not None:
            raise ValueError(
                f"{best}, the best, cannot be loaded: {damage}. Restore it from a copy, or take the last weights: give "
                "--resume_from_checkpoint last --final_weights last"
            )
        super()._load_best_model()

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
        **generation_options: Any,
    ) -> dict[str, float]:
        """Scores a set of sentence pairs, each by one of the processes, and logs the scores.

        Args:
            eval_dataset: with `input_ids` and `labels`, and for translations `source` and `target`; or several sets by
                name, which then is part of the names of their scores; default is that of the trainer.
            ignore_keys: not used; in the signature of transformers.
            metric_key_prefix: what the names of the scores begin with.
            **generation_options: for `generate()`, in place of the arguments' `generation_num_beams` and
                `gnmt_length_penalty`.

        Returns:
            `eval_loss` (nats per token, without label smoothing), `eval_perplexity`, `eval_bleu` and `eval_chrf` or
            whatever `validation_metrics` has if there is text, `eval_runtime` in seconds and the epoch. The signatures
            of metrics are in `self.score_signatures`.

        Raises:
            ValueError: there is no evaluation set, or it has no rows.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            raise ValueError("there is nothing to evaluate on; give the trainer an `eval_dataset`")
        if isinstance(dataset, dict):
            found = [
                self.evaluate(each, ignore_keys, f"{metric_key_prefix}_{name}", **generation_options)
                for name, each in dataset.items()
            ]
            return {name: value for metrics in found for name, value in metrics.items()}
        started = time.perf_counter()
        if self.moving_average is not None and self.is_in_train:
            with self.moving_average.applied_to(self.model):
                scores = self.scores(dataset, **generation_options)
        else:
            scores = self.scores(dataset, **generation_options)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        metrics[f"{metric_key_prefix}_runtime"] = time.perf_counter() - started
        self._window_started += time.perf_counter() - started
        self.log(metrics)
        if self.is_in_train:
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def predict(
        self,
        test_dataset: Dataset,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "test",
        **generation_options: Any,
    ) -> PredictionOutput:
        """Translates and scores a set of sentence pairs.

        Args:
            test_dataset: with `input_ids`, `labels`, `source` and `target`.
            ignore_keys: not used; in the signature of transformers.
            metric_key_prefix: what the names of the scores begin with.
            **generation_options: for `generate()`.

        Returns:
            `predictions` (B, T), the token ids of the translations with `</s>`, padded with `<pad>`; `label_ids`
            (B, T), padded with -100; and `metrics`, as `evaluate` returns them.

        Raises:
            ValueError: the set has no text to translate, or no rows.
        """
        if missing := {"source", "target"} - set(test_dataset.column_names):
            raise ValueError(f"predict needs text to translate: the set has no {' and no '.join(sorted(missing))}")
        started = time.perf_counter()
        found = self._validate(test_dataset, token_ids=True, **generation_options)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.metrics.items()}
        metrics[f"{metric_key_prefix}_runtime"] = time.perf_counter() - started
        predictions, _ = padded(found.tokens, self.processing_class.pad_token_id)
        labels, _ = padded(test_dataset["labels"], IGNORED_LABEL)
        return PredictionOutput(predictions.numpy(), labels.numpy(), metrics)

    def scores(self, dataset: Dataset, translations: bool = True, **generation_options: Any) -> dict[str, float]:
        """Scores the weights that the model has now, without logging.

        Args:
            dataset: as in `evaluate`.
            translations: whether to translate, for `validation_metrics`; the likelihood takes far less time.
            **generation_options: for `generate()`.

        Returns:
            `loss`, `perplexity` and, if there are translations, `validation_metrics`.
        """
        found = self._validate(dataset, translations=translations, **generation_options)
        self.score_signatures = found.signatures or self.score_signatures
        return found.metrics

    def _validate(self, dataset: Dataset, **options: Any) -> Any:
        # A model that is divided among processes has to be called by all of them alike: each does everything.
        is_divided = self.is_fsdp_enabled or zero_stage_of(self.accelerator.state) == 3
        share = (0, 1) if is_divided else (self.args.process_index, self.args.world_size)
        if not len(dataset):
            raise ValueError("there is nothing to evaluate on; the set has no rows")
        search: dict[str, Any] = {"num_beams": self.args.generation_num_beams or 1}
        if self.args.gnmt_length_penalty is not None and "length_penalty" not in options:
            search["gnmt_length_penalty"] = self.args.gnmt_length_penalty
        options = {**search, "metrics": self.args.validation_metrics, **options}
        model = self.accelerator.unwrap_model(self.model)
        return validation_scores(model, self.processing_class, dataset, self.args.max_eval_tokens, share, **options)


__all__ = ["ValidationOnPairs", "ValidationScores", "validation_scores"]
