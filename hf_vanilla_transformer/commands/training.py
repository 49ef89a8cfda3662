"""A run as a program: recipe and flags in, a trained model and three lines out."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError

from ..data import Corpus
from ..inference.pipes import INTERRUPTED, PIPE_CLOSED, send_to_nobody
from ..training import parse_arguments, prepare, prepare_only, summary_lines, train
from ..training.checkpoints import list_checkpoints
from ..training.ranks import leave_together


def run_command(
    argv: Sequence[str] | None = None,
    prog: str | None = None,
    description: str | None = None,
    epilog: str | None = None,
    required: Sequence[str] = (),
) -> int:
    """Trains as a command line says, and prints what came of it.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its file name.
        description: what `--help` begins with.
        epilog: what `--help` ends with.
        required: options that have to be given.

    Returns:
        The exit status: 0 for a run that ended or was stopped by SIGTERM, 130 for one stopped by SIGINT, 141 where
        whoever reads the output has gone, 2 for arguments, data or a folder that are not usable, 1 for a loss that is
        not finite.
    """
    program = prog or Path(sys.argv[0]).name
    output_dir = None
    try:
        args = parse_arguments(argv, description, epilog, prog)
        for name in required:
            if not getattr(args, name):
                raise ValueError(f"{name} is needed; see {program} --help")
        output_dir = args.output_dir
        if args.dry_run:
            from ..lab.dry_run import dry_run  # with its peers for comparison, which no other run needs

            report = dry_run(args)
            if args.process_index == 0:
                print("\n".join(report.lines()), flush=True)
            leave_together()
            return 0
        if args.prepare_only:
            ready = prepare_only(args)
            if args.process_index == 0:
                print(ready)
            leave_together()
            return 0
        result = train(prepare(args), args)
        if args.process_index == 0:
            if result.interrupted_by is None:
                tag = Corpus.parse(args.train_data[0]).tag
                print("\n".join(summary_lines(result.metrics, args.output_dir, args.objective, tag)), flush=True)
            else:
                print(f"Stopped after update {result.metrics['updates']}; everything is saved in {args.output_dir}.")
                way = "repeat the command with --resume_from_checkpoint last"
                if args.save_only_model:
                    way = "start a new run with its last checkpoint as --model_name_or_path (save_only_model)"
                print(f"To go on, {way}", flush=True)
        leave_together()
    except BrokenPipeError:
        send_to_nobody(sys.stdout)
        return PIPE_CLOSED
    except KeyboardInterrupt:
        has_checkpoints = bool(output_dir and list_checkpoints(output_dir))
        hint = f"; --resume_from_checkpoint last goes on from the newest checkpoint in {output_dir}"
        print(f"{program}: interrupted before it could save{hint if has_checkpoints else ''}", file=sys.stderr)
        return INTERRUPTED
    except (ImportError, OSError, ValueError, FloatingPointError, StrictDataclassError) as error:
        print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1 if isinstance(error, FloatingPointError) else 2
    return INTERRUPTED if result.interrupted_by == signal.SIGINT else 0
