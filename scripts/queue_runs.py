"""Work through a list of runs in one YAML file: each in a process of its own, resumed, and noted when it has ended."""

import sys

from hf_vanilla_transformer.commands.queue import main

if __name__ == "__main__":
    sys.exit(main())
