"""Evaluate translations, or models that make them: BLEU, chrF, TER, error rates, perplexity; and which is better."""

import sys

from hf_vanilla_transformer.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
