"""Score given translations: how probable a trained model finds them, sentence by sentence or token by token."""

import sys

from hf_vanilla_transformer.commands.score import main

if __name__ == "__main__":
    sys.exit(main())
