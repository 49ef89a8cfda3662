"""What `torch.export` and ONNX share: the two graphs of translating, without a cache object, as plain tensors."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import EncoderDecoderCache

from ..attention import additive_mask
from ..configuration_variants import require_tokens
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..positions import position_ids_from_mask


class EncoderGraph(nn.Module):
    """The encoder, and the keys and values that each layer of the decoder makes of its output: once per source."""

    def __init__(self, model: VanillaTransformerForConditionalGeneration) -> None:
        super().__init__()
        self.encoder, self.layers = model.model.encoder, model.model.decoder.layers

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Encodes sources.

        Args:
            input_ids: (B, S).
            attention_mask: (B, S), 0 for padding.

        Returns:
            Keys (B, G, S, d_k) and values (B, G, S, d_v), with G heads, of the first layer of the decoder, then of
            the second, ...
        """
        embedded = self.encoder.embed_tokens(input_ids)
        mask = additive_mask(attention_mask.bool()[:, None, None, :], embedded.dtype)
        states = self.encoder.through_layers(embedded, position_ids_from_mask(attention_mask), mask)
        outputs = []
        for layer in self.layers:
            attention: Any = layer.cross_attention
            for projection, width in ((attention.k_proj, attention.d_k), (attention.v_proj, attention.d_v)):
                outputs.append(projection(states).unflatten(-1, (-1, width)).transpose(1, 2))
        return tuple(outputs)


class DecoderGraph(nn.Module):
    """The decoder with its projection, for the first step (no earlier keys), for one more token, or for several."""

    def __init__(self, model: VanillaTransformerForConditionalGeneration) -> None:
        super().__init__()
        self.decoder, self.lm_head = model.model.decoder, model.lm_head

    def forward(
        self,
        input_ids: torch.Tensor,
        encoder_attention_mask: torch.Tensor,
        cross: Sequence[torch.Tensor],
        past: Sequence[torch.Tensor],
    ) -> tuple[torch.Tensor, ...]:
        """Decodes T more tokens.

        Args:
            input_ids: (B, T).
            encoder_attention_mask: (B, S), 0 for padding of the source.
            cross: what `EncoderGraph` returned.
            past: keys (B, G, P, d_k) and values (B, G, P, d_v) of earlier tokens, for each layer; at first P is 0.

        Returns:
            Logits (B, T, V), then keys and values (B, G, P + T, ...) for each layer, the `past` of the next step.
        """
        embedded = self.decoder.embed_tokens(input_ids)
        past_length, length = past[0].shape[2], input_ids.shape[1]
        positions = torch.arange(length, device=input_ids.device) + past_length
        keys_at = torch.arange(past_length + length, device=input_ids.device)
        mask = additive_mask(keys_at[None, :] <= positions[:, None], embedded.dtype)[None, None]
        cross_mask = additive_mask(encoder_attention_mask.bool()[:, None, None, :], embedded.dtype)
        cache = _Tensors(cross, past)
        # The encoder's output is not read: keys and values of the source are in the cache already.
        states = self.decoder.through_layers(
            embedded, positions[None], mask, embedded, cross_mask, cache, key_positions=keys_at[None]
        )
        return self.lm_head(states), *cache.present


class _Tensors(EncoderDecoderCache):
    """The cache as the attention asks for it, made of tensors that come from outside the graph."""

    def __init__(self, cross: Sequence[torch.Tensor], past: Sequence[torch.Tensor]) -> None:
        self.present = list(past)
        layers = [SimpleNamespace(keys=k, values=v) for k, v in zip(cross[::2], cross[1::2], strict=True)]
        self.cross_attention_cache = SimpleNamespace(layers=layers)
        self.self_attention_cache = self
        self.is_updated = dict.fromkeys(range(len(layers)), True)

    def update(self, key: torch.Tensor, value: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        """Appends the new keys and values of one layer."""
        for place, new in ((2 * layer_idx, key), (2 * layer_idx + 1, value)):
            self.present[place] = torch.cat([self.present[place], new], dim=2)
        return self.present[2 * layer_idx], self.present[2 * layer_idx + 1]


@dataclass(frozen=True)
class Graph:
    """One module, and what an exporter has to know about it.

    Args:
        module: in eval mode.
        arguments: an example of what it takes.
        dynamic_axes: for each of them the names of those axes whose size is free.
        input_names: of the tensors in `arguments`, flattened.
        output_names: of what it returns.
    """

    module: nn.Module
    arguments: tuple[Any, ...]
    dynamic_axes: tuple[Any, ...]
    input_names: list[str]
    output_names: list[str]


def inference_graphs(model: VanillaTransformerForConditionalGeneration) -> dict[str, Graph]:
    """Splits a model into two graphs: one that runs once per source, and one that runs once per token.

    Args:
        model: left as it is; the graphs hold a copy with eager attention.

    Returns:
        The graphs "encoder" and "decoder".

    Raises:
        ValueError: the model does not read text, or its attention is not softmax's.
    """
    require_tokens(model.config, "the export as two graphs")
    for field in ("attention", "cross_attention"):
        value = getattr(model.config, field)
        if value != "softmax":
            raise ValueError(
                f"the exported graphs pass keys and values from step to step, and `{field}`={value!r} has sums "
                f"instead; export a model with `{field}`='softmax', or the model's own forward() by "
                "`torch.export.export`"
            )
    model = copy.deepcopy(model).eval().requires_grad_(False)
    model.set_attn_implementation("eager")
    config = model.config
    batch, source, target, past = 2, 5, 3, 4
    ids = torch.ones(batch, source, dtype=torch.long)
    encoder, decoder = EncoderGraph(model).eval(), DecoderGraph(model).eval()
    cross = encoder(ids, ids)
    earlier = tuple(tensor.new_zeros(batch, tensor.shape[1], past, tensor.shape[3]) for tensor in cross)
    parts = [f"{part}.{index}" for index in range(config.num_decoder_layers) for part in ("key", "value")]
    cross_names, past_names = [f"cross_{part}" for part in parts], [f"past_{part}" for part in parts]
    source_axes, target_axes = {0: "batch", 1: "source"}, {0: "batch", 1: "target"}
    cross_axes, past_axes = {0: "batch", 2: "source"}, {0: "batch", 2: "past"}
    return {
        "encoder": Graph(
            encoder, (ids, ids.clone()), (source_axes, source_axes), ["input_ids", "attention_mask"], cross_names
        ),
        "decoder": Graph(
            decoder,
            (torch.ones(batch, target, dtype=torch.long), ids, cross, earlier),
            (target_axes, source_axes, (cross_axes,) * len(cross), (past_axes,) * len(cross)),
            ["input_ids", "encoder_attention_mask", *cross_names, *past_names],
            ["logits", *(f"present_{part}" for part in parts)],
        ),
    }
