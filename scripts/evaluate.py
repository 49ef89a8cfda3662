"""Evaluate translations, or a model that makes them: BLEU, chrF, TER, perplexity; and whether a baseline is worse."""

import sys

from hf_vanilla_transformer.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
