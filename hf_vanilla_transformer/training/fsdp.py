"""FSDP2: what keeps accelerate from dividing this model, and how it is kept from that."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
