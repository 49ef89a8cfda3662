"""Publish a model on the Hub with its code, after a proof that it loads where this package is not."""

import sys

from hf_vanilla_transformer.commands.publish import main

if __name__ == "__main__":
    sys.exit(main())
