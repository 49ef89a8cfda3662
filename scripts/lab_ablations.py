"""Repeat the paper's Table 3 at a small size, beside what the paper reports: what is each part for?"""

import sys

from hf_vanilla_transformer.commands.lab_ablations import main

if __name__ == "__main__":
    sys.exit(main())
