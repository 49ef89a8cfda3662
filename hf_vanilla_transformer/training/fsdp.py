"""FSDP2: what keeps accelerate from dividing this model, how it is kept from that, and what of it cannot be saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate.utils import DistributedType
from torch import nn


def refuse_unsaved_models(engine: DistributedType, zero_stage: int, state_dict_type: object, lora_rank: int) -> None:
    """Refuses to train what could not be saved as a model in the end.

    Args:
        engine: what accelerate trains with.
        zero_stage: DeepSpeed's; 3 divides the weights.
        state_dict_type: FSDP's, of checkpoints; None for other engines.
        lora_rank: as in the arguments.

    Raises:
        ValueError: checkpoints would have shards of FSDP in place of a model, or adapters would have to be merged into
            divided weights; the message says what to use instead.
    """
    is_fsdp = engine == DistributedType.FSDP
    kind = getattr(state_dict_type, "name", state_dict_type)
    if is_fsdp and kind != "FULL_STATE_DICT":
        raise ValueError(
            f"fsdp_state_dict_type={kind} would leave shards of weights, and no model in the end; use FULL_STATE_DICT"
        )
    if lora_rank and (is_fsdp or zero_stage == 3):
        raise ValueError(
            f"lora_rank={lora_rank}: adapters are merged into whole weights, which {engine.value} divides among "
            "processes; train adapters with DistributedDataParallel"
        )


@contextmanager
def embeddings_in_outermost_group(model: nn.Module) -> Iterator[None]:
    """Has accelerate's FSDP2 leave embeddings and projection with the model itself, whose one matrix they are (§3.4).

    accelerate puts the input embedding and the projection into a group of their own, and does not know of a second
    embedding. The decoder's is then in another group, and torch refuses a parameter of two groups. Where accelerate
    finds no embeddings, all three stay in the outermost group, which is gathered for as long as a step takes.

    Args:
        model: what accelerate is about to prepare; afterwards as before.

    Yields:
        Nothing.
    """
    hidden = {name: lambda: None for name in ("get_input_embeddings", "get_output_embeddings")}
    vars(model).update(hidden)
    try:
        yield
    finally:
        for name in hidden:
            vars(model).pop(name)


def zero_stage_of(state: Any) -> int:
    """Which stage of ZeRO DeepSpeed runs; 3 divides the weights.

    Args:
        state: accelerate's.

    Returns:
        The stage; 0 without DeepSpeed.
    """
    plugin = getattr(state, "deepspeed_plugin", None)
    return plugin.zero_stage if plugin else 0
