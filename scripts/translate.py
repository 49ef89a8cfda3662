"""Translate sentences with a trained model or several, one line out for each line in."""

import sys

from hf_vanilla_transformer.commands.translate import main

if __name__ == "__main__":
    sys.exit(main())
