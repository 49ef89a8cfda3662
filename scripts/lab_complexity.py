"""Measure Table 1 of the paper, and efficient attention: time and memory of layers over the length."""

import sys

from hf_vanilla_transformer.commands.lab_complexity import main

if __name__ == "__main__":
    sys.exit(main())
