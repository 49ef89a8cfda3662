"""Train a model from scratch: on parallel text to translate, or on plain text, by one of several objectives."""

import sys

from hf_vanilla_transformer.commands.pretrain import main

if __name__ == "__main__":
    sys.exit(main())
