"""Average the weights of the last checkpoints of a run (section 6.1: 5 of base, 20 of big) into one model."""

import sys

from hf_vanilla_transformer.commands.average import main

if __name__ == "__main__":
    sys.exit(main())
