"""The installed `vanilla-transformer`, which lists its verbs without waiting for torch."""

import importlib.util
import sys
from pathlib import Path


def main() -> int:
    """Runs `commands/main.py` of the package by its path: by its name, all of the model would be imported first.

    Returns:
        The exit status.
    """
    package = importlib.util.find_spec("hf_vanilla_transformer")
    path = Path(package.origin).parent / "commands" / "main.py"
    specification = importlib.util.spec_from_file_location("vanilla_transformer_verbs", path)
    verbs = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(verbs)
    return verbs.main()


if __name__ == "__main__":
    sys.exit(main())
