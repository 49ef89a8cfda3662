"""From text to a model: a run of training from scratch, §5 of the paper in one function."""

import ast
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase, set_seed
from transformers.trainer_utils import get_last_checkpoint

from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..inference.batching import padded_batch
from ..inference.translation import MAX_EXTRA_TOKENS
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .arguments import PretrainingArguments
from .data import load_pairs, tokenize_pairs
from .schedule import peak_learning_rate
from .tokenization import save_tokenizer, train_tokenizer
from .trainer import VanillaTransformerTrainer


@dataclass(frozen=True)
class PretrainingResult:
    """What a run leaves behind in memory; `results.json` in the folder of the run has its numbers.

    Args:
        model: the trained model.
        tokenizer: its tokenizer.
        metrics: the last evaluation, if there was one, and what training took.
        history: the log of the run, one entry a line.
    """

    model: VanillaTransformerForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    metrics: dict[str, Any]
    history: list[dict[str, Any]]


@dataclass(frozen=True)
class PreparedRun:
    """Everything that training needs, checked and ready.

    Args:
        model: with its initial weights.
        tokenizer: given, or trained on the training text.
        train_set: as `tokenize_pairs` returns it.
        validation_set: likewise; None where there is no validation text.
    """

    model: VanillaTransformerForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    train_set: Dataset
    validation_set: Dataset | None


def pretrain(args: PretrainingArguments) -> PretrainingResult:
    """Trains a model from scratch on the parallel text that `args` name, and saves it with its tokenizer.

    Args:
        args: the run. With `resume_from_checkpoint` "last", the newest checkpoint in `output_dir` is gone on with.

    Returns:
        The model, its tokenizer and its numbers.

    Raises:
        ValueError: as `prepare`.
        OSError: likewise.
    """
    run = prepare(args)
    return train(run.model, run.tokenizer, args, run.train_set, run.validation_set)


def prepare(args: PretrainingArguments) -> PreparedRun:
    """Loads the text, gets or trains the tokenizer, and builds the model: all that can go wrong before training.

    Args:
        args: the run.

    Returns:
        What `train` needs.

    Raises:
        ValueError: data, preset or overrides are not usable; the message says which value, where.
        OSError: a file is missing or cannot be read.
    """
    if args.learning_rate is None and args.warmup_steps < 1:
        raise ValueError(
            f"warmup_steps={args.warmup_steps} is a share of the run, of which §5.3 derives no learning rate; "
            "give a number of updates, or a learning_rate"
        )
    set_seed(args.seed)
    train_pairs, validation_pairs = load_pairs(args)
    tokenizer = _tokenizer(args, train_pairs)
    train_set = tokenize_pairs(train_pairs, tokenizer, args.max_length, "training set")
    validation_set = None
    if validation_pairs is not None:
        # A score should not depend on what training had no room for.
        validation_set = tokenize_pairs(validation_pairs, tokenizer, max_length=None, name="validation set")
    return PreparedRun(_model(args, tokenizer), tokenizer, train_set, validation_set)


def train(
    model: VanillaTransformerForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    args: PretrainingArguments,
    train_set: Dataset,
    validation_set: Dataset | None = None,
) -> PretrainingResult:
    """Trains `model` on tokenised pairs, and saves it with its tokenizer and numbers in `args.output_dir`.

    Args:
        model: to be trained, in place.
        tokenizer: its tokenizer.
        args: the run; its data and model fields are not looked at.
        train_set: as `tokenize_pairs` returns it.
        validation_set: likewise; None means no evaluation.

    Returns:
        The model, its tokenizer and its numbers.
    """
    if args.learning_rate is None:
        args.learning_rate = peak_learning_rate(model.config.d_model, int(args.warmup_steps))
    if validation_set is None:
        args.eval_strategy = "no"
    trainer = VanillaTransformerTrainer(
        model=model,
        args=args,
        train_dataset=train_set,
        eval_dataset=validation_set,
        data_collator=partial(padded_batch, pad_token_id=tokenizer.pad_token_id),
        processing_class=tokenizer,
    )
    checkpoint = args.resume_from_checkpoint
    if checkpoint == "last":
        checkpoint = get_last_checkpoint(args.output_dir) if Path(args.output_dir).is_dir() else None
    output = trainer.train(resume_from_checkpoint=checkpoint)
    metrics: dict[str, Any] = {"train_runtime": output.metrics["train_runtime"], "updates": output.global_step}
    if validation_set is not None:
        metrics |= _last_evaluation(trainer) or trainer.evaluate()
        metrics["signatures"] = getattr(trainer, "score_signatures", {})
    trainer.save_model()
    save_tokenizer(tokenizer, args.output_dir)
    history = trainer.state.log_history
    if trainer.is_world_process_zero():
        path = Path(args.output_dir) / "results.json"
        path.write_text(json.dumps({"metrics": metrics, "history": history}, indent=1) + "\n", encoding="utf-8")
    return PretrainingResult(model, tokenizer, metrics, history)


def parse_overrides(overrides: list[str]) -> dict[str, Any]:
    """Reads `["dropout=0.2", "norm_position=pre"]` as the keyword arguments of a config.

    Args:
        overrides: NAME=VALUE each; the value is a Python literal, or else a string.

    Returns:
        Values by name.

    Raises:
        ValueError: one has no "=".
    """
    values: dict[str, Any] = {}
    for override in overrides:
        name, separator, text = override.partition("=")
        if not separator:
            raise ValueError(f"config_overrides: {override!r} is not of the form NAME=VALUE")
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values


def _last_evaluation(trainer: VanillaTransformerTrainer) -> dict[str, Any]:
    """What an evaluation after the very last update found, so that it need not be repeated."""
    for entry in reversed(trainer.state.log_history):
        if "eval_loss" in entry and entry["step"] == trainer.state.global_step:
            return {name: value for name, value in entry.items() if name.startswith("eval_")}
    return {}


def _tokenizer(args: PretrainingArguments, pairs: Dataset) -> PreTrainedTokenizerBase:
    if args.tokenizer_name_or_path is not None:
        return AutoTokenizer.from_pretrained(args.tokenizer_name_or_path, trust_remote_code=False)
    texts = (text for column in ("source", "target") for text in pairs[column])
    return train_tokenizer(texts=texts, vocab_size=args.vocab_size)


def _model(
    args: PretrainingArguments, tokenizer: PreTrainedTokenizerBase
) -> VanillaTransformerForConditionalGeneration:
    special_tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.bos_token_id,
    }
    config = VanillaTransformerConfig.from_preset(
        args.preset, **{"vocab_size": len(tokenizer), **special_tokens, **parse_overrides(args.config_overrides)}
    )
    model = VanillaTransformerForConditionalGeneration(config)
    model.generation_config.num_beams = args.generation_num_beams or 1
    # Without a limit of its own, transformers stops after 20 tokens.
    model.generation_config.max_new_tokens = args.max_length + MAX_EXTRA_TOKENS
    return model
