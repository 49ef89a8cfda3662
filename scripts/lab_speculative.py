"""Measure speculative decoding: how many tokens of a small draft a model accepts, and whether that saves time."""

import sys

from hf_vanilla_transformer.commands.lab_speculative import main

if __name__ == "__main__":
    sys.exit(main())
