"""Train a model of this package further: new text, fresh or continued schedule, frozen parts, adapters, new tokens."""

import sys

from hf_vanilla_transformer.commands.finetune import main

if __name__ == "__main__":
    sys.exit(main())
