"""Which values of a run's arguments do not go together; those of single arguments are looked at where they are."""

import math
from typing import Any


def check_numbers(args: Any) -> None:
    """Refuses numbers that are out of range.

    Args:
        args: the arguments of a run.

    Raises:
        ValueError: a number is too small, too large or not finite; the message names its option.
    """
    at_least = dict.fromkeys(("max_tokens", "max_eval_tokens", "max_length", "shuffle_buffer", "average_last"), 1)
    at_least |= dict.fromkeys(("gradient_accumulation_steps", "save_total_limit"), 1)
    at_least |= dict.fromkeys(("r_drop", "lora_rank", "num_sentinels", "early_stopping_patience"), 0)
    at_least |= dict.fromkeys(("dataloader_num_workers", "dry_run", "max_minutes"), 0)
    if args.generation_num_beams is not None:
        at_least["generation_num_beams"] = 1
    for name in ("gnmt_length_penalty", "max_minutes"):
        if not math.isfinite(getattr(args, name) or 0):
            raise ValueError(f"{name}={getattr(args, name)} is not a finite number")
    if args.preprocessing_workers is not None:
        at_least["preprocessing_workers"] = 1
    for name, lowest in at_least.items():
        if getattr(args, name) < lowest:
            raise ValueError(f"{name}={getattr(args, name)} is less than {lowest}")
    if args.max_length_ratio is not None and args.max_length_ratio < 1:
        raise ValueError(f"max_length_ratio={args.max_length_ratio} is less than 1, which no pair satisfies")
    if not 1 <= args.corpus_temperature < math.inf:
        raise ValueError(f"corpus_temperature={args.corpus_temperature} is not a number of at least 1")
    if not 0 < args.distill_share <= 1:
        raise ValueError(f"distill_share={args.distill_share} is not a number above 0 and up to 1")
    if args.max_steps == 0 or args.max_steps < -1:
        raise ValueError(f"max_steps={args.max_steps} is less than 1; leave it out to count by num_train_epochs")
    if args.max_steps == -1 and args.num_train_epochs <= 0:
        raise ValueError(f"num_train_epochs={args.num_train_epochs} trains nothing; give a number above 0")
    for name in ("bpe_dropout", "ema_decay"):
        if not 0 <= getattr(args, name) <= 1:
            raise ValueError(f"{name}={getattr(args, name)} is not a number from 0 to 1")


def check_intervals(args: Any) -> None:
    """Refuses checkpoints of which the best is wanted, and which are not evaluated; transformers names another option.

    Args:
        args: the arguments of a run.

    Raises:
        ValueError: evaluations and checkpoints do not come together.
    """
    if args.final_weights != "best":
        return
    evaluated, saved = (str(getattr(each, "value", each)) for each in (args.eval_strategy, args.save_strategy))
    values = f"eval_strategy={evaluated}, eval_steps={args.eval_steps}, save_strategy={saved}, "
    values += f"save_steps={args.save_steps}"
    if saved == "best":
        return
    if evaluated != saved or evaluated == "no":
        raise ValueError(f"final_weights=best needs checkpoints at evaluations: both by steps or epoch; got {values}")
    intervals = [args.save_steps, args.eval_steps or args.logging_steps]
    if min(intervals) < 1:  # shares of all updates; as transformers compares them
        intervals = [round(1_000_000 * each) for each in intervals]
    if saved == "steps" and intervals[0] % intervals[1]:
        raise ValueError(f"final_weights=best needs save_steps that are a multiple of eval_steps; got {values}")


def check_final_weights(args: Any) -> None:
    """Refuses final weights that the checkpoints, or adapters, do not give.

    Args:
        args: the arguments of a run.

    Raises:
        ValueError: there are no checkpoints, or too few to average; or whole models are wanted of adapters.
    """
    if args.final_weights == "average" and (args.save_total_limit or 0) < args.average_last:
        raise ValueError(
            f"save_total_limit={args.save_total_limit} keeps fewer checkpoints than average_last="
            f"{args.average_last} needs; raise the one or lower the other"
        )
    if args.final_weights in ("average", "best") and args.save_strategy == "no":
        raise ValueError(f"final_weights={args.final_weights} needs checkpoints; set save_strategy, or last")
    if args.lora_rank and args.final_weights in ("average", "ema"):
        raise ValueError(f"final_weights={args.final_weights} is of whole models; with lora_rank, take last or best")


def check_streaming(args: Any) -> None:
    """Refuses what a stream cannot do.

    Args:
        args: the arguments of a run.

    Raises:
        ValueError: duplicates are to be dropped, or nothing says when the stream ends.
    """
    if args.streaming and args.drop_duplicates:
        raise ValueError("drop_duplicates would take a stream's second reading for duplicates; not with streaming")
    if args.streaming and args.max_steps <= 0:
        raise ValueError(f"streaming needs max_steps, since a stream has no last sentence; got {args.max_steps}")


def check_units(args: Any) -> None:
    """Refuses what source and target cannot be cut into together, or to no effect.

    Args:
        args: the arguments of a run.

    Raises:
        ValueError: one side is to be cut by bpe and the other not; or an option is for bpe, or for a tokenizer that is
            trained.
    """
    units = {"source_units": args.source_units, "target_units": args.target_units}
    if set(units.values()) == {"bpe"}:
        return
    said = ", ".join(f"{name}={value}" for name, value in units.items())
    is_bpe = units == {"source_units": "lowercase_bpe", "target_units": "bpe"}
    if "lowercase_bpe" in units.values() and not is_bpe:
        raise ValueError(f"{said}: lowercase_bpe is for sources, and goes with target_units=bpe")
    if "bpe" in units.values() and not is_bpe:
        raise ValueError(f"{said}: bpe is one vocabulary for both sides; give both, or neither")
    if args.bpe_dropout and not is_bpe:
        raise ValueError(f"bpe_dropout={args.bpe_dropout} is for bpe, and not for {said}")
    if args.objective != "translation" and len(set(units.values())) > 1:
        raise ValueError(f"{said}: {args.objective} has one text, which is cut in one way; give one value for both")
    given = args.tokenizer_name_or_path or args.model_name_or_path or args.init_encoder_from or args.init_decoder_from
    given = given or next(iter(args.distill_from), None)
    if given:
        raise ValueError(f"{said} has no effect on the tokenizer of {given}, which is trained; leave it out")


__all__ = ["check_final_weights", "check_intervals", "check_numbers", "check_streaming", "check_units"]
