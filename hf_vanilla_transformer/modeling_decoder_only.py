"""§3.1, §3.4: the right half of Figure 1 as a language model, with its head for training and generation."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig
from transformers.cache_utils import Cache
from transformers.masking_utils import create_masks_for_generate
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple

from .configuration_decoder_only import VanillaTransformerDecoderConfig
from .decoder_only import (
    VanillaTransformerDecoderModel,
    VanillaTransformerDecoderPreTrainedModel,
    padding_only,
)
from .decoder_stack import kept_positions
from .decoding_prompts import PromptGenerationMixin
from .decoding_self_check import check_untested_transformers
from .encoder import derive_attention_mask
from .loss import IGNORED_LABEL
from .modeling_compatibility import (
    CACHE,
    AnswersToBothCacheNames,
    cache_for_masks,
    strict_forward,
    with_cache_named,
)
from .modeling_loss import mean_token_loss
from .positions import position_ids_from_mask


@dataclass
class VanillaTransformerCausalLMOutput(AnswersToBothCacheNames, CausalLMOutputWithPast):
    """Output of `VanillaTransformerForCausalLM`: transformers' output and `nll_loss`.

    Args:
        nll_loss: scalar, the loss without label smoothing (§5.4), detached; exp(nll_loss) is the perplexity. None
            without labels; divided like `loss`. In eval mode `loss` is the same number.
    """

    nll_loss: torch.Tensor | None = None


class VanillaTransformerForCausalLM(VanillaTransformerDecoderPreTrainedModel, PromptGenerationMixin):
    """§3.1: a decoder alone that predicts each next token (§3.4), with label-smoothed loss (§5.4) and `generate()`.

    With `tie_word_embeddings`, the projection shares the embedding matrix (§3.4). `PromptGenerationMixin` documents
    how prompts are continued.

    Args:
        config: the model's config.

    Example:
        >>> config = VanillaTransformerDecoderConfig.from_preset("tiny", vocab_size=100)
        >>> model = VanillaTransformerForCausalLM(config)
        >>> text = torch.tensor([[11, 12, 13, 2]])
        >>> loss = model(input_ids=text, labels=text).loss
        >>> continued = model.eval().generate(text[:, :2], max_new_tokens=5)
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    accepts_loss_kwargs = True  # the Trainer then passes `num_items_in_batch`

    def __init__(self, config: VanillaTransformerDecoderConfig) -> None:
        super().__init__(config)
        self.model = VanillaTransformerDecoderModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=config.final_logits_bias)
        # transformers would not load our own fields into a generation_config that it takes for a copy of the config.
        self.generation_config._from_model_config = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Returns the token embedding (§3.4)."""
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embedding; `tie_weights()` then gives its matrix to a tied projection.

        Args:
            value: as in `VanillaTransformerPreTrainedModel.set_input_embeddings`.
        """
        self.model.set_input_embeddings(value)

    @strict_forward
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        prefix_length: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        shift_labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_logits: bool | None = None,
        **kwargs: Any,
    ) -> VanillaTransformerCausalLMOutput:
        """Predicts each next token, and computes the loss if there are labels.

        Args:
            input_ids: (B, T); this and the next five arguments are as in `VanillaTransformerDecoderModel`.
            attention_mask: (B, cached + T).
            position_ids: (B, T).
            cache: key/value cache of earlier positions.
            inputs_embeds: (B, T, D).
            prefix_length: (B,).
            labels: (B, T) the tokens themselves, which are shifted here: the label at each position is what the
                position before it has to predict. -100 where nothing is to be predicted, such as at padding, and in a
                prefix whose tokens see each other.
            shift_labels: (B, T) labels that are shifted already: at each position what it has to predict. The loss is
                then theirs, and `labels` are not read.
            use_cache: whether to return a cache; None means False with labels, and otherwise what the config says.
            logits_to_keep: the number of last positions to compute logits for (0: all), or the positions: (N,) for all
                rows, (B, N) for each, or a boolean mask (B, T), which gives (N, V) logits. Affects only the returned
                logits, never the loss.
            num_items_in_batch: divisor of the summed loss: the number of labels in the whole batch, the first of each
                text not counted, if this is one of several micro-batches or processes. By default, that number in this
                call.
            return_logits: whether to compute the (B, T, V) logits. The default is True, except in training with
                labels: then the loss is computed without ever holding them.
            **kwargs: as in `VanillaTransformerDecoderModel`.

        Returns:
            `loss`, `logits` (B, T, V) or None, `nll_loss`, the cache, and the requested outputs. Losses are in nats per
            label, and 0 without any label. In train mode `loss` is smoothed by the config's `label_smoothing`; in eval
            mode it is not, so exp(loss) is the perplexity.

        Raises:
            ValueError: as in `VanillaTransformerDecoderModel`; or there are labels in a prefix whose tokens see each
                other.
            TypeError: an argument is unknown.
        """
        targets = shift_labels
        if targets is None and labels is not None:
            targets = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
        if targets is not None:
            use_cache = bool(use_cache)
            if prefix_length is not None and (cache is None or not cache.get_seq_length()):
                mask = attention_mask
                if position_ids is None:
                    mask = derive_attention_mask(input_ids, mask, padding_only(self.config))
                _refuse_labels_in_prefix(targets, prefix_length, mask)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            prefix_length=prefix_length,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        if return_logits is None:
            return_logits = targets is None or not self.training
        logits = self.lm_head(kept_positions(hidden_states, logits_to_keep)) if return_logits else None

        loss = nll_loss = None
        if targets is not None:
            has_all_logits = isinstance(logits_to_keep, int) and logits_to_keep == 0
            loss, nll_loss = mean_token_loss(
                self.lm_head,
                hidden_states,
                targets,
                logits if has_all_logits else None,
                self.config.label_smoothing if self.training else 0.0,
                num_items_in_batch,
            )
        return VanillaTransformerCausalLMOutput(
            loss=loss,
            logits=logits,
            **{CACHE: outputs.get(CACHE)},
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            nll_loss=nll_loss,
        )

    def _prepare_generation_config(self, *args: Any, **kwargs: Any) -> tuple[GenerationConfig, dict[str, Any]]:
        check_untested_transformers(VanillaTransformerForCausalLM)  # generate() calls this first
        return super()._prepare_generation_config(*args, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Adds the positions of padded prompts to transformers' preparation."""
        kwargs = with_cache_named(CACHE, kwargs, "prepare_inputs_for_generation()")
        if kwargs.get("position_ids") is None and attention_mask is not None and attention_mask.dim() == 2:
            # With a static cache, transformers expands the mask, and positions can no longer be read from it.
            kwargs["position_ids"] = position_ids_from_mask(attention_mask)
        return super().prepare_inputs_for_generation(
            input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
        )

    def create_masks_for_generate(self, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """Expands the mask for a static cache as transformers does; not for prefixes, for which `forward` does it.

        Args:
            attention_mask: (B, L), or None.
            **kwargs: as transformers passes them.

        Returns:
            The mask for `forward`.
        """
        if self.config.prefix_visibility == "bidirectional":
            return attention_mask
        kwargs[CACHE] = cache_for_masks(kwargs[CACHE], self.config._attn_implementation)
        return create_masks_for_generate(attention_mask=attention_mask, **kwargs)

    def _can_share_rows(self) -> bool:
        return _what_steps_leave_out(type(self)) == _AS_WRITTEN and super()._can_share_rows()


def _what_steps_leave_out(model: type) -> tuple[Any, ...]:
    """The methods that step-by-step decoding bypasses, because it calls the decoder and the projection directly."""
    return model.forward, model.prepare_inputs_for_generation  # type: ignore[attr-defined]


_AS_WRITTEN = _what_steps_leave_out(VanillaTransformerForCausalLM)


def _refuse_labels_in_prefix(
    targets: torch.Tensor, prefix_length: torch.Tensor, attention_mask: torch.Tensor | None
) -> None:
    if torch.compiler.is_compiling() or (attention_mask is not None and attention_mask.shape != targets.shape):
        return  # the model refuses such a mask
    is_token = torch.ones_like(targets, dtype=torch.bool) if attention_mask is None else attention_mask.ne(0)
    in_prefix = is_token & (position_ids_from_mask(is_token) < prefix_length.to(is_token.device).unsqueeze(1))
    predicted = in_prefix[:, 1:].to(targets.device)
    if bool((targets[:, :-1].ne(IGNORED_LABEL) & predicted).any()):
        raise ValueError(
            "there are `labels` in a prefix, whose tokens see each other and would be copied rather than predicted; "
            f"give the labels of the first `prefix_length` tokens the value {IGNORED_LABEL}"
        )


__all__ = ["VanillaTransformerDecoderModel", "VanillaTransformerForCausalLM"]
