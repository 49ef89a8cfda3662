"""Train a model from scratch: on parallel text to translate, or on plain text to fill in what is missing.

Most options are those of transformers' Trainer; where the paper has a value, it is the default. Those of this package,
for data, tokenizer, model and objective, come last.
"""

from .training import run_command

EXAMPLE = """
examples:

  a recipe, and two of its values changed:
    python scripts/pretrain.py hf_vanilla_transformer/recipes/multi30k-en-de-tiny.yaml --num_train_epochs 10 --seed 7

  from two plain text files to a model that translates (half an hour on two cores):
    python scripts/pretrain.py --train_data source=train.en,target=train.de \\
        --validation_data source=val.en,target=val.de \\
        --preset tiny --vocab_size 4000 --config_overrides norm_position=pre dropout=0.1 \\
        --max_tokens 4096 --learning_rate 5e-3 --warmup_steps 600 --num_train_epochs 30 --output_dir runs/en-de
    python scripts/translate.py --model runs/en-de "A dog runs across the grass."

  the same on eight GPUs:
    torchrun --nproc-per-node 8 scripts/pretrain.py hf_vanilla_transformer/recipes/wmt14-en-de-base.yaml

A run that was stopped goes on where it was: repeat its command with --resume_from_checkpoint last.
"""


def main() -> int:
    """Reads recipe and options, trains, and says what came of it."""
    return run_command(description=__doc__, epilog=EXAMPLE)
