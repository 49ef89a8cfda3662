"""Go on with a model of this package: new text, a fresh or continued schedule, frozen parts, adapters, new tokens.

The options are those of scripts/pretrain.py; --model_name_or_path is needed. Tokenizer and shape are the model's.
"""

from .training import run_command

EXAMPLE = """
examples:

  all weights, on new text, with a fresh schedule:
    python scripts/finetune.py --model_name_or_path runs/en-de --train_data medical.tsv --validation_data val.tsv \\
        --learning_rate 5e-4 --warmup_steps 100 --max_tokens 4096 --num_train_epochs 5 --output_dir runs/medical

  the same text for longer, with the learning rate where it stopped:
    ... --continue_schedule true

  all but the encoder's layers; or LoRA adapters of rank 8 only, merged in the end and kept in runs/medical/adapter too:
    ... --frozen_modules model.encoder.layers
    ... --lora_rank 8 --lora_modules q_proj v_proj --final_weights last

  with tokens that the vocabulary did not have:
    ... --new_tokens "<2de>" "<2fr>"
"""


def main() -> int:
    """Reads recipe and options, trains, and says what came of it."""
    return run_command(description=__doc__, epilog=EXAMPLE, required=("model_name_or_path",))
