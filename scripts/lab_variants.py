"""Put trained variants of the model side by side: scores, speed of training and decoding, and what decoding keeps."""

import sys

from hf_vanilla_transformer.commands.lab_variants import main

if __name__ == "__main__":
    sys.exit(main())
