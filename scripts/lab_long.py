"""Copy and retrieve over long sequences: what full, windowed and linear attention learn, and what steps take."""

import sys

from hf_vanilla_transformer.commands.lab_long import main

if __name__ == "__main__":
    sys.exit(main())
