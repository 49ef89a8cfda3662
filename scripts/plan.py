"""Plan the paper's runs, and one beyond: parameters, arithmetic, memory, and time on GPUs and on two cores."""

import sys

from hf_vanilla_transformer.commands.plan import main

if __name__ == "__main__":
    sys.exit(main())
