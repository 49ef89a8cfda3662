"""Length generalisation on SCAN: split it by the number of actions, and see which lengths models have right."""

import sys

from hf_vanilla_transformer.commands.lab_scan import main

if __name__ == "__main__":
    sys.exit(main())
