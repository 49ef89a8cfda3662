"""Compare trained recurrent models with the Transformer: training, minutes to a loss, BLEU by length, and claims."""

import sys

from hf_vanilla_transformer.commands.lab_recurrent import main

if __name__ == "__main__":
    sys.exit(main())
