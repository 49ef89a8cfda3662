"""From text to a model: a run of training, §5 of the paper in one function."""

import json
import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase, set_seed
from transformers.utils import logging

from .arguments import VanillaTransformerTrainingArguments
from .averaging import average_weights, last_checkpoints
from .checkpoints import find_damage, hash_file, last_good_checkpoint, prepare_folder
from .corpora import Corpus
from .data import Filters, TrainingExamples, load_tokenized, read_corpora
from .examples import example_maker, planned_lengths
from .model_setup import build_model
from .recipes import given_values
from .report import write_results
from .schedule import peak_learning_rate
from .streaming import TokenBatchStream
from .token_batches import TokenBatchSampler
from .tokenization import save_tokenizer, train_tokenizer
from .trainer import VanillaTransformerTrainer, collate

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class PreparedRun:
    """Everything that training needs, checked and ready.

    Args:
        model: with its initial weights; a peft model where adapters learn.
        tokenizer: given, or trained on the training text.
        train_set: examples, or a stream of batches.
        train_sampler: makes the batches of `train_set`; None for a stream.
        validation_set: tokenised; None where there is no validation text.
        first_update: the update of the schedule with which the run begins, from 0.
        checkpoint: what the run goes on from; None for a fresh start.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    train_set: TrainingExamples | TokenBatchStream
    train_sampler: TokenBatchSampler | None
    validation_set: Dataset | None
    first_update: int = 0
    checkpoint: Path | None = None


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
        args: the run. With `resume_from_checkpoint` "last", the newest good checkpoint in `output_dir` is gone on
            with.

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
        ValueError: data, preset or overrides are not usable; the message says which value, where.
        OSError: a file is missing or cannot be read, or the folder of the run cannot be written.
    """
    set_seed(args.seed)
    if not args.train_data:
        raise ValueError("there is nothing to learn from; give train_data, such as source=train.en,target=train.de")
    corpora = [_with_split(Corpus.parse(each), "train") for each in args.train_data]
    validation = [_with_split(Corpus.parse(each), "validation") for each in args.validation_data]
    for corpus in [*corpora, *validation]:
        corpus.check()
    if args.should_save:
        prepare_folder(args.output_dir)
    checkpoint = _checkpoint(args)
    with args.main_process_first(local=False, desc="reading and tokenising text"):
        tokenizer = _tokenizer(args, corpora, checkpoint)
        make = example_maker(args, tokenizer)
        batch = partial(collate, pad_token_id=tokenizer.pad_token_id)
        train_set: TrainingExamples | TokenBatchStream
        if args.streaming:
            train_set, sampler = TokenBatchStream(corpora, tokenizer, args, make, batch), None
        else:
            rows = load_tokenized(corpora, tokenizer, args, Filters.of(args), "training set")
            train_set = TrainingExamples(rows, corpora, make)
            sampler = _sampler(args, rows, corpora, tokenizer)
        validation_set = None
        if validation:
            # A score should not depend on what training had no room for.
            validation_set = load_tokenized(validation, tokenizer, args, Filters(), "validation set")
            if args.objective == "span_corruption" and make is not None:  # the same holes at every evaluation
                validation_set = validation_set.map(
                    lambda row, index: make(row, 0, index), with_indices=True, load_from_cache_file=False
                )
    model, first_update = build_model(args, tokenizer)
    if args.learning_rate is None:
        args.learning_rate = peak_learning_rate(model.config.d_model, int(args.warmup_steps))
    if args.should_save:
        # Weights, and Adam's two moments for those that learn.
        learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        size = 4 * (sum(weight.numel() for weight in model.parameters()) + 2 * learning)
        prepare_folder(args.output_dir, size, (args.save_total_limit or 2) + 1)
    return PreparedRun(model, tokenizer, train_set, sampler, validation_set, first_update, checkpoint)


def train(run: PreparedRun, args: VanillaTransformerTrainingArguments) -> TrainingResult:
    """Trains a prepared model, and saves it with its tokenizer and numbers in `args.output_dir`.

    Args:
        run: as `prepare` returns it.
        args: the run; its data and model fields are not looked at.

    Returns:
        The model, its tokenizer and its numbers.

    Raises:
        ValueError: FSDP and averaged weights are asked for together.
        FloatingPointError: a loss or gradient is not finite.
        OSError: a checkpoint could not be written.
    """
    trainer = _trainer(run, args)
    if trainer.is_fsdp_enabled and args.final_weights in ("average", "ema"):
        raise ValueError(
            f"final_weights={args.final_weights} needs whole weights, of which FSDP leaves each process a part; "
            "take last or best, and scripts/average_checkpoints.py afterwards"
        )
    try:
        output = trainer.train(resume_from_checkpoint=str(run.checkpoint) if run.checkpoint else None)
    finally:
        trainer.interruption.stop_listening()
    history = trainer.state.log_history
    metrics: dict[str, Any] = {"train_runtime": output.metrics["train_runtime"], "updates": output.global_step}
    if trainer.interruption.signal_number is not None:
        return TrainingResult(run.model.eval(), run.tokenizer, metrics, history, trainer.interruption.signal_number)
    metrics["final_weights"] = _take_final_weights(trainer)
    metrics["parameters"] = sum(parameter.numel() for parameter in run.model.parameters())
    for name, whole in (("tokens_per_second", statistics.median), ("padding", statistics.fmean)):
        values = [entry[name] for entry in history if name in entry]
        if values:
            metrics[name] = whole(values)
    if run.validation_set is not None:
        metrics |= _last_evaluation(trainer) or trainer.evaluate(metric_key_prefix="final")
        metrics["signatures"] = trainer.score_signatures
    model = _save(trainer).eval()
    if trainer.is_world_process_zero():
        write_results(args.output_dir, given_values(args), metrics, history)
    return TrainingResult(model, run.tokenizer, metrics, history)


def _trainer(run: PreparedRun, args: VanillaTransformerTrainingArguments) -> VanillaTransformerTrainer:
    if run.validation_set is None:
        args.eval_strategy = "no"
    return VanillaTransformerTrainer(
        model=run.model,
        args=args,
        train_dataset=run.train_set,
        eval_dataset=run.validation_set,
        data_collator=partial(collate, pad_token_id=run.tokenizer.pad_token_id),
        processing_class=run.tokenizer,
        train_sampler=run.train_sampler,
        first_update=run.first_update,
    )


def _with_split(corpus: Corpus, split: str) -> Corpus:
    if corpus.dataset is None or corpus.split is not None:
        return corpus
    return Corpus(dataset=corpus.dataset, config=corpus.config, split=split, weight=corpus.weight)


def _checkpoint(args: VanillaTransformerTrainingArguments) -> Path | None:
    if args.resume_from_checkpoint == "last":
        return last_good_checkpoint(args.output_dir)
    if args.resume_from_checkpoint is None:
        return None
    damage = find_damage(args.resume_from_checkpoint)
    if damage is not None:
        raise ValueError(f"resume_from_checkpoint={args.resume_from_checkpoint}: {damage}; use another, or `last`")
    return Path(args.resume_from_checkpoint)


def _sampler(
    args: VanillaTransformerTrainingArguments, rows: Dataset, corpora: list[Corpus], tokenizer: PreTrainedTokenizerBase
) -> TokenBatchSampler:
    sources, targets = planned_lengths(args, rows, tokenizer)
    weights = torch.tensor([corpus.weight for corpus in corpora], dtype=torch.float64).numpy()
    return TokenBatchSampler(
        sources,
        targets,
        args.max_tokens,
        seed=args.data_seed if args.data_seed is not None else args.seed,
        weights=weights[rows.with_format("numpy")["corpus"][:]],
        num_processes=args.world_size,
        process_index=args.process_index,
        accumulation_steps=args.gradient_accumulation_steps,
    )


def _take_final_weights(trainer: VanillaTransformerTrainer) -> str:
    """Gives the model the weights that the run is to end with, and says which they are."""
    args, state = trainer.args, trainer.state
    if args.final_weights == "ema" and trainer.moving_average is not None:
        trainer.moving_average.copy_to(trainer.model)
        return f"moving average, decay {args.ema_decay}"
    if args.final_weights == "average":
        checkpoints = last_checkpoints(args.output_dir, args.average_last)
        weights = average_weights(checkpoints)
        # What is tied is stored once; `strict` would miss the rest.
        trainer.model.load_state_dict(weights, strict=False)
        return f"average of {len(checkpoints)} checkpoints"
    if args.final_weights == "best":
        return f"best {args.metric_for_best_model}, update {state.best_global_step}"
    return "last update"


def _last_evaluation(trainer: VanillaTransformerTrainer) -> dict[str, Any]:
    """What an evaluation of these very weights found, so that it need not be repeated."""
    if trainer.args.final_weights != "last":
        return {}
    for entry in reversed(trainer.state.log_history):
        if "eval_loss" in entry and entry["step"] == trainer.state.global_step:
            if "eval_bleu" in entry and not trainer.score_signatures:
                return {}  # an earlier process found it, which took the signatures along
            return {f"final_{name[5:]}": value for name, value in entry.items() if name.startswith("eval_")}
    return {}


def _save(trainer: VanillaTransformerTrainer) -> Any:
    """Saves model and tokenizer in the folder of the run, adapters merged, and returns the model."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    output_dir = Path(trainer.args.output_dir)
    if not trainer.args.lora_rank:
        trainer.save_model()  # by all processes, which may each have a part of it
        return model
    if trainer.is_world_process_zero():  # the adapter by itself too, for those who have the model it belongs to
        model.save_pretrained(output_dir / "adapter")
    model = model.merge_and_unload()
    if trainer.is_world_process_zero():
        model.save_pretrained(output_dir)
        save_tokenizer(trainer.processing_class, output_dir)
    return model


def _tokenizer(
    args: VanillaTransformerTrainingArguments, corpora: list[Corpus], checkpoint: Path | None
) -> PreTrainedTokenizerBase:
    given = checkpoint or args.tokenizer_name_or_path or args.model_name_or_path
    if given is None:
        # Kept by the run, so that its other processes, and itself if it is resumed, have the same.
        folder = Path(args.output_dir) / "tokenizer"
        datasets = [corpus.name for corpus in corpora if corpus.dataset is not None]
        contents = [hash_file(path) for corpus in corpora for path in corpus.files]
        key = json.dumps([args.vocab_size, args.num_sentinels, *datasets, *contents])
        stamp = folder / "made_from.txt"
        if not stamp.exists() or stamp.read_text() != key:
            texts = (row[side] for row in read_corpora(corpora, args) for side in ("source", "target") if side in row)
            tokenizer = train_tokenizer(texts=texts, vocab_size=args.vocab_size, num_sentinels=args.num_sentinels)
            save_tokenizer(tokenizer, folder)
            stamp.write_text(key)
        given = folder
    tokenizer = AutoTokenizer.from_pretrained(given, trust_remote_code=False)
    if args.new_tokens and checkpoint is None:
        added = tokenizer.add_tokens(args.new_tokens)
        logger.info(f"{added} of {len(args.new_tokens)} new_tokens were added; the others were there")
    return tokenizer
