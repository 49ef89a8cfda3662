"""Plan the paper's runs, and one beyond: parameters, arithmetic, memory, and time on GPUs and on two cores.

Prints the tables of hf_vanilla_transformer/recipes/README.md, which states the formulas.
"""

import argparse

from ..lab.planning import plan_table


def main() -> int:
    """Prints the tables."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(plan_table())
    return 0
