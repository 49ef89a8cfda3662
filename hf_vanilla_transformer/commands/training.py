"""A run as a program: recipe and flags in, a trained model and three lines out."""

import signal
import sys
from collections.abc import Sequence

from huggingface_hub.errors import StrictDataclassError

from ..training import parse_arguments, prepare, prepare_only, summary_lines, train


def run_command(
    argv: Sequence[str] | None = None,
    description: str | None = None,
    epilog: str | None = None,
    required: Sequence[str] = (),
) -> int:
    """Trains as a command line says, and prints what came of it.

    Args:
        argv: the words after the program's name; None for those of this process.
        description: what `--help` begins with.
        epilog: what `--help` ends with.
        required: arguments that have to be given.

    Returns:
        The exit status: 0 for a run that ended or was stopped by SIGTERM, 130 for one stopped by SIGINT, 2 for
        arguments, data or a folder that are not usable, 1 for a loss that is not finite.
    """
    try:
        args = parse_arguments(argv, description, epilog)
        for name in required:
            if not getattr(args, name):
                raise ValueError(f"{name} is needed; see --help")
        if args.prepare_only:
            ready = prepare_only(args)
            if args.process_index == 0:
                print(ready)
            return 0
        result = train(prepare(args), args)
    except (OSError, ValueError, FloatingPointError, StrictDataclassError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, FloatingPointError) else 2
    if result.interrupted_by is not None:
        if args.process_index == 0:
            print(f"Stopped after update {result.metrics['updates']}; everything is saved in {args.output_dir}.")
            print("To go on, repeat the command with --resume_from_checkpoint last")
        return 130 if result.interrupted_by == signal.SIGINT else 0
    if args.process_index == 0:
        print("\n".join(summary_lines(result.metrics, args.output_dir)))
    return 0
