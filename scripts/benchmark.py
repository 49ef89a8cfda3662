"""Compare speed and memory with a peer doing the same work, in turns; prints medians and their ratio."""

import sys

from hf_vanilla_transformer.commands.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
