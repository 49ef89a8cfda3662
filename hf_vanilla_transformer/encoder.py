"""§3.1 "Encoder": a stack of N layers of self-attention and feed-forward; the left half of Figure 1."""

from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention import MultiHeadAttention, config_of_call, config_of_masks, passed_to_attention
from .attention_linear import ENCODER_MASKS
from .attention_patterns import PATTERNS
from .attention_relative import self_attention
from .configuration_vanilla_transformer import VanillaTransformerConfig
from .configuration_variants import require_tokens
from .dropout import Dropout
from .embeddings import token_embedding
from .feed_forward import FEED_FORWARDS
from .modeling_compatibility import recorder, strict_forward
from .modeling_pretrained import VanillaTransformerPreTrainedModel
from .norms import embedding_norm, norm
from .positions import added_positions, position_ids_from_mask, refuse_unlearned_positions
from .positions_relative import RELATIONS

logger = logging.get_logger(__name__)


class EncoderLayer(GradientCheckpointingLayer):
    """§3.1: self-attention, then feed-forward, each with "Add & Norm": LayerNorm(x + Dropout(Sublayer(x))).

    With a causal self-attention it is also the layer of a decoder without an encoder.

    Args:
        config: the model's config.
        layer_idx: as in `MultiHeadAttention`.
        is_causal: likewise.
    """

    def __init__(self, config: VanillaTransformerConfig, layer_idx: int | None = None, is_causal: bool = False) -> None:
        super().__init__()
        self.self_attention = self_attention(config, layer_idx, is_causal)
        self.self_attention_norm = norm(config)
        self.feed_forward = FEED_FORWARDS[config.feed_forward](config)
        self.feed_forward_norm = norm(config)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Maps (B, S, D) to (B, S, D); `attention_mask` hides padding, `kwargs` go to the attention."""
        attended, _ = self.self_attention(hidden_states, attention_mask, **kwargs)
        hidden_states = self.self_attention_norm(hidden_states + self.dropout(attended))

        transformed = self.feed_forward(hidden_states)
        return self.feed_forward_norm(hidden_states + self.dropout(transformed))


class PreNormEncoderLayer(EncoderLayer):
    """The variant `norm_position="pre"`: x + Dropout(Sublayer(LayerNorm(x))); the stack ends with one more norm."""

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Maps (B, S, D) to (B, S, D); `attention_mask` hides padding, `kwargs` go to the attention."""
        attended, _ = self.self_attention(self.self_attention_norm(hidden_states), attention_mask, **kwargs)
        hidden_states = hidden_states + self.dropout(attended)

        transformed = self.feed_forward(self.feed_forward_norm(hidden_states))
        return hidden_states + self.dropout(transformed)


class SandwichEncoderLayer(EncoderLayer):
    """The variant `norm_position="sandwich"` (Ding et al., 2021): x + Dropout(LayerNorm(Sublayer(LayerNorm(x))))."""

    def __init__(self, config: VanillaTransformerConfig, layer_idx: int | None = None, is_causal: bool = False) -> None:
        super().__init__(config, layer_idx, is_causal)
        self.self_attention_output_norm = norm(config)
        self.feed_forward_output_norm = norm(config)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Maps (B, S, D) to (B, S, D); `attention_mask` hides padding, `kwargs` go to the attention."""
        attended, _ = self.self_attention(self.self_attention_norm(hidden_states), attention_mask, **kwargs)
        hidden_states = hidden_states + self.dropout(self.self_attention_output_norm(attended))

        transformed = self.feed_forward(self.feed_forward_norm(hidden_states))
        return hidden_states + self.dropout(self.feed_forward_output_norm(transformed))


ENCODER_LAYERS: dict[str, type[EncoderLayer]] = {
    "post": EncoderLayer,
    "pre": PreNormEncoderLayer,
    "sandwich": SandwichEncoderLayer,
}


class Encoder(VanillaTransformerPreTrainedModel):
    """§3.1: embeds the source, adds positions and passes the sum through N identical layers.

    Args:
        config: the model's config; `num_encoder_layers` is N.
    """

    _can_record_outputs = {
        "hidden_states": recorder(EncoderLayer, index=0, layers="num_encoder_layers"),
        "attentions": recorder(MultiHeadAttention, index=1),
    }

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        self.add_embedding(config)
        self.embed_positions = added_positions(config)
        self.embedding_norm = embedding_norm(config)
        self.relate_positions = RELATIONS[config.position_encoding](config, is_causal=False)
        self.restrict_attention = PATTERNS[config.attention_pattern](config)
        self.reads_key_positions = self.relate_positions.reads_keys or self.restrict_attention.reads_keys
        self.make_mask = ENCODER_MASKS[config.attention]
        self.word_dropout = nn.Dropout1d(config.word_dropout)
        self.dropout = Dropout(config.dropout)
        layer = ENCODER_LAYERS[config.norm_position]
        self._no_split_modules = [layer.__name__]  # only this class: FSDP refuses names of absent ones
        self.layers = nn.ModuleList([layer(config) for _ in range(config.num_encoder_layers)])
        self.final_norm = final_norm(config)
        self.gradient_checkpointing = False
        self.post_init()

    def add_embedding(self, config: VanillaTransformerConfig) -> None:
        """Adds what makes vectors of the source, the box "Input Embedding"; encoders of other sources override it.

        Args:
            config: the model's config.

        Raises:
            ValueError: the config describes an encoder of another class.
        """
        require_tokens(config, type(self).__name__)
        self.embed_tokens = token_embedding(config, config.source_vocab_size or config.vocab_size)

    @strict_forward
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Encodes a batch of source sentences.

        Args:
            input_ids: (B, S) source tokens; or `inputs_embeds`.
            attention_mask: (B, S), non-zero for tokens and 0 for padding, on either side; or an expanded one, as in
                `encode`. By default it is derived from the `<pad>` tokens in `input_ids`.
            inputs_embeds: (B, S, D) in place of `input_ids`, already multiplied by sqrt(d_model), as
                `get_input_embeddings()(input_ids)` returns them.
            **kwargs: `output_hidden_states`, `output_attentions`, and those of the attention implementation.

        Returns:
            `last_hidden_state` (B, S, D), and the requested outputs.

        Raises:
            ValueError: neither or both of `input_ids` and `inputs_embeds` were given, or the mask has another length.
            TypeError: an argument is unknown.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give the encoder either `input_ids` or `inputs_embeds`, and not both")
        if inputs_embeds is None:
            attention_mask = derive_attention_mask(input_ids, attention_mask, self.config.pad_token_id)
            inputs_embeds = self.embed_tokens(input_ids)
        return BaseModelOutput(last_hidden_state=self.encode(inputs_embeds, attention_mask, **kwargs))

    def encode(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """Encodes vectors, whatever they were made of: `forward` after the box "Input Embedding".

        Args:
            inputs_embeds: (B, S, D).
            attention_mask: (B, S), 0 for padding, on either side; or an already expanded (B, 1, S, S) mask, with which
                all places are numbered, for it does not say what is padding; None if nothing is masked.
            **kwargs: as in `forward`.

        Returns:
            (B, S, D).

        Raises:
            ValueError: the mask has another length, or a position was never learned.
        """
        batch_size, length, _ = inputs_embeds.shape
        if attention_mask is not None and attention_mask.dim() == 2:
            refuse_other_shape("attention_mask", attention_mask, (batch_size, length), "the source")
            position_ids = position_ids_from_mask(attention_mask)
        else:
            position_ids = torch.arange(length, device=inputs_embeds.device).unsqueeze(0)
        refuse_unlearned_positions(self.config, position_ids, end=length)
        config = config_of_call(self.config, kwargs.get("output_attentions"))
        attention_mask = self.make_mask(
            config_of_masks(config, self.reads_key_positions), inputs_embeds, attention_mask
        )
        return self.through_layers(
            inputs_embeds,
            position_ids,
            attention_mask,
            implementation=config._attn_implementation,
            **passed_to_attention(kwargs),
        )

    def through_layers(
        self, inputs_embeds: torch.Tensor, position_ids: torch.Tensor, attention_mask: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Adds positions and passes the sum through the N layers; used by `forward` and exported graphs.

        Args:
            inputs_embeds: (B, S, D), already multiplied by sqrt(d_model).
            position_ids: (B, S) or (1, S).
            attention_mask: as the attention implementation expects it.
            **kwargs: `implementation`, and arguments for it.

        Returns:
            (B, S, D).
        """
        return through_stack(self, inputs_embeds, position_ids, attention_mask, position_ids, **kwargs)


def through_stack(
    stack: Any,
    inputs_embeds: torch.Tensor,
    position_ids: torch.Tensor,
    attention_mask: Any,
    key_positions: torch.Tensor | None,
    *source: Any,
    **kwargs: Any,
) -> torch.Tensor:
    """§3.1: adds positions and passes the sum through the N layers of any stack.

    Args:
        stack: encoder or decoder.
        inputs_embeds: (B, L, D), already multiplied by sqrt(d_model).
        position_ids: (B, L) or (1, L).
        attention_mask: of the self-attentions, as the attention implementation expects it.
        key_positions: (B, K) or (1, K), the positions of all keys; may be None unless `reads_key_positions`.
        *source: what the layers of a decoder get of the encoder.
        **kwargs: of the layers.

    Returns:
        (B, L, D).
    """
    hidden_states = stack.embed_positions(stack.word_dropout(inputs_embeds), position_ids)
    hidden_states = stack.dropout(stack.embedding_norm(hidden_states))
    attention_mask = stack.restrict_attention(attention_mask, position_ids, key_positions, hidden_states.dtype)
    attention_mask, positions = stack.relate_positions(attention_mask, position_ids, key_positions, hidden_states.dtype)
    for layer in stack.layers:
        hidden_states = layer(hidden_states, attention_mask, *source, positions=positions, **kwargs)
    return stack.final_norm(hidden_states)


def final_norm(config: VanillaTransformerConfig) -> nn.Module:
    """The end of a stack: a norm after pre-norm layers, nothing after post-norm layers, or as `final_norm` says."""
    has_norm = config.norm_position != "post" if config.final_norm is None else config.final_norm
    return norm(config) if has_norm else nn.Identity()


def derive_attention_mask(
    input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, pad_token_id: int | None
) -> torch.Tensor | None:
    """Derives the padding mask from `input_ids` if no mask was given.

    Args:
        input_ids: (B, S) source tokens, or None.
        attention_mask: the caller's mask; returned unchanged unless None.
        pad_token_id: the id of `<pad>`, or None.

    Returns:
        A mask (B, S), True for tokens; None without known padding.
    """
    if attention_mask is not None or input_ids is None or pad_token_id is None:
        return attention_mask
    is_token = input_ids.ne(pad_token_id)
    # Whether there is padding depends on the data. A graph cannot tell, and asking an accelerator means waiting
    # for it; there a mask without padding is harmless.
    if input_ids.device.type == "meta":
        return None
    if input_ids.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return is_token
    if bool(is_token.all()):
        return None
    logger.warning_once(
        f"`input_ids` contains padding (`pad_token_id`={pad_token_id}) but no `attention_mask` was given; the padding "
        "is masked. Pass the `attention_mask` that the tokenizer returns."
    )
    return is_token


def refuse_other_shape(name: str, mask: torch.Tensor, shape: tuple[int, int], of: str) -> None:
    """Refuses a mask of the wrong shape, which would be broadcast or cut.

    Args:
        name: the argument's name.
        mask: (B, L).
        shape: the required shape.
        of: what it masks, for the message.

    Raises:
        ValueError: the shapes differ.
    """
    if tuple(mask.shape) != shape:
        raise ValueError(
            f"`{name}` has the shape {tuple(mask.shape)}, but {of} has {shape}; give it one number a token"
        )
