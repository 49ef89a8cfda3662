"""Measure the vanishing gradient: what reaches the first position in an RNN, a GRU, an LSTM and a Transformer."""

import sys

from hf_vanilla_transformer.commands.lab_gradients import main

if __name__ == "__main__":
    sys.exit(main())
