"""Measure Table 1 of the paper: time and memory of self-attention, a GRU and a convolution over the length."""

import sys

from hf_vanilla_transformer.commands.lab_complexity import main

if __name__ == "__main__":
    sys.exit(main())
