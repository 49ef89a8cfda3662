"""Convert a checkpoint or tokenizer of another system to a folder of this package."""

import sys

from hf_vanilla_transformer.commands.convert import main

if __name__ == "__main__":
    sys.exit(main())
