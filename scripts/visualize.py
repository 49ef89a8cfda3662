"""Show what each attention head looks at in a translation, as pictures or as one page to explore in a browser."""

import sys

from hf_vanilla_transformer.commands.visualize import main

if __name__ == "__main__":
    sys.exit(main())
