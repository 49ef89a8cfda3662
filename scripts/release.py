"""Release finished runs as a checkpoint: weights, model card, scores with intervals, recipe, curves and outputs."""

import sys

from hf_vanilla_transformer.commands.release import main

if __name__ == "__main__":
    sys.exit(main())
