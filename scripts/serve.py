"""Serve trained models over HTTP: translations, scores, streams, and the fields of LibreTranslate."""

import sys

from hf_vanilla_transformer.commands.serve import main

if __name__ == "__main__":
    sys.exit(main())
