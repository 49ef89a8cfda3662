"""Copy and retrieve over long sequences: what full, windowed and linear attention learn, and what steps take."""

import argparse
import platform
from collections.abc import Sequence

import torch
from tqdm import tqdm

from ..inference import run_as_filter
from ..inference.one_line_parser import OneLineParser
from ..interop.output_folder import output_folder
from ..lab.charts import new_chart
from ..lab.complexity import measured_steps
from ..lab.long_models import ATTENTIONS, PROGRAMS
from ..lab.long_report import long_summary, write_long_report
from ..lab.long_runs import (
    LENGTHS,
    POSITIONS,
    TRAINED_LENGTHS,
    UPDATES,
    LongMeasurement,
    check_lengths,
    learn,
    lengths_to_test,
    measure_steps,
)
from ..lab.long_tasks import TASKS

EXAMPLES = """
examples:
  vanilla-transformer lab-long --output_dir long
  vanilla-transformer lab-long --output_dir long --tasks copy --copy_lengths 64 128 256 512 --updates 3000
  vanilla-transformer lab-long --output_dir long --parts steps --programs full linear

  copy       n/2 - 1 symbols, a separator, and the same symbols again: a window does not reach them, and the state of
             linear attention has no room for all of them, if n is large enough. A model for each length.
  retrieval  16 keys with a value each stand among blanks, and are asked for at the end. Learned at 64 positions for
             half of the updates, then at one length, and tested at all longer ones.

Writes accuracies beside what can be known, and exponents of time and memory beside predicted ones (long.md), a chart
(long.png) and all numbers (long.json) into a folder that appears when all are complete.

The default trains 16 models of 0.1 million parameters, some 15 minutes on one core, and measures steps for some 10,
with 3 GiB of memory. Close other programs first: timings are noisy. The window in blocks is compiled first (it needs a
C++ compiler), and has no backward pass on a CPU.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads the options, trains and measures, and writes what was found.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The exit status, as of `run_as_filter`.
    """
    args = parse_arguments(argv, prog)
    trained = {"copy": args.copy_lengths, "retrieval": args.retrieval_lengths}
    is_measured, is_learned = "steps" in args.parts, "learn" in args.parts
    programs = [name for name, program in PROGRAMS.items() if program.option in args.programs]
    runs = [
        (task, attention, n) for task in args.tasks for n in trained[task] for attention in ATTENTIONS if is_learned
    ]

    def work() -> None:
        new_chart(1, 1)  # what is not installed is to be said before the long work
        for option in ("updates", "repeats"):
            if getattr(args, option) < 1:
                raise ValueError(
                    f"`{option}`={getattr(args, option)} is not allowed; allowed: an integer of at least 1"
                )
        for task in args.tasks:
            check_lengths(task, args.lengths, 3, "lengths")
            check_lengths(task, trained[task], 1, f"{task}_lengths")
        with output_folder(args.output_dir, args.overwrite) as folder:
            cells, scores = {}, []
            count = measured_steps(args.lengths, args.memory, programs, PROGRAMS) * len(args.tasks) * is_measured
            with tqdm(total=count + len(runs), unit=" parts", disable=None) as bar:
                for task in args.tasks if is_measured else ():
                    cells[task] = measure_steps(task, programs, args.lengths, args.repeats, args.memory, bar.update)
                for task, attention, length in runs:
                    tested = lengths_to_test(task, length, args.lengths)
                    scores += learn(task, attention, length, tested, args.updates, args.seed)
                    bar.update()
            measured = LongMeasurement(scores, args.lengths, cells, torch.get_num_threads())
            settings: dict[str, str | int] = {"torch": torch.__version__, "machine": platform.machine()}
            if is_learned:
                settings |= {"updates": args.updates, "positions of a batch": POSITIONS, "seed": args.seed}
            if is_measured:
                settings["repeats"] = args.repeats
            write_long_report(measured, settings, folder)
        print(f"{long_summary(measured)}; all in {args.output_dir}/long.md")

    return run_as_filter(work, args.prog)


def parse_arguments(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Reads the options.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for the name by which it was started.

    Returns:
        The options, and `prog`.
    """
    parser = OneLineParser(prog=prog, description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("--output_dir", metavar="FOLDER", required=True, help="where to write; free or empty")
    add("--overwrite", action="store_true", help="replace files of an earlier measurement there")
    add("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="which (default: both)")
    add("--parts", nargs="+", choices=["learn", "steps"], default=["learn", "steps"],
        help="train and test models, or measure time and memory of steps (default: both)")  # fmt: skip
    add("--lengths", type=int, nargs="+", metavar="N", default=list(LENGTHS), help="of measured steps, and at which "
        f"retrieval is tested; ascending, three or more (default: {' '.join(map(str, LENGTHS))})")  # fmt: skip
    for task, lengths in TRAINED_LENGTHS.items():
        add(f"--{task}_lengths", type=int, nargs="+", metavar="N", default=list(lengths), help=f"at which {task} is "
            f"learned (default: {' '.join(map(str, lengths))})")  # fmt: skip
    add("--updates", type=int, default=UPDATES, metavar="N", help="of each training (default: %(default)s)")
    add("--seed", type=int, default=0, help="of weights and examples (default: %(default)s)")
    add("--programs", nargs="+", metavar="PROGRAM", choices=[each.option for each in PROGRAMS.values()],
        default=[each.option for each in PROGRAMS.values()], help="whose steps are measured: full, masked and blocks, "
        "which are the window, linear, random (default: all)")  # fmt: skip
    add("--repeats", type=int, default=3, help="measured steps of each (default: %(default)s)")
    add("--no_memory", dest="memory", action="store_false", help="measure times only")
    args = parser.parse_args(argv, argparse.Namespace(prog=parser.prog))
    without_effect = {f"{task}_lengths": f"without --tasks {task}" for task in TASKS if task not in args.tasks}
    if "learn" not in args.parts:
        without_effect |= dict.fromkeys(
            ("updates", "seed", *(f"{task}_lengths" for task in TASKS)), "without --parts learn"
        )
    if "steps" not in args.parts:
        without_effect |= dict.fromkeys(("programs", "repeats", "memory"), "without --parts steps")
        if "retrieval" not in args.tasks:
            without_effect["lengths"] = "without --parts steps or --tasks retrieval"
    for name, where in without_effect.items():
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{'no_memory' if name == 'memory' else name} has no effect {where}; leave it out")
    return args
