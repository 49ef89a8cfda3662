"""Choose length penalty and beams on a validation set, as the paper did ("after experimentation", section 6.1)."""

import sys

from hf_vanilla_transformer.commands.tune import main

if __name__ == "__main__":
    sys.exit(main())
