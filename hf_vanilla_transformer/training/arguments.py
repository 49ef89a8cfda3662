"""Everything that describes a training run, in one dataclass: data, tokenizer, model and transformers' own options."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

import torch
from transformers import Seq2SeqTrainingArguments

from ..data.batching import Batching
from ..data.tokenized import usable_cores
from .argument_checks import check_final_weights, check_intervals, check_numbers, check_streaming, check_units
from .objectives import check_objective
from .refused_options import refuse_options
from .validation_metrics import DEFAULT, check_validation_metrics, is_better_higher

Objective = Literal["translation", "span_corruption", "denoising", "masked_lm", "causal_lm", "prefix_lm"]
FinalWeights = Literal["last", "best", "average", "ema"]
Units = Literal["bpe", "lowercase_bpe", "characters", "nfd_characters", "words"]


def _loader_workers() -> int:
    # An accelerator would wait for its batches; without one, workers would take the cores that the model computes on.
    return 2 if torch.accelerator.is_available() and usable_cores() > 1 else 0


@dataclass
class VanillaTransformerTrainingArguments(Seq2SeqTrainingArguments):
    """One run of training: data, tokenizer, model, and transformers' options with the paper's values as defaults.

    Every field is described by the `help` in its metadata, which is what `vanilla-transformer pretrain --help` prints.
    Those that are not listed here are transformers' own.

    Raises:
        ValueError: two values contradict each other, or one is out of range; the message says which.
    """

    # What is learned from.
    train_data: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Corpora, each a .jsonl or .tsv file (.gz too), `source=FILE,target=FILE` of plain text, or "
            "`dataset=NAME[,config=NAME][,split=NAME]` of the Hub; `weight=2` counts each of its sentences twice, "
            "`tag=2de` puts the token <2de> in front of each source, `reversed=true` swaps source and target. "
            "`size=N` says how many sentences a dataset has, if several corpora are streamed and it does not say. In a "
            "recipe, each may be a mapping of these keys. Plain text files by themselves are for all "
            "objectives but translation."
        },
    )
    validation_data: list[str] = field(
        default_factory=list,
        metadata={"help": "Like train_data; only empty lines and what is too long for the model are left out."},
    )
    source_lang: str = field(default="en", metadata={"help": "Key of the source in jsonl and dataset rows."})
    target_lang: str = field(default="de", metadata={"help": "Key of the target in jsonl and dataset rows."})
    corpus_temperature: float = field(
        default=1.0,
        metadata={
            "help": "T > 1 learns more often from small corpora: the share of each is proportional to its size (times "
            "weight) to the power of 1/T. 1 is by size; multilingual practice has 5 (Arivazhagan et al., 2019)."
        },
    )
    objective: Objective = field(
        default="translation",
        metadata={
            "help": "translation of pairs; or, of plain text, span_corruption (T5), denoising (BART), masked_lm (BERT, "
            "an encoder alone), causal_lm (GPT, a decoder alone), or prefix_lm (likewise, after prefixes)."
        },
    )
    noise_density: float = field(
        default=0.15,
        metadata={
            "help": "Share of the tokens that span_corruption takes out (0.15 in T5), masked_lm predicts (0.15 in "
            "BERT), or a step of denoising masks, deletes or puts into holes (0.3 in BART)."
        },
    )
    mean_span_length: float = field(
        default=3.0,
        metadata={
            "help": "Tokens of a span of span_corruption, or of a hole of text_infilling, on average (3 in both)."
        },
    )
    denoising_steps: list[str] = field(
        default_factory=lambda: ["text_infilling"],
        metadata={
            "help": "What denoising does to a text, in this order: some of token_masking, token_deletion, "
            "text_infilling, sentence_permutation, document_rotation."
        },
    )
    max_length: int = field(
        default=256, metadata={"help": "Leave out pairs with more tokens than this on either side."}
    )
    max_length_ratio: float | None = field(
        default=None, metadata={"help": "Leave out pairs of which one side has this many times the other's tokens."}
    )
    drop_duplicates: bool = field(default=False, metadata={"help": "Leave out pairs that were seen before."})
    streaming: bool = field(
        default=False, metadata={"help": "Read while training, for corpora larger than the disk; needs max_steps."}
    )
    shuffle_buffer: int = field(
        default=50_000, metadata={"help": "Pairs that are shuffled and batched together while streaming."}
    )
    data_cache_dir: str | None = field(
        default=None, metadata={"help": "Where tokenised text is kept, by content; default is below datasets' cache."}
    )
    preprocessing_workers: int | None = field(
        default=None,
        metadata={"help": "Processes that tokenise; default is one for each 100,000 sentences, up to 8 and the cores."},
    )
    prepare_only: bool = field(
        default=False,
        metadata={
            "help": "Train the tokenizer, tokenise, plan the batches, and stop: for one process to do before many "
            "train on much text. Can be interrupted and repeated."
        },
    )
    dry_run: int = field(
        default=0,
        metadata={
            "help": "Make so many updates on made-up text, evaluate, save, say what memory and time they took, and "
            "remove everything: whether a run fits, before there is text. 0 is off."
        },
    )

    # How it becomes tokens and batches.
    tokenizer_name_or_path: str | None = field(
        default=None, metadata={"help": "A trained tokenizer. Without it, one is trained on the training text."}
    )
    vocab_size: int = field(
        default=37000,
        metadata={
            "help": "Tokens of the vocabulary that is trained without tokenizer_name_or_path; of characters and words, "
            "the most tokens."
        },
    )
    source_units: Units = field(
        default="bpe",
        metadata={
            "help": "What a tokenizer that is trained cuts sources into: bpe (byte-level), lowercase_bpe (likewise, in "
            "lower case, with targets as they are), characters, nfd_characters (letters and their marks apart, Korean "
            "as jamo; decoding composes them), or words: units that the text gives, separated by spaces, such as "
            "phones."
        },
    )
    target_units: Units = field(
        default="bpe",
        metadata={"help": "Likewise for targets; bpe, of either kind, is one vocabulary for both sides (§5.1)."},
    )
    num_sentinels: int = field(
        default=0, metadata={"help": "Sentinel tokens of a tokenizer that is trained; span_corruption needs some."}
    )
    max_tokens: int = field(
        default=25_000,
        metadata={"help": "Source tokens, and target tokens, of a batch on one device, padding included (§5.1)."},
    )
    batching: Batching = field(
        default="length",
        metadata={"help": "Pairs of a batch: of one length (§5.1), or random with more padding."},
    )
    max_eval_tokens: int = field(
        default=4096,
        metadata={"help": "Tokens of a side that evaluation scores or translates at a time, padding included."},
    )
    bpe_dropout: float = field(
        default=0.0, metadata={"help": "Probability of leaving out a merge while training (Provilkov et al., 2020)."}
    )
    r_drop: float = field(
        default=0.0, metadata={"help": "Weight of the divergence between two dropouts (Liang et al., 2021); 0 is off."}
    )
    distill_from: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Trained models of one vocabulary, whose mean prediction for each label is learned too "
            "(word-level distillation, Kim & Rush, 2016)."
        },
    )
    distill_share: float = field(
        default=0.5, metadata={"help": "Share of the loss that is learned from distill_from; the labels have the rest."}
    )

    # What learns.
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A model of this package to go on from. Without it, a new one is made."}
    )
    init_encoder_from: str | None = field(
        default=None,
        metadata={"help": "A trained model of any kind with an encoder of the same shape: a new one begins with its."},
    )
    init_decoder_from: str | None = field(
        default=None,
        metadata={"help": "Likewise with a decoder; of a decoder alone, attention to the encoder stays new."},
    )
    preset: str = field(
        default="base",
        metadata={"help": "Shape of a new model: base, big, tiny (or base_swiglu, ...), or a row of Table 3."},
    )
    model_class: str | None = field(
        default=None,
        metadata={
            "help": "Class of a new model in place of the package's own, as MODULE:CLASS, such as a subclass. Its "
            "config_class says which presets there are, and which fields for config_overrides."
        },
    )
    config_overrides: list[str] = field(
        default_factory=list,
        metadata={"help": "Fields of a new model's config that differ from the preset: dropout=0.2 norm_position=pre"},
    )
    frozen_modules: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Parts that do not learn, by name: model.encoder.layers freezes the layers of the encoder; "
            "model.encoder has the embedding too, and with it whatever is tied to it. They get no adapters either."
        },
    )
    lora_rank: int = field(
        default=0,
        metadata={"help": "Rank of LoRA adapters; then nothing else learns but rows of new_tokens. 0 is off."},
    )
    lora_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "v_proj"], metadata={"help": "Projections that get a LoRA adapter."}
    )
    new_tokens: list[str] = field(
        default_factory=list,
        metadata={"help": "Tokens added to the vocabulary of tokenizer and model, such as <2de>; decoding keeps them."},
    )
    continue_schedule: bool = field(
        default=False,
        metadata={
            "help": "Begin the schedule at the update where model_name_or_path stopped; give its learning_rate "
            "and warmup_steps again."
        },
    )
    ema_decay: float = field(
        default=0.999, metadata={"help": "Decay per update of the moving average of final_weights=ema."}
    )
    final_weights: FinalWeights | None = field(
        default=None,
        metadata={
            "help": "What the run saves in the end: the average of the last checkpoints (§6.1), the last, the best by "
            "metric_for_best_model, or the moving average (ema), which is then evaluated too. Default is average; with "
            "lora_rank, last."
        },
    )
    average_last: int = field(
        default=5, metadata={"help": "Checkpoints in the average: 5 for base, 20 for big (§6.1)."}
    )
    keep_worse_average: bool = field(
        default=False,
        metadata={
            "help": "Keep an average (or ema) even where it is worse on the validation set than the last update, which "
            "otherwise is kept then."
        },
    )
    early_stopping_patience: int = field(
        default=0, metadata={"help": "Stop after so many evaluations without a better metric_for_best_model; 0 is off."}
    )
    max_minutes: float = field(
        default=0.0,
        metadata={
            "help": "Stop after so many minutes of training, over all starts, evaluation and checkpoints not counted; "
            "with one thread on a CPU, of its CPU time, which other programs do not change. 0 is off. A schedule with "
            "an end, such as cosine, does not get there; inverse_sqrt has none."
        },
    )

    # transformers' options, where the paper or this task says something else than transformers' defaults.
    learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate; default is §5.3's (d_model * warmup_steps)^-0.5."}
    )
    lr_scheduler_type: str = field(
        default="inverse_sqrt",
        metadata={"help": "inverse_sqrt is §5.3, exact from the first update; or any that transformers has."},
    )
    warmup_steps: float = field(
        default=4000, metadata={"help": "Updates until the peak (§5.3); below 1, a share of all updates."}
    )
    adam_beta2: float = field(default=0.98, metadata={"help": "beta_2 of Adam (§5.3)."})
    adam_epsilon: float = field(default=1e-9, metadata={"help": "epsilon of Adam (§5.3)."})
    max_grad_norm: float = field(
        default=0.0, metadata={"help": "Largest norm of the gradient; 0, as in the paper, does not limit it."}
    )
    per_device_train_batch_size: int = field(
        default=1, metadata={"help": "Not used: batches are made by max_tokens, of as many sentences as fit."}
    )
    per_device_eval_batch_size: int = field(
        default=8, metadata={"help": "Not used: batches in evaluation are made by max_eval_tokens."}
    )
    metric_for_best_model: str | None = field(
        default="loss",
        metadata={
            "help": "Validation score of the best checkpoint: loss (nats per token, without label smoothing), "
            "perplexity, or one of validation_metrics."
        },
    )
    validation_metrics: list[str] = field(
        default_factory=lambda: list(DEFAULT),
        metadata={
            "help": "Scores of translations of the validation text: bleu, chrf, ter; or of pronunciations, wer "
            "(percent of lines that are not exactly the target) and per (edits per 100 units, cut at spaces). An empty "
            "list translates nothing."
        },
    )
    eval_strategy: str = field(
        default="epoch", metadata={"help": "When to evaluate: epoch, steps (every eval_steps) or no."}
    )
    save_strategy: str = field(
        default="epoch", metadata={"help": "When to save a checkpoint: epoch, steps (every save_steps) or no."}
    )
    save_total_limit: int | None = field(
        default=None,
        metadata={
            "help": "Checkpoints to keep, the best one on top; default is 2, or average_last if they are averaged."
        },
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "What to resume from: a checkpoint's folder; last, the newest good one in output_dir; or auto, "
            "that if there is one and else a fresh start."
        },
    )
    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "Remove the checkpoints and results of another run in output_dir, which else is refused."},
    )
    logging_steps: float = field(default=100, metadata={"help": "Updates between two lines of the log."})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Not needed: a loss or gradient that is not finite stops the run."}
    )
    generation_num_beams: int | None = field(
        default=4, metadata={"help": "Beams (§6.1) in evaluation, and in the generation_config of a new model."}
    )
    gnmt_length_penalty: float | None = field(
        default=None,
        metadata={
            "help": "Alpha of the length penalty (§6.1) in evaluation and in the saved generation_config, which "
            "`vanilla-transformer tune` chooses; without it the model's own, and for a new one 0.6."
        },
    )
    dataloader_num_workers: int = field(
        default_factory=_loader_workers,
        metadata={"help": "Processes that make batches ahead; default is 2 beside an accelerator, and none without."},
    )
    dataloader_pin_memory: bool = field(
        default_factory=torch.cuda.is_available, metadata={"help": "Whether batches wait in pinned memory."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Whether DDP looks for parameters without a gradient; there are none here."}
    )
    use_cache: bool = field(default=True, metadata={"help": "Whether the saved model generates with a cache."})

    def __post_init__(self) -> None:
        for each in fields(self):
            # `train_data: train.jsonl` in a recipe is one corpus, and not as many as it has letters.
            if each.type == list[str] and isinstance(getattr(self, each.name), str | Mapping):
                setattr(self, each.name, [getattr(self, each.name)])
        if self.final_weights is None:
            self.final_weights = "last" if self.lora_rank else "average"
        if self.final_weights == "best":
            self.load_best_model_at_end = True
        if getattr(self, "greater_is_better", None) is None and self.metric_for_best_model is not None:
            self.greater_is_better = is_better_higher(self.metric_for_best_model)
        if self.save_total_limit is None:
            self.save_total_limit = max(2, self.average_last if self.final_weights == "average" else 0)
        if not torch.accelerator.is_available() and (self.bf16 or int(os.environ.get("WORLD_SIZE", "1")) > 1):
            # Without it, transformers takes bf16 for a wish that no device can fulfil, and the processes of a launcher
            # for runs of their own.
            self.use_cpu = True
        check_intervals(self)
        super().__post_init__()
        self._check()

    def _check(self) -> None:
        check_numbers(self)
        choices = (("objective", Objective), ("final_weights", FinalWeights), ("batching", Batching))
        for name, allowed in (*choices, ("source_units", Units), ("target_units", Units)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"{name}={getattr(self, name)!r} is none of {', '.join(get_args(allowed))}")
        check_validation_metrics(self)
        check_final_weights(self)
        check_streaming(self)
        if self.learning_rate is None and self.warmup_steps < 1:
            raise ValueError(
                f"warmup_steps={self.warmup_steps:g} is not a number of updates, from which §5.3 derives the learning "
                "rate; give one of at least 1, or a learning_rate"
            )
        check_units(self)
        if self.dry_run and self.prepare_only:
            raise ValueError(
                "dry_run makes its own text, so that prepare_only has nothing to prepare; give one of them"
            )
        check_objective(self, {each.name: each.default for each in fields(self)})
        refuse_options(self)


__all__ = ["VanillaTransformerTrainingArguments"]
