"""Compare trained recurrent models with the Transformer: BLEU by length, speed, and time to a given loss."""

import sys

from hf_vanilla_transformer.commands.lab_recurrent import main

if __name__ == "__main__":
    sys.exit(main())
