"""What `python -m hf_vanilla_transformer VERB` runs, and so `torchrun -m hf_vanilla_transformer pretrain ...`."""

import sys

from .commands.main import main

if __name__ == "__main__":
    sys.exit(main())
