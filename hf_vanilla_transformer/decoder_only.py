"""§3.1 "Decoder" without an encoder: the stack of language models, whose layers have no cross-attention."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention import MultiHeadAttention, passed_to_attention
from .configuration_decoder_only import VanillaTransformerDecoderConfig
from .decoder_stack import TargetStack
from .encoder import ENCODER_LAYERS, EncoderLayer, derive_attention_mask, through_stack
from .modeling_compatibility import CACHE, AnswersToBothCacheNames, recorder, strict_forward
from .modeling_pretrained import VanillaTransformerPreTrainedModel, require_kind
from .positions import position_ids_from_mask

# The class that each Auto class finds in a folder that contains the code, by file and name.
DECODER_AUTO_MAP = {
    "AutoConfig": "configuration_decoder_only.VanillaTransformerDecoderConfig",
    "AutoModel": "decoder_only.VanillaTransformerDecoderModel",
    "AutoModelForCausalLM": "modeling_decoder_only.VanillaTransformerForCausalLM",
}

# Attention implementations that take a mask of who sees whom; the others know causal order and padding.
_TAKE_MASKS = ("eager", "sdpa", "flex_attention")


class VanillaTransformerDecoderPreTrainedModel(VanillaTransformerPreTrainedModel):
    """§3.1: the base class of the models that are a decoder alone; weights start as in the whole Transformer."""

    config: VanillaTransformerDecoderConfig
    config_class = VanillaTransformerDecoderConfig
    auto_map_with_code: ClassVar[dict[str, str]] = DECODER_AUTO_MAP
    pipelines_with_code: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: VanillaTransformerDecoderConfig, *args: Any, **kwargs: Any) -> None:
        require_kind(self, config)
        super().__init__(config, *args, **kwargs)

    def _check_and_adjust_attn_implementation(self, attn_implementation: str | None, *args: Any, **kwargs: Any) -> str:
        is_prefix = self.config.prefix_visibility == "bidirectional"
        if is_prefix and attn_implementation is not None and attn_implementation not in _TAKE_MASKS:
            raise ValueError(
                f"`attn_implementation`={attn_implementation!r} does not work with `prefix_visibility`="
                f"'bidirectional', because it takes no mask; allowed: {' or '.join(map(repr, _TAKE_MASKS))}"
            )
        return super()._check_and_adjust_attn_implementation(attn_implementation, *args, **kwargs)


@dataclass
class VanillaTransformerDecoderOutput(AnswersToBothCacheNames, BaseModelOutputWithPast):
    """Output of `VanillaTransformerDecoderModel`: transformers' output, with two names for the cache."""


class VanillaTransformerDecoderModel(VanillaTransformerDecoderPreTrainedModel, TargetStack):
    """§3.1: the decoder of Figure 1 without attention over an encoder's output; GPT without its head.

    Without cross-attention, a layer of the decoder is one of the encoder with a causal mask, and is built as such.

    Args:
        config: the model's config.
    """

    _can_record_outputs = {
        "hidden_states": recorder(EncoderLayer, index=0, layers="num_decoder_layers"),
        "attentions": recorder(MultiHeadAttention, index=1),
    }

    def __init__(self, config: VanillaTransformerDecoderConfig) -> None:
        require_kind(self, config)  # here too, because a field of it is read
        super().__init__(config, sees_later=config.prefix_visibility == "bidirectional")

    def _make_layer(self, config: Any, index: int) -> nn.Module:
        return ENCODER_LAYERS[config.norm_position](config, index, is_causal=True)

    def _make_cache(self) -> Cache:
        return DynamicCache(config=self.config)

    @strict_forward
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        prefix_length: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> VanillaTransformerDecoderOutput:
        """Reads a batch of texts, or more of texts whose beginnings are cached.

        Args:
            input_ids: (B, T) tokens; or `inputs_embeds`. With a cache, only the new ones.
            attention_mask: (B, cached + T), non-zero for tokens and 0 for padding, on either side; or an already
                expanded (B, 1, T, cached + T) mask, which must then be causal itself. By default it is derived from the
                `<pad>` tokens in `input_ids`, unless something is cached, `<pad>` is also `</s>`, or `position_ids` say
                what belongs together.
            position_ids: (B, T); by default, positions continue those of the cache and skip the padding of a mask
                (B, cached + T); with an expanded mask, which does not say what is padding, all places are counted.
                Without mask and cache, a position that is not the one before it plus 1 begins another text, which sees
                nothing of those before: transformers' collators without padding pack texts so. Flash and linear
                attention cannot.
            cache: key/value cache of earlier positions; extended in place and returned. `past_key_values`, its name
                in older versions of transformers, works as well.
            inputs_embeds: (B, T, D) in place of `input_ids`, as `get_input_embeddings()(input_ids)` returns them.
            prefix_length: (B,) with `prefix_visibility`="bidirectional", how many tokens at the beginning of each text
                see each other, padding not counted; None means none. One call has to read the whole prefix.
            use_cache: whether to return a cache; None leaves it to the config.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`; `kernel_options` of flex attention.
                Others are refused, except `token_type_ids`, which are ignored with one warning.

        Returns:
            `last_hidden_state` (B, T, D), `cache`, and the requested outputs.

        Raises:
            ValueError: neither or both of `input_ids` and `inputs_embeds` were given; a mask has another length; a
                position was never learned; a `prefix_length` has no effect, does not fit, or continues a cache; texts
                are packed that attention cannot keep apart; there is a cache in training with gradient checkpointing.
            TypeError: an argument is unknown.
        """
        past_length = 0 if cache is None else cache.get_seq_length()
        if position_ids is not None and attention_mask is None and cache is None:
            self._refuse_packed_texts(position_ids)  # and leave it to positions what belongs together
        elif not past_length:
            attention_mask = derive_attention_mask(input_ids, attention_mask, padding_only(self.config))
        given = input_ids if inputs_embeds is None else inputs_embeds
        blocks = None
        if prefix_length is not None and given is not None:
            blocks = self._blocks(prefix_length, attention_mask, given, int(past_length))
        target = self._read_target(
            input_ids,
            attention_mask,
            cache,
            inputs_embeds,
            position_ids,
            use_cache,
            kwargs.get("output_attentions"),
            blocks,
            may_be_packed=True,
        )
        hidden_states = self.through_layers(
            target.inputs_embeds,
            target.position_ids,
            target.attention_mask,
            target.cache,
            target.key_positions,
            implementation=target.config._attn_implementation,
            **passed_to_attention(kwargs),
        )
        return VanillaTransformerDecoderOutput(last_hidden_state=hidden_states, **{CACHE: target.cache})

    def through_layers(
        self,
        inputs_embeds: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        cache: Cache | None,
        key_positions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Adds positions and passes the sum through the N layers; used by `forward` and step-by-step decoding.

        Args:
            inputs_embeds: (B, T, D), already multiplied by sqrt(d_model).
            position_ids: (B, T) or (1, T).
            attention_mask: as the attention implementation expects it.
            cache: key/value cache of earlier positions, extended in place; or None.
            key_positions: (B, L) or (1, L), as in `Decoder.through_layers`.
            **kwargs: `implementation`, and arguments for it.

        Returns:
            (B, T, D), the input of the pre-softmax projection.
        """
        return through_stack(self, inputs_embeds, position_ids, attention_mask, key_positions, cache=cache, **kwargs)

    def _refuse_packed_texts(self, position_ids: torch.Tensor) -> None:
        """Refuses several texts in a row where attention does not keep them apart: transformers' masks would."""
        implementation = self.config._attn_implementation
        if self.config.attention == "linear":
            what = "`attention`='linear'"
        elif implementation not in _TAKE_MASKS:
            what = f"`attn_implementation`={implementation!r}"
        else:
            return
        if not torch.compiler.is_compiling() and bool((position_ids.diff(dim=1) != 1).any()):
            raise ValueError(
                f"`position_ids` pack several texts in one row, which {what} cannot keep apart; give each text a row "
                "of its own, with an `attention_mask` where there is padding"
            )

    def _blocks(
        self, prefix_length: torch.Tensor, attention_mask: torch.Tensor | None, given: torch.Tensor, past_length: int
    ) -> torch.Tensor | None:
        """The tokens (B, T) that see each other, as transformers numbers them: 0 in a prefix, elsewhere -1."""
        is_token = torch.ones(*given.shape[:1], past_length + given.shape[1], dtype=torch.bool, device=given.device)
        if attention_mask is not None and attention_mask.dim() == 2:
            is_token = attention_mask.ne(0)
        elif attention_mask is not None:
            raise ValueError(
                "`prefix_length` needs an `attention_mask` (B, L); an expanded one says itself who sees whom"
            )
        prefix_length = prefix_length.to(given.device)
        check_prefix(self.config, prefix_length, is_token, past_length)
        if past_length:
            return None
        in_prefix = is_token & (position_ids_from_mask(is_token) < prefix_length.unsqueeze(1))
        return in_prefix.long() - 1


def check_prefix(
    config: VanillaTransformerDecoderConfig, prefix_length: torch.Tensor, is_token: torch.Tensor, past_length: int
) -> None:
    """§3.1: refuses a prefix that has no effect, or that no single call can read.

    Args:
        config: gives `prefix_visibility`.
        prefix_length: (B,).
        is_token: (B, cached + T) booleans, False for padding.
        past_length: number of cached positions, in which the whole prefix has to be if there are any.

    Raises:
        ValueError: it is such a prefix, or not one number for each text.
    """
    if config.prefix_visibility != "bidirectional":
        raise ValueError(
            f"`prefix_length` changes nothing with `prefix_visibility`={config.prefix_visibility!r}; leave it "
            "away, or configure `prefix_visibility`='bidirectional'"
        )
    if tuple(prefix_length.shape) != is_token.shape[:1]:
        raise ValueError(
            f"`prefix_length` has the shape {tuple(prefix_length.shape)}; give it one number for each of the "
            f"{len(is_token)} texts"
        )
    is_read = is_token[:, :past_length] if past_length else is_token
    if not torch.compiler.is_compiling() and bool((prefix_length > is_read.sum(1)).any()):
        raise ValueError(
            f"`prefix_length`={prefix_length.tolist()} is more than there is to see in the "
            f"{'cache' if past_length else 'texts'}; one call has to read a whole prefix, because all of its "
            "tokens see each other"
        )


def padding_only(config: VanillaTransformerDecoderConfig) -> int | None:
    """§3.1: the id that marks padding by itself; texts of GPT-2 are padded with the token that ends them.

    Args:
        config: gives `pad_token_id` and `eos_token_id`.

    Returns:
        The id of `<pad>`; None if there is none, or if it also ends a text.
    """
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    return None if config.pad_token_id in ends else config.pad_token_id


__all__ = ["VanillaTransformerDecoderModel", "VanillaTransformerDecoderPreTrainedModel"]
