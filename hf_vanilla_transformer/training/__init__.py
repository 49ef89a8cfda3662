"""§5 training: the arguments of a run, its recipe, the trainer, checkpoints one can trust, and what a run leaves.

In reading order:

    arguments, validation_metrics, refused_options      what a run is told, and what would do nothing here
    objectives      what can be learned besides to translate, and which model learns it
    recipes, command_line, config_overrides     the same as YAML and as flags
    run             `prepare` and `train`: a run from its arguments to its results; for which
        data_setup, tokenizer_setup     turn arguments into the dataclasses of `data`
        model_setup, adapters           build or load the model, freeze parts of it, add LoRA
        weight_transfer                 begins a new translation model with trained stacks
        teachers                        are trained models that a new one also learns from
        resuming, ranks                 find the checkpoint, agree on it, and refuse what must not change
    trainer         batches, loss, log and checkpoints, with
        schedule                        §5.3
        validation, hub, fsdp           what evaluates, uploads, and divides a model
        callbacks, interruption, progress   what happens at every update besides
        checkpoints, folder_lock        that appear whole or not at all, in a folder that one run has to itself
    averaging, moving_average, final_weights    §6.1: which weights the run ends with
    report, environment     results.json, the curves and the three lines; what it was computed on

`pretrain(args)` does all of it, from files to a saved model. With data and a loop of one's own, the trainer alone does:

    from functools import partial

    from datasets import Dataset

    from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
    from hf_vanilla_transformer.data import train_tokenizer
    from hf_vanilla_transformer.data.batching import TokenBatchSampler, collate
    from hf_vanilla_transformer.data.examples import TrainingExamples, example_lengths
    from hf_vanilla_transformer.training import VanillaTransformerTrainer, VanillaTransformerTrainingArguments

    pairs = [("a red dog", "ein roter Hund"), ("a blue cat", "eine blaue Katze"), ("a dog", "ein Hund")]
    tokenizer = train_tokenizer(texts=[text for pair in pairs for text in pair], vocab_size=300)
    rows = [
        {
            "source": source,
            "target": target,
            "input_ids": tokenizer(source)["input_ids"],
            "labels": tokenizer(text_target=target)["input_ids"],
        }
        for source, target in pairs
    ]
    config = VanillaTransformerConfig.from_preset("tiny", vocab_size=len(tokenizer))
    args = VanillaTransformerTrainingArguments(
        output_dir="runs/own", max_steps=20, warmup_steps=10, learning_rate=1e-3, eval_strategy="no",
        save_strategy="no", final_weights="last", logging_steps=10,
    )
    trainer = VanillaTransformerTrainer(
        model=VanillaTransformerForConditionalGeneration(config),
        args=args,
        train_dataset=TrainingExamples(Dataset.from_list(rows)),
        train_sampler=TokenBatchSampler(*example_lengths(rows), max_tokens=256),
        data_collator=partial(collate, pad_token_id=tokenizer.pad_token_id),
        eval_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    scores = trainer.evaluate()
    trainer.save_model()
"""

from .arguments import VanillaTransformerTrainingArguments
from .averaging import average_checkpoints, last_checkpoints
from .recipes import parse_arguments, read_recipe
from .report import summary_lines
from .run import PreparedRun, TrainingResult, prepare, prepare_only, pretrain, train
from .trainer import VanillaTransformerTrainer

__all__ = [
    "PreparedRun",
    "TrainingResult",
    "VanillaTransformerTrainer",
    "VanillaTransformerTrainingArguments",
    "average_checkpoints",
    "last_checkpoints",
    "parse_arguments",
    "prepare",
    "prepare_only",
    "pretrain",
    "read_recipe",
    "summary_lines",
    "train",
]
