"""In: the state of a `torch.nn.Transformer` with the embeddings and the projection that stand around it."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .checkpoints import (
    DECODER_EMBEDDING,
    ENCODER_EMBEDDING,
    PROJECTION,
    PROJECTION_BIAS,
    build,
    count_layers,
    count_rows,
    embedding_fields,
    find,
    outranked_by,
)

TORCH_NAMES = {
    r"^model\.": "",
    r"\.self_attention\.": ".self_attn.",
    r"\.self_attention_norm\.": ".norm1.",
    r"\.cross_attention\.": ".multihead_attn.",
    r"\.cross_attention_norm\.": ".norm2.",
    r"\.feed_forward\.fc": ".linear",
    r"^encoder\.(.*)\.feed_forward_norm\.": r"encoder.\1.norm2.",
    r"^decoder\.(.*)\.feed_forward_norm\.": r"decoder.\1.norm3.",
    r"\.final_norm\.": ".norm.",
    r"\.([qkv])_proj\.(weight|bias)$": r".in_proj_\2[\1]",
}


def load_torch_transformer(
    state: Mapping[str, torch.Tensor],
    *,
    num_heads: int,
    source_embedding: str,
    target_embedding: str | None = None,
    projection: str | None = None,
    prefix: str = "transformer.",
    ignored: str = r"(?!)",
    **fields: Any,
) -> VanillaTransformerForConditionalGeneration:
    """Builds our model from a module that has a `torch.nn.Transformer` in it; hidden states and logits stay the same.

    Sizes, biases and norms at the ends of the stacks are read off the tensors. A state_dict contains neither the number
    of heads nor formulas such as the position of norms; those that are not given in `fields` are the paper's.

    Args:
        state: what the module's `state_dict()` returned, or a file of it read by `torch.load(weights_only=True)`.
        num_heads: the `nhead` it was built with.
        source_embedding: name of the tensor (V, D), such as "source.weight".
        target_embedding: likewise; None means that of the source.
        projection: name of the pre-softmax matrix (V, D), whose bias, if there is one, has the same name with "bias"
            in place of "weight"; None means that of the target's embedding.
        prefix: what the names of the transformer begin with; empty, if it is itself the module.
        ignored: pattern of names that hold no weights, such as tables of sinusoids.
        **fields: of our config: `norm_position`, `activation_function`, `sinusoid_layout`, `scale_embeddings`,
            ids of special tokens and others.

    Returns:
        Our model with its weights, float32, in eval mode.

    Raises:
        ValueError: the state does not fit, with the first names and shapes that differ; or `ignored` is not a pattern.
    """
    try:
        re.compile(ignored)
    except re.error as error:
        raise ValueError(f"`ignored`={ignored!r} is not a regular expression: {error}") from error
    target_embedding = target_embedding or source_embedding
    places = {
        ENCODER_EMBEDDING: find(state, "embedding of the source", source_embedding),
        DECODER_EMBEDDING: find(state, "embedding of the target", target_embedding),
        PROJECTION: find(state, "pre-softmax projection", projection or target_embedding),
    }
    first_layer = f"{prefix}encoder.layers.0."
    read = {
        **embedding_fields(*(state[name] for name in places.values())),
        "num_heads": num_heads,
        "num_encoder_layers": count_layers(state, f"{prefix}encoder.layers."),
        "num_decoder_layers": count_layers(state, f"{prefix}decoder.layers."),
        "d_ff": count_rows(state, "feed-forward network", f"{first_layer}linear1.weight"),
        "attention_bias": f"{first_layer}self_attn.in_proj_bias" in state,
        "final_norm": f"{prefix}encoder.norm.weight" in state,
        "layer_norm_eps": 1e-5,
    }
    bias = places[PROJECTION].removesuffix("weight") + "bias"
    if bias in state:
        read["final_logits_bias"] = True
        places[PROJECTION_BIAS] = bias
    return build(outranked_by(fields, read), state, {**TORCH_NAMES, r"^": prefix.replace("\\", r"\\")}, places, ignored)
