"""Which values of a run's arguments do not go together; those of single arguments are looked at where they are."""

from typing import Any


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
    if "bpe" in units.values():
        raise ValueError(f"{said}: bpe is one vocabulary for both sides; give both, or neither")
    if args.bpe_dropout:
        raise ValueError(f"bpe_dropout={args.bpe_dropout} is for bpe, and not for {said}")
    if args.objective == "span_corruption" and len(set(units.values())) > 1:
        raise ValueError(f"{said}: span_corruption has one text, which is cut in one way; give one value for both")
    if given := args.tokenizer_name_or_path or args.model_name_or_path:
        raise ValueError(f"{said} has no effect on the tokenizer of {given}, which is trained; leave it out")


__all__ = ["check_units"]
