"""Train a model of this package further: new text, fresh or continued schedule, frozen parts, adapters, new tokens.

The options are those of pretrain; --model_name_or_path is needed. Tokenizer and shape are the model's.
"""

from collections.abc import Sequence

from .training import run_command

EXAMPLE = """
examples:
  all weights, on new text, with a fresh schedule:
    vanilla-transformer finetune --model_name_or_path runs/en-de --train_data medical.tsv \\
        --validation_data val.tsv --learning_rate 5e-4 --warmup_steps 100 --max_tokens 4096 \\
        --num_train_epochs 5 --output_dir runs/medical
  the same text for longer, with the learning rate where it stopped:
    ... --continue_schedule true
  all but the encoder's layers; or LoRA adapters of rank 8 only, merged in the end and kept in runs/medical/adapter too:
    ... --frozen_modules model.encoder.layers
    ... --lora_rank 8 --lora_modules q_proj v_proj
  with tokens that the vocabulary did not have:
    ... --new_tokens "<2de>" "<2fr>"
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads recipe and options, trains, and says what came of it.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `run_command`.
    """
    return run_command(argv, prog, description=__doc__, epilog=EXAMPLE, required=("model_name_or_path",))
