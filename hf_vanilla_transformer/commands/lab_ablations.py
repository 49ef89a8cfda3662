"""Repeat the paper's Table 3 at a small size, and take out parts that it keeps: what is each part for?

Works through a list of runs on Multi30k as `vanilla-transformer queue` does, and puts what they found beside what the
paper and others report: who agrees, and who does not. Runs that have ended are skipped, others resumed.
"""

from collections.abc import Sequence

from .queue import run_queue

LIST = "model_cards/experiments/ablations.yaml"
EXAMPLES = """
examples:
  vanilla-transformer lab-ablations --list
  vanilla-transformer lab-ablations --table
  vanilla-transformer lab-ablations --plot ablations.png
  for core in 0 1; do taskset -c $core vanilla-transformer lab-ablations --threads 1 --nice 10 & done; wait

The list says what each run changes, and who says what of it; `vanilla-transformer queue --help` explains such lists.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Works through the list of ablations, or says how far it is and what came of it.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `queue.main`.
    """
    return run_queue(argv, prog, __doc__, EXAMPLES, LIST)
