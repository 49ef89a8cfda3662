"""Plan the paper's runs, and one beyond: parameters, arithmetic, memory, and time on GPUs and on two cores.

With a recipe or any option, it plans that run instead. The README.md beside the recipes states the formulas, and what
is assumed: no time is measured but that of two cores.
"""

from collections.abc import Sequence

from ..inference.one_line_parser import OneLineParser
from ..inference.pipes import run_as_filter
from ..lab.planning import PEAK_FLOPS, plan_table
from ..lab.run_plan import CPU, plan_run, run_table

EXAMPLES = """
examples:
  vanilla-transformer plan
  vanilla-transformer plan wmt14-en-de-base --gpu H100 --count 8
  vanilla-transformer plan --preset big --config_overrides num_encoder_layers=12 --max_tokens 4096 --max_steps 100000
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads what to plan, and prints its table.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    parser = OneLineParser(prog, description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("recipe", nargs="?", help="a recipe by name or file (default: the paper's runs)")
    add("--gpu", metavar="NAME", help=f"{', '.join(PEAK_FLOPS)}, or {CPU} for two cores (default: one of each)")
    add("--count", type=int, metavar="N", help="how many of them, with a batch each (default: 1)")
    options = {
        "preset": (str, "shape of the model, in place of the recipe's"),
        "vocab_size": (int, "tokens in the vocabulary"),
        "max_tokens": (int, "source tokens, and target tokens, of a batch on one device"),
        "gradient_accumulation_steps": (int, "batches of a device in an update"),
        "max_steps": (int, "updates; a recipe that counts epochs does not say"),
    }
    for name, (kind, text) in options.items():
        add(f"--{name}", type=kind, metavar="NAME" if kind is str else "N", help=text)
    add("--config_overrides", nargs="+", metavar="FIELD=VALUE", help="fields of the config that differ from the preset")
    args = parser.parse_args(argv)
    given = {name: getattr(args, name) for name in (*options, "config_overrides") if getattr(args, name) is not None}

    def work() -> None:
        if args.recipe is None and not given and args.gpu is None and args.count is None:
            print(plan_table())
        else:
            print(run_table(plan_run(args.recipe, given), args.gpu, 1 if args.count is None else args.count))

    return run_as_filter(work, parser.prog)
