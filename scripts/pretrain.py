"""Train a translation model from scratch on parallel text.

Most options are those of transformers' Trainer; where the paper has a value, it is the default. The options of this
package, for data, tokenizer and model, come last.
"""

import argparse
import sys

from huggingface_hub.errors import StrictDataclassError
from transformers import HfArgumentParser

from hf_vanilla_transformer.training import PretrainingArguments, prepare, train

EXAMPLE = """
example, from two plain text files to a model that translates (about half an hour on two cores):

  python scripts/pretrain.py --source_file train.en --target_file train.de \\
      --validation_source_file val.en --validation_target_file val.de \\
      --preset tiny --vocab_size 4000 --config_overrides norm_position=pre dropout=0.15 \\
      --per_device_train_batch_size 128 --learning_rate 4e-3 --warmup_steps 600 \\
      --num_train_epochs 20 --output_dir runs/en-de
  python scripts/translate.py --model runs/en-de "A dog runs across the grass."

To go on with a run that was stopped, repeat its command with --resume_from_checkpoint last.
"""


def main() -> int:
    """Reads the options, trains, and says what came of it."""
    parser = HfArgumentParser(
        PretrainingArguments,
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    (args,) = parser.parse_args_into_dataclasses()
    try:
        run = prepare(args)
    except (OSError, ValueError, StrictDataclassError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    metrics = train(run.model, run.tokenizer, args, run.train_set, run.validation_set).metrics
    minutes = metrics["train_runtime"] / 60
    print(f"Trained {run.model.num_parameters():,} parameters for {metrics['updates']} updates, {minutes:.1f} min.")
    if "eval_loss" in metrics:
        print(f"Validation: {metrics['eval_loss']:.3f} nats a token, perplexity {metrics['eval_perplexity']:.2f},")
        print(f"  BLEU {metrics['eval_bleu']:.2f} ({metrics['signatures']['bleu']}), chrF {metrics['eval_chrf']:.2f}.")
    print(f'Try it: python scripts/translate.py --model {args.output_dir} "..."')
    return 0


if __name__ == "__main__":
    sys.exit(main())
