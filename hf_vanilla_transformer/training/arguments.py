"""Everything that describes a training run, in one dataclass: data, tokenizer, model and transformers' own options."""

from dataclasses import dataclass, field

import torch
from transformers import Seq2SeqTrainingArguments


@dataclass
class PretrainingArguments(Seq2SeqTrainingArguments):
    """One run of training from scratch: data, tokenizer and model, and transformers' options with the paper's values.

    Every field is described by the `help` in its metadata, which is what `scripts/pretrain.py --help` prints. Those
    that are not listed here are transformers' own. Which data is named is checked where it is loaded.
    """

    train_file: str | None = field(
        default=None,
        metadata={"help": 'Training pairs: jsonl (.gz too), {"translation": {"en": "...", "de": "..."}} a line.'},
    )
    source_file: str | None = field(
        default=None, metadata={"help": "Training sources: plain text (.gz too), one sentence a line."}
    )
    target_file: str | None = field(
        default=None, metadata={"help": "Training targets: line N translates line N of source_file."}
    )
    dataset_name: str | None = field(
        default=None,
        metadata={"help": "Training and validation pairs: a dataset on the Hub, or a folder `datasets` can load."},
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of dataset_name."})
    validation_file: str | None = field(default=None, metadata={"help": "Validation pairs as jsonl, like train_file."})
    validation_source_file: str | None = field(default=None, metadata={"help": "Validation sources, plain text."})
    validation_target_file: str | None = field(default=None, metadata={"help": "Validation targets, plain text."})
    source_lang: str = field(default="en", metadata={"help": "Key of the source in jsonl and dataset rows."})
    target_lang: str = field(default="de", metadata={"help": "Key of the target in jsonl and dataset rows."})
    max_length: int = field(
        default=256, metadata={"help": "Pairs with more tokens than this on either side are left out, and counted."}
    )
    tokenizer_name_or_path: str | None = field(
        default=None, metadata={"help": "A trained tokenizer. Without it, one is trained on the training text."}
    )
    vocab_size: int = field(
        default=37000, metadata={"help": "Tokens of the byte-level BPE that is trained without tokenizer_name_or_path."}
    )
    preset: str = field(
        default="base", metadata={"help": "Shape of the model: base, big, tiny, or a row of Table 3 (table3_C_N2)."}
    )
    config_overrides: list[str] = field(
        default_factory=list,
        metadata={"help": "Fields of the model's config that differ from the preset: dropout=0.2 norm_position=pre"},
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
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Sentence pairs a batch and device."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Sentence pairs a batch in evaluation."})
    train_sampling_strategy: str = field(
        default="group_by_length", metadata={"help": "group_by_length: sentences of like length together; or random."}
    )
    eval_strategy: str = field(
        default="epoch", metadata={"help": "When to evaluate: epoch, steps (every eval_steps) or no."}
    )
    save_strategy: str = field(
        default="epoch", metadata={"help": "When to save a checkpoint: epoch, steps (every save_steps) or no."}
    )
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep; older ones are deleted."})
    logging_steps: float = field(default=100, metadata={"help": "Updates between two lines of the log."})
    generation_num_beams: int | None = field(
        default=4, metadata={"help": "Beams (§6.1) in evaluation and in the saved generation_config."}
    )
    dataloader_pin_memory: bool = field(
        default_factory=torch.cuda.is_available, metadata={"help": "Whether batches wait in pinned memory."}
    )
    use_cache: bool = field(default=True, metadata={"help": "Whether the saved model generates with a cache."})
