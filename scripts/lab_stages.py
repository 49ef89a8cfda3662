"""Build the Transformer part by part on sequences of zeros and ones, and see what each part is for."""

import sys

from hf_vanilla_transformer.commands.lab_stages import main

if __name__ == "__main__":
    sys.exit(main())
