"""Train a model from scratch: on parallel text to translate, or on plain text, by one of several objectives.

Where the paper has a value, it is the default.
"""

from collections.abc import Sequence

from .training import run_command

EXAMPLE = """
examples:
  a recipe, and two of its values changed:
    vanilla-transformer pretrain multi30k-en-de-tiny --num_train_epochs 10 --seed 7
  from two plain text files to a model that translates (some 40 minutes on two cores):
    vanilla-transformer pretrain --train_data source=train.en,target=train.de \\
        --validation_data source=val.en,target=val.de --preset tiny --vocab_size 4000 \\
        --config_overrides norm_position=pre dropout=0.1 --max_tokens 4096 --learning_rate 5e-3 \\
        --warmup_steps 600 --num_train_epochs 30 --output_dir runs/en-de
    vanilla-transformer translate --model runs/en-de "A dog runs across the grass."
  an encoder on plain text (BERT's objective), and a translator that begins with it; likewise causal_lm and a decoder:
    vanilla-transformer pretrain --objective masked_lm --train_data mono.en mono.de --preset tiny --vocab_size 4000 \\
        --max_tokens 3072 --learning_rate 4e-3 --warmup_steps 300 --max_steps 3000 --output_dir runs/encoder
    vanilla-transformer pretrain --init_encoder_from runs/encoder --train_data source=train.en,target=train.de \\
        --preset tiny --max_tokens 3072 --learning_rate 2e-3 --warmup_steps 100 --max_steps 1000 \\
        --output_dir runs/translator
  on eight GPUs:
    torchrun --nproc-per-node 8 -m hf_vanilla_transformer pretrain wmt14-en-de-base

A run that was stopped goes on where it was: repeat its command with --resume_from_checkpoint last.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads recipe and options, trains, and says what came of it.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `run_command`.
    """
    return run_command(argv, prog, description=__doc__, epilog=EXAMPLE)
