"""Training end to end next to a peer: useful tokens a second, with everything that a run does."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..data import train_tokenizer
from ..data.batching import TokenBatchSampler, collate
from ..data.corpora import Corpus, TextFormat, read_corpora
from ..data.examples import TrainingExamples
from ..data.filters import Filters
from ..data.tokenized import Cache, load_tokenized, row_lengths
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..training import VanillaTransformerTrainer, VanillaTransformerTrainingArguments
from .benchmarks import marian_like, matrix_product_rate
from .planning import training_flops

OURS, OURS_BF16 = "hf_vanilla_transformer", "hf_vanilla_transformer, bf16"
GROUPED, RANDOM = "MarianMT + Seq2SeqTrainer, group_by_length", "MarianMT + Seq2SeqTrainer, its default"

# As many as transformers sorts together, so that its batches are what they are in a whole epoch.
_SENTENCES = 50 * 128


@dataclass(frozen=True)
class TrainingComparison:
    """Useful target tokens a second of several programs, which train on the same sentences in turns.

    Args:
        what: the work.
        speeds: one number a turn, by program.
        padding: the share of our batches that holds no token.
        flops_per_token: operations of forward and backward for a target token, with its source and without padding.
        flops_per_second: of a large matrix product on this machine, by the type of its factors.
    """

    what: str
    speeds: dict[str, list[float]]
    padding: float
    flops_per_token: float
    flops_per_second: dict[torch.dtype, float]

    def ratio(self, program: str, peer: str) -> float:
        """How many times faster a program is than a peer: their medians, divided."""
        return statistics.median(self.speeds[program]) / statistics.median(self.speeds[peer])

    def share(self, program: str) -> float:
        """How much of the machine's rate of matrix products, in the program's type, goes into useful products."""
        dtype = torch.bfloat16 if program == OURS_BF16 else torch.float32
        return statistics.median(self.speeds[program]) * self.flops_per_token / self.flops_per_second[dtype]

    def lines(self) -> list[str]:
        """The comparison as a table of Markdown rows."""
        rows = [f"| {self.what} | tokens/s, median | x default | x group_by_length | share of the machine's rate |"]
        rows.append("|---|---|---|---|---|")
        for name, speeds in self.speeds.items():
            row = f"| {name} | {statistics.median(speeds):,.0f} | {self.ratio(name, RANDOM):.2f}"
            rows.append(f"{row} | {self.ratio(name, GROUPED):.2f} | {self.share(name):.0%} |")
        rates = ", ".join(f"{rate / 1e9:,.0f} in {str(kind)[6:]}" for kind, rate in self.flops_per_second.items())
        work = f"{self.flops_per_token / 1e6:.1f} MFLOP per target token"
        faster = f"bf16 is {self.ratio(OURS_BF16, OURS):.2f} times as fast as fp32"
        return [
            *rows,
            f"useful products: {work}; GFLOP/s of a large product: {rates}",
            f"padding in our batches: {self.padding:.1%}; {faster}",
        ]


def compare_training(
    corpora: Sequence[str],
    preset: str = "tiny",
    vocab_size: int = 10_000,
    turns: int = 3,
    sentences: int = _SENTENCES,
    max_tokens: int = 4096,
) -> TrainingComparison:
    """Trains on the same sentences, in turns: ours, ours in bf16, MarianMT with transformers' trainer.

    Each turn is an epoch: loading batches, forward, backward, Adam, logging. All have the shape of the preset, dropout
    0.1 and label smoothing 0.1. The peer has batches of 128 sentences.

    Args:
        corpora: sentence pairs, as `train_data` names them.
        preset: shape of the models.
        vocab_size: V.
        turns: epochs of each program.
        sentences: how many of the pairs are taken.
        max_tokens: of our batches.

    Returns:
        The comparison.
    """
    with tempfile.TemporaryDirectory() as folder:
        args = partial(
            VanillaTransformerTrainingArguments,
            output_dir=folder,
            max_tokens=max_tokens,
            num_train_epochs=1,
            final_weights="last",
            save_strategy="no",
            eval_strategy="no",
            learning_rate=1e-3,
            logging_steps=10,
            disable_tqdm=True,
            use_cpu=True,
        )
        parsed = [Corpus.parse(corpus) for corpus in corpora]
        texts = (row[side] for row in read_corpora(parsed, TextFormat()) for side in ("source", "target"))
        tokenizer = train_tokenizer(texts=texts, vocab_size=vocab_size)
        rows = load_tokenized(parsed, tokenizer, TextFormat(), Filters(), "training set", Cache(folder)).shuffle(seed=0)
        rows = rows.select(range(min(sentences, len(rows)))).flatten_indices()
        sources, targets = row_lengths(rows)
        useful = int(targets.sum())
        config = VanillaTransformerConfig.from_preset(preset, vocab_size=len(tokenizer), dropout=0.1)
        sampler = TokenBatchSampler(sources, targets, max_tokens)
        programs = {
            OURS: _ours(config, args(), rows, sampler, tokenizer),
            OURS_BF16: _ours(config, args(bf16=True), rows, sampler, tokenizer),
            GROUPED: _peer(config, folder, rows, tokenizer, "group_by_length"),
            RANDOM: _peer(config, folder, rows, tokenizer, "random"),
        }
        speeds: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(turns):
            for name, train in programs.items():
                started = time.perf_counter()
                train()
                speeds[name].append(useful / (time.perf_counter() - started))
    flops = sum(training_flops(config, 1, int(s), int(t)) for s, t in zip(sources, targets, strict=True))
    rates = {kind: matrix_product_rate(kind) for kind in (torch.float32, torch.bfloat16)}
    what = f"training end to end, {preset}, V {vocab_size:,}, {len(rows):,} sentences"
    return TrainingComparison(what, speeds, sampler.padding_share(), flops / useful, rates)


def _ours(
    config: VanillaTransformerConfig,
    args: VanillaTransformerTrainingArguments,
    rows: Dataset,
    sampler: TokenBatchSampler,
    tokenizer: PreTrainedTokenizerBase,
) -> Callable[[], Any]:
    torch.manual_seed(0)
    trainer = VanillaTransformerTrainer(
        model=VanillaTransformerForConditionalGeneration(config),
        args=args,
        train_dataset=TrainingExamples(rows),
        data_collator=partial(collate, pad_token_id=tokenizer.pad_token_id),
        processing_class=tokenizer,
        train_sampler=sampler,
    )
    return trainer.train


def _peer(
    config: VanillaTransformerConfig, folder: str, rows: Dataset, tokenizer: PreTrainedTokenizerBase, strategy: str
) -> Callable[[], Any]:
    torch.manual_seed(0)
    model = marian_like(config)
    args = Seq2SeqTrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=128,
        train_sampling_strategy=strategy,
        label_smoothing_factor=0.1,
        num_train_epochs=1,
        save_strategy="no",
        learning_rate=1e-3,
        logging_steps=10,
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    columns = rows.select_columns(["input_ids", "labels"])
    return Seq2SeqTrainer(model=model, args=args, train_dataset=columns, data_collator=collator).train
