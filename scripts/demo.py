"""Show a page on which one sees a model think: its beam search as a tree, and the attention behind each hypothesis."""

import sys

from hf_vanilla_transformer.commands.demo import main

if __name__ == "__main__":
    sys.exit(main())
