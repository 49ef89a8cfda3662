"""The Transformer without one of its parts: a subclass that takes it out, so that the model has no such switch."""

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM
from transformers.cache_utils import Cache

from ..attention import MultiHeadAttention
from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..decoder import DecoderLayer
from ..encoder import EncoderLayer
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration


@strict
class AblatedTransformerConfig(VanillaTransformerConfig):
    """Configuration of a Transformer that may lack parts; all others are fields of `VanillaTransformerConfig`.

    Args:
        layer_norm: whether the layers and stacks have layer normalisation (§3.1); False puts nothing in its place.
        residual_connections: whether the input of a sub-layer is added to its output (§3.1). Without them, a layer is
            LayerNorm(Dropout(Sublayer(x))), which is the same before and after: `norm_position` must be "post".
        scale_scores: whether dot products are multiplied by 1 / sqrt(d_k) before the softmax (§3.2.1).

    Raises:
        huggingface_hub.errors.StrictDataclassError: as of `VanillaTransformerConfig`; or there are no residual
            connections with pre-norm layers, or no scaling with linear attention.
    """

    model_type = "ablated_transformer"

    layer_norm: bool = True
    residual_connections: bool = True
    scale_scores: bool = True

    def validate_architecture(self) -> None:
        """Refuses what `VanillaTransformerConfig` refuses, layers without residual connections that are pre-norm, and
        scores without scaling where linear attention has none.

        Raises:
            ValueError: a value is refused; the message names the field, the value and what is allowed.
        """
        super().validate_architecture()
        if not self.residual_connections and self.norm_position != "post":
            raise ValueError(
                f"`residual_connections`=False with `norm_position`={self.norm_position!r}: without them, there is one "
                "order of norm and sub-layer only; allowed: `norm_position`='post'"
            )
        for field in ("attention", "cross_attention"):
            if not self.scale_scores and getattr(self, field) == "linear":
                raise ValueError(
                    f"`scale_scores`=False leaves scores as they are, and `{field}`='linear' has none; allowed: True, "
                    f"or `{field}`='softmax'"
                )


class EncoderLayerWithoutResiduals(EncoderLayer):
    """§3.1 without residual connections: self-attention, then feed-forward, each LayerNorm(Dropout(Sublayer(x)))."""

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Maps (B, S, D) to (B, S, D); `attention_mask` hides padding, `kwargs` go to the attention."""
        attended, _ = self.self_attention(hidden_states, attention_mask, **kwargs)
        hidden_states = self.self_attention_norm(self.dropout(attended))

        return self.feed_forward_norm(self.dropout(self.feed_forward(hidden_states)))


class DecoderLayerWithoutResiduals(DecoderLayer):
    """§3.1 without residual connections: each of the three sub-layers is LayerNorm(Dropout(Sublayer(x)))."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        encoder_hidden_states: torch.Tensor,
        encoder_attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        positions: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Maps the target (B, T, D) and the encoder's output (B, S, D) to (B, T, D); see `DecoderLayer.forward`."""
        attended, _ = self.self_attention(hidden_states, attention_mask, cache=cache, positions=positions, **kwargs)
        hidden_states = self.self_attention_norm(self.dropout(attended))

        attended, _ = self.cross_attention(
            hidden_states, encoder_attention_mask, encoder_hidden_states, cache=cache, **kwargs
        )
        hidden_states = self.cross_attention_norm(self.dropout(attended))

        return self.feed_forward_norm(self.dropout(self.feed_forward(hidden_states)))


class AblatedTransformer(VanillaTransformerForConditionalGeneration):
    """The model of this package, with the parts that its config does not want taken out after it was built.

    It trains, saves, loads and decodes as the model does. With all parts it is the model, weight for weight. Importing
    this module registers it with transformers' Auto classes.

    Args:
        config: the model's config.

    Example:
        >>> config = AblatedTransformerConfig.from_preset("tiny", vocab_size=100, layer_norm=False)
        >>> model = AblatedTransformer(config)
        >>> any(isinstance(part, torch.nn.LayerNorm) for part in model.modules())
        False
    """

    config: AblatedTransformerConfig
    config_class = AblatedTransformerConfig

    def __init__(self, config: AblatedTransformerConfig) -> None:
        super().__init__(config)
        if not config.residual_connections:
            for layers in (self.model.encoder.layers, self.model.decoder.layers):
                for index, layer in enumerate(layers):
                    layers[index] = _without_residuals(layer, config)
        for name, part in list(self.named_modules()):
            if name.endswith("_norm") and not config.layer_norm:  # of layers and stacks, of whatever kind
                self.set_submodule(name, nn.Identity())
            elif isinstance(part, MultiHeadAttention) and not config.scale_scores:
                part.scaling = 1.0


def _without_residuals(layer: nn.Module, config: AblatedTransformerConfig) -> nn.Module:
    """A layer of the other class, which has the parts of the first, with the weights that these were given."""
    with torch.device("meta"):  # its own are not needed
        if isinstance(layer, DecoderLayer):
            other: nn.Module = DecoderLayerWithoutResiduals(config, layer.self_attention.layer_idx or 0)
        else:
            other = EncoderLayerWithoutResiduals(config)
    for name, part in layer.named_children():
        setattr(other, name, part)
    return other


AutoConfig.register(AblatedTransformerConfig.model_type, AblatedTransformerConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(AblatedTransformerConfig, AblatedTransformer, exist_ok=True)

__all__ = [
    "AblatedTransformer",
    "AblatedTransformerConfig",
    "DecoderLayerWithoutResiduals",
    "EncoderLayerWithoutResiduals",
]
