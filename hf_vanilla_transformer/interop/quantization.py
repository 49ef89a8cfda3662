"""Out: 8-bit weights on a CPU, by torch's dynamic quantisation."""

import copy
import warnings

import torch
from torch import nn

from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration


def quantize_int8(model: VanillaTransformerForConditionalGeneration) -> VanillaTransformerForConditionalGeneration:
    """Makes a copy whose matrix products run in 8 bits, on a CPU: projections, feed-forward, the pre-softmax one.

    Weights are rounded once, one scale a matrix; inputs at each call ("dynamic"). Embeddings stay float32, so a tied
    matrix is then stored in both forms. The copy is for decoding: it cannot be trained, nor saved by
    `save_pretrained`; make it anew after loading. torch announces that its function for this will go to another
    package.

    Args:
        model: left as it is.

    Returns:
        The copy, in eval mode.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.ao.quantization.*", category=DeprecationWarning)
        return torch.ao.quantization.quantize_dynamic(
            copy.deepcopy(model).eval(), {nn.Linear}, dtype=torch.qint8, inplace=True
        )
