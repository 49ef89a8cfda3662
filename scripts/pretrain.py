"""Train a translation model from scratch on parallel text."""

import sys

from transformers import HfArgumentParser

from hf_vanilla_transformer.training import PretrainingArguments, pretrain

EXAMPLE = """
example, from two plain text files to a model that translates (about 25 minutes on two cores):

  python scripts/pretrain.py --source_file train.en --target_file train.de \\
      --validation_source_file val.en --validation_target_file val.de \\
      --preset tiny --vocab_size 8000 --per_device_train_batch_size 128 \\
      --warmup_steps 1000 --num_train_epochs 20 --output_dir runs/en-de
  python scripts/translate.py --model runs/en-de "A dog runs across the grass."

To go on with a run that was stopped, repeat its command with --resume_from_checkpoint last.
"""


def main() -> int:
    """Reads the options, trains, and says what came of it."""
    parser = HfArgumentParser(PretrainingArguments, description=f"{__doc__}\n{EXAMPLE}")
    (args,) = parser.parse_args_into_dataclasses()
    result = pretrain(args)
    metrics = result.metrics
    minutes = metrics["train_runtime"] / 60
    print(f"Trained {result.model.num_parameters():,} parameters for {metrics['updates']} updates, {minutes:.1f} min.")
    if "eval_loss" in metrics:
        print(
            f"Validation: {metrics['eval_loss']:.3f} nats a token, perplexity {metrics['eval_perplexity']:.2f}, ",
            end="",
        )
        print(f"BLEU {metrics['eval_bleu']:.2f} ({metrics['signatures']['bleu']}), chrF {metrics['eval_chrf']:.2f}.")
    print(f'Try it: python scripts/translate.py --model {args.output_dir} "..."')
    return 0


if __name__ == "__main__":
    sys.exit(main())
