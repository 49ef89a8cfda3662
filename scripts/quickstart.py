"""Train a small Transformer to read dates, in about a minute on two cores, without data and without network."""

import sys

from hf_vanilla_transformer.commands.quickstart import main

if __name__ == "__main__":
    sys.exit(main())
