"""Try sources that are not tokens: forecast series beside their noise, and read handwritten digits as words."""

import sys

from hf_vanilla_transformer.commands.lab_inputs import main

if __name__ == "__main__":
    sys.exit(main())
