"""Analyse attention heads: what each looks at, and the BLEU that is lost when it is switched off."""

import sys

from hf_vanilla_transformer.commands.lab_heads import main

if __name__ == "__main__":
    sys.exit(main())
