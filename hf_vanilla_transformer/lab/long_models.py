"""The models of the long tasks: full, windowed and linear attention, all else being equal, and what each can know."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention.flex_attention import flex_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..configuration_decoder_only import VanillaTransformerDecoderConfig
from ..loss import IGNORED_LABEL
from ..modeling_decoder_only import VanillaTransformerForCausalLM
from .complexity_layers import attention_operations, linear_operations, near_blocks, windowed_operations
from .long_tasks import Examples, Task

# No dropout and no smoothing: answers are certain. Pre-norm, with which small models learn these tasks sooner.
SHAPE: dict[str, Any] = {
    "d_model": 64, "num_heads": 2, "d_ff": 128, "num_decoder_layers": 2, "norm_position": "pre", "dropout": 0.0,
    "label_smoothing": 0.0,
}  # fmt: skip
WINDOW = 32  # positions back
FULL, LOCAL, ELU, RANDOM = "full", "window", "linear, elu", "linear, random"
ATTENTIONS: dict[str, dict[str, Any]] = {
    FULL: {},
    LOCAL: {"attention_pattern": "local", "attention_window": WINDOW},
    ELU: {"attention": "linear"},
    RANDOM: {"attention": "linear", "feature_map": "random", "num_random_features": 128},
}

# The name by which transformers finds flex attention over the blocks of the window.
_IN_BLOCKS = "window_in_blocks"


@dataclass(frozen=True)
class Program:
    """A way to compute an attention, whose time and memory are measured.

    Args:
        name: what to call it.
        option: a word for it.
        attention: key of `ATTENTIONS`; what it computes.
        implementation: that computes it, by its name in transformers.
        memory_exponent: that of n in the memory of a step.
        is_compiled: as in `complexity_layers.LayerType`.
    """

    name: str
    option: str
    attention: str
    implementation: str
    memory_exponent: int
    is_compiled: bool = False


PROGRAMS = {
    each.name: each
    for each in (
        Program("full (sdpa)", "full", FULL, "sdpa", 1),
        Program("window as a mask (sdpa)", "masked", LOCAL, "sdpa", 2),
        Program("window in blocks (flex)", "blocks", LOCAL, _IN_BLOCKS, 1, is_compiled=True),
        Program("linear, elu", "linear", ELU, "sdpa", 1),
        Program("linear, random", "random", RANDOM, "sdpa", 1),
    )
}


def build_long_model(
    task: Task, attention: str, implementation: str = "sdpa", **shape: Any
) -> VanillaTransformerForCausalLM:
    """Makes a decoder without an encoder for a task.

    Args:
        task: gives vocabulary and position encoding.
        attention: key of `ATTENTIONS`.
        implementation: as in `Program`.
        **shape: fields of the config that differ from `SHAPE`.

    Returns:
        The model, with weights by torch's seed.
    """
    # The blocks are the window's already: the model that computes them has no pattern, and the same weights.
    fields = {} if implementation == _IN_BLOCKS else ATTENTIONS[attention]
    config = VanillaTransformerDecoderConfig(
        vocab_size=task.vocab_size, position_encoding=task.position_encoding, **{**SHAPE, **fields, **shape}
    )
    model = VanillaTransformerForCausalLM(config)
    model.set_attn_implementation(implementation)
    return model


def reach(attention: str) -> float:
    """Returns how many positions back anything can be known: from layer to layer, one window further.

    Args:
        attention: key of `ATTENTIONS`.
    """
    return float(SHAPE["num_decoder_layers"] * WINDOW) if attention == LOCAL else math.inf


def capacity(attention: str) -> int | None:
    """Returns how many keys the state of a layer can keep apart, F for each head; None if every key is kept.

    Args:
        attention: key of `ATTENTIONS`.
    """
    fields, num_heads = ATTENTIONS[attention], int(SHAPE["num_heads"])
    if fields.get("attention") != "linear":
        return None
    return num_heads * int(fields.get("num_random_features", SHAPE["d_model"] // num_heads))


def model_operations(program: Program, length: int, num_labels: int, vocab_size: int) -> float:
    """Counts multiplications and additions of all matrix products of a forward pass.

    Args:
        program: that runs.
        length: n, of one sequence.
        num_labels: tokens that are predicted.
        vocab_size: V.

    Returns:
        The operations; of full attention over all pairs, of which a kernel may leave out half, the later keys.
    """
    d_model, num_heads = SHAPE["d_model"], SHAPE["num_heads"]
    keys = capacity(program.attention)
    if keys is not None:
        layer = linear_operations(length, d_model, num_heads, keys // num_heads, is_causal=True)
        # Queries and keys times the random directions.
        layer += 4 * length * d_model * keys // num_heads if program.attention == RANDOM else 0
    elif program.implementation == _IN_BLOCKS:
        layer = windowed_operations(length, d_model, WINDOW, is_causal=True)
    else:
        layer = attention_operations(length, d_model, num_heads)
    layer += 4 * length * d_model * SHAPE["d_ff"]
    return float(SHAPE["num_decoder_layers"] * layer + 2 * num_labels * d_model * vocab_size)


@torch.no_grad()
def accuracy(model: Any, examples: Examples, positions: int = 8192) -> float:
    """Returns the share of labels that a model gives the highest probability.

    Args:
        model: a language model, in eval mode.
        examples: to test it on.
        positions: how many to compute at a time, at least one text.
    """
    hits = 0
    rows = max(1, positions // examples.input_ids.shape[1])
    for input_ids, labels in zip(examples.input_ids.split(rows), examples.labels.split(rows), strict=True):
        is_label = labels != IGNORED_LABEL
        predicts = is_label.roll(-1, dims=1)  # the position before; the first token is never a label
        kept = predicts.to(model.device)
        logits = model(input_ids=input_ids.to(model.device), logits_to_keep=kept, use_cache=False).logits
        hits += int((logits.argmax(-1).cpu() == labels[is_label]).sum())
    return hits / int((examples.labels != IGNORED_LABEL).sum())


@functools.cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention)


def _window_in_blocks(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """Attention over the blocks that hold the window. Transformers makes no mask for an attention of its users."""
    assert attention_mask is None
    blocks = near_blocks(query.shape[2], WINDOW, is_causal=True)
    return _compiled()(query, key, value, block_mask=blocks, scale=kwargs["scaling"]).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(_IN_BLOCKS, _window_in_blocks)
