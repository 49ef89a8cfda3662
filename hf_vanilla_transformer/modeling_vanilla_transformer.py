"""Figure 1 as a whole: the encoder-decoder model, and the model with its head for training and generation."""

from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig
from transformers.cache_utils import Cache
from transformers.masking_utils import create_masks_for_generate
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_vanilla_transformer import VanillaTransformerConfig
from .decoder import Decoder
from .decoder_stack import kept_positions
from .decoding import PaperGenerationMixin
from .decoding_config import PAPER_DECODING
from .decoding_self_check import check_untested_transformers
from .encoder import derive_attention_mask
from .loss_distillation import Teachers
from .modeling_compatibility import CACHE, cache_for_masks, strict_forward, with_cache_named
from .modeling_loss import mean_token_loss
from .modeling_outputs import VanillaTransformerSeq2SeqLMOutput, VanillaTransformerSeq2SeqModelOutput
from .modeling_pretrained import VanillaTransformerPreTrainedModel, require_kind
from .positions import position_ids_from_mask
from .source_inputs import ENCODERS, encoded_source, source_of
from .translation_pipeline import TranslationPipeline  # so that its code is copied with the model's
from .translation_scoring import shifted_labels


class VanillaTransformerModel(VanillaTransformerPreTrainedModel):
    """§3, Figure 1 without the pre-softmax projection: an encoder, and a decoder that attends over its output.

    With `tie_word_embeddings` (§3.4), both stacks share one embedding matrix, which is stored once, as the encoder's.
    Two vocabularies have two matrices. An encoder of frames or patches has none; see `source_inputs`.

    Args:
        config: the model's config.
    """

    _tied_weights_keys = {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight"}

    def __init__(self, config: VanillaTransformerConfig) -> None:
        require_kind(self, config)
        super().__init__(config)
        if config.source_vocab_size is not None or config.source_kind != "tokens":
            self._tied_weights_keys = {}
        self.encoder = ENCODERS[config.source_kind](config)
        self.main_input_name = self.encoder.main_input_name
        self.decoder = Decoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Returns the encoder's token embedding, or the decoder's where the encoder reads no tokens.

        If embeddings are tied, all parts share its matrix.
        """
        return self._first_of_tokens.embed_tokens

    @property
    def _first_of_tokens(self) -> Any:
        return self.encoder if self.config.source_kind == "tokens" else self.decoder

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces what `get_input_embeddings` returns; `tie_weights()` then gives its matrix to the decoder.

        Args:
            value: as in `VanillaTransformerPreTrainedModel.set_input_embeddings`.
        """
        self._first_of_tokens.set_input_embeddings(value)

    @strict_forward
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        decoder_position_ids: torch.Tensor | None = None,
        use_cache: bool | None = None,
        input_features: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> VanillaTransformerSeq2SeqModelOutput:
        """Encodes the source and decodes the target.

        Args:
            input_ids: (B, S) source tokens; or `inputs_embeds`, or `encoder_outputs`.
            attention_mask: (B, S), non-zero for tokens and 0 for padding, on either side. By default it is derived
                from the `<pad>` tokens in `input_ids`.
            decoder_input_ids: (B, T) target tokens, shifted right; or `decoder_inputs_embeds`. With a cache, only the
                new ones.
            decoder_attention_mask: (B, cached + T), non-zero for target tokens; needed only if a target is padded
                on its left, because no position sees those to its right.
            encoder_outputs: output of an earlier call of the encoder, in place of the source; may be a tuple.
            cache: key/value cache of earlier positions; extended in place and returned. `past_key_values`, its name
                in older versions of transformers, works as well.
            inputs_embeds: (B, S, D) in place of `input_ids`, as `get_input_embeddings()(input_ids)` returns them.
            decoder_inputs_embeds: (B, T, D), likewise.
            decoder_position_ids: (B, T); by default, positions count the preceding tokens.
            use_cache: whether to return a cache; None leaves it to the config.
            input_features: (B, N, W) frames in place of `input_ids`, if the model reads them; with an `attention_mask`
                (B, N) where there is padding. `FrameEncoder` says more.
            pixel_values: (B, C, height, width) images, likewise. `PatchEncoder` says more.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`; `kernel_options` of flex attention.
                Others are refused, except `token_type_ids`, which are ignored with one warning.

        Returns:
            `last_hidden_state` (B, T, D) of the decoder, `encoder_last_hidden_state` (B, S, D), and requested outputs.

        Raises:
            ValueError: source or target is missing, given twice, or of another kind than this model reads.
            TypeError: an argument is unknown.
        """
        source = source_of(
            self.main_input_name,
            {"input_ids": input_ids, "input_features": input_features, "pixel_values": pixel_values},
        )
        attention_mask = derive_attention_mask(input_ids, attention_mask, self.config.pad_token_id)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                **source, attention_mask=attention_mask, inputs_embeds=inputs_embeds, return_dict=True, **kwargs
            )
        encoder_outputs, attention_mask = encoded_source(encoder_outputs, attention_mask)
        decoder_outputs = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=attention_mask,
            cache=cache,
            inputs_embeds=decoder_inputs_embeds,
            position_ids=decoder_position_ids,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        return VanillaTransformerSeq2SeqModelOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            **{CACHE: decoder_outputs.get(CACHE)},
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )


class VanillaTransformerForConditionalGeneration(VanillaTransformerPreTrainedModel, PaperGenerationMixin):
    """Figure 1 as a whole: the model with pre-softmax projection (§3.4), label-smoothed loss (§5.4) and `generate()`.

    With `tie_word_embeddings`, the projection shares the embedding matrix (the target's, with two vocabularies). The
    `generation_config` of a new model decodes as in §6.1; `PaperGenerationMixin` documents its fields.

    Args:
        config: the model's config.

    Example:
        >>> config = VanillaTransformerConfig.from_preset("tiny", vocab_size=100)
        >>> model = VanillaTransformerForConditionalGeneration(config)
        >>> source = torch.tensor([[11, 12, 13, 2]])
        >>> loss = model(input_ids=source, labels=torch.tensor([[21, 22, 2]])).loss
        >>> translation = model.eval().generate(source, max_new_tokens=5)
    """

    # Repeats those of `VanillaTransformerModel`, because the Trainer reads only these.
    _tied_weights_keys = {
        "lm_head.weight": "model.encoder.embed_tokens.weight",
        "model.decoder.embed_tokens.weight": "model.encoder.embed_tokens.weight",
    }
    accepts_loss_kwargs = True  # the Trainer then passes `num_items_in_batch`

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        if config.source_vocab_size is not None or config.source_kind != "tokens":
            self._tied_weights_keys = {"lm_head.weight": "model.decoder.embed_tokens.weight"}
        self.model = VanillaTransformerModel(config)
        self.main_input_name = self.model.main_input_name
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=config.final_logits_bias)
        # transformers would not load our own fields into a generation_config that it takes for a copy of the config.
        self.generation_config._from_model_config = False
        for name, value in PAPER_DECODING.items():
            setattr(self.generation_config, name, value)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Returns the encoder's token embedding, or the decoder's where the encoder reads no tokens."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces what `get_input_embeddings` returns; `tie_weights()` then gives its matrix to the others.

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
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        decoder_position_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_logits: bool | None = None,
        r_drop: float = 0.0,
        teachers: Teachers | None = None,
        input_features: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> VanillaTransformerSeq2SeqLMOutput:
        """Predicts each next target token, and computes the loss if there are labels.

        Args:
            input_ids: (B, S); this and the next eight arguments are as in `VanillaTransformerModel`.
            attention_mask: (B, S).
            decoder_input_ids: (B, T); by default, made from `labels`.
            decoder_attention_mask: (B, cached + T).
            encoder_outputs: output of an earlier call of the encoder.
            cache: key/value cache of earlier positions.
            inputs_embeds: (B, S, D).
            decoder_inputs_embeds: (B, T, D).
            decoder_position_ids: (B, T).
            labels: (B, T) target tokens that end with `</s>`, -100 where nothing is to be predicted. The decoder
                reads them shifted right, unless `decoder_input_ids` are given.
            use_cache: whether to return a cache; None means False with labels, and otherwise what the config says.
            logits_to_keep: the number of last positions to compute logits for (0: all), or the positions: (N,) for all
                rows, (B, N) for each, or a boolean mask (B, T), which gives (N, V) logits. Affects only the returned
                logits, never the loss.
            num_items_in_batch: divisor of the summed loss: the number of labels in the whole batch, if this is one of
                several micro-batches or processes. By default, the number of labels in this call.
            return_logits: whether to compute the (B, T, V) logits. The default is True, except in training with
                labels: then the loss is computed without ever holding them. A custom `compute_loss` that reads
                `outputs.logits` needs True.
            r_drop: alpha of R-Drop (Liang et al. 2021). Unless it is 0, the second half of the batch repeats the first
                and is its second pass, with another dropout mask; and alpha times the divergence of the two passes'
                predictions is added to their mean loss.
            teachers: what trained models make of this batch, or with `r_drop` of its first half; a share of the loss is
                learned from their predictions (Kim & Rush 2016).
            input_features: (B, N, W).
            pixel_values: (B, C, height, width).
            **kwargs: as in `VanillaTransformerModel`.

        Returns:
            `loss`, `logits` (B, T, V) or None, `nll_loss`, and what `VanillaTransformerModel` returns except
            `last_hidden_state`. Losses are in nats per label, and 0 without any label. In train mode `loss` is smoothed
            by the config's `label_smoothing`; in eval mode it is not, so exp(loss) is the perplexity.

        Raises:
            ValueError: `r_drop` or `teachers` are given without labels, or `r_drop` with others than the same labels
                twice.
        """
        if labels is None and (r_drop or teachers is not None):
            what = f"r_drop={r_drop}" if r_drop else "`teachers`"
            raise ValueError(f"{what} is part of the loss, and has no effect without `labels`")
        if labels is not None:
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            use_cache = bool(use_cache)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            cache=cache,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            decoder_position_ids=decoder_position_ids,
            use_cache=use_cache,
            input_features=input_features,
            pixel_values=pixel_values,
            return_dict=True,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        if return_logits is None:
            return_logits = labels is None or not self.training
        logits = self.lm_head(kept_positions(hidden_states, logits_to_keep)) if return_logits else None

        loss = nll_loss = None
        if labels is not None:
            has_all_logits = logits is not None and isinstance(logits_to_keep, int) and logits_to_keep == 0
            epsilon = self.config.label_smoothing if self.training else 0.0
            all_logits = logits if has_all_logits else None
            loss, nll_loss = mean_token_loss(
                self.lm_head, hidden_states, labels, all_logits, epsilon, num_items_in_batch, r_drop, teachers
            )
        return VanillaTransformerSeq2SeqLMOutput(
            loss=loss,
            logits=logits,
            **{CACHE: outputs.get(CACHE)},
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
            nll_loss=nll_loss,
        )

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Figure 1 "Outputs (shifted right)": the decoder's input while it learns to predict `labels`.

        Args:
            labels: (B, T) token ids, -100 where nothing is to be predicted.

        Returns:
            (B, T): the start token, then all labels but the last; `<pad>` in place of -100.

        Raises:
            ValueError: the config has no `decoder_start_token_id` or no `pad_token_id`.
        """
        start, pad = self.config.decoder_start_token_id, self.config.pad_token_id
        if start is None or pad is None:
            raise ValueError(
                f"labels are shifted right with `decoder_start_token_id`={start} and `pad_token_id`={pad}; "
                "set both in the config"
            )
        return shifted_labels(labels, start, pad)

    def _prepare_generation_config(self, *args: Any, **kwargs: Any) -> tuple[GenerationConfig, dict[str, Any]]:
        check_untested_transformers(VanillaTransformerForConditionalGeneration)  # generate() calls this first
        return super()._prepare_generation_config(*args, **kwargs)

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, decoder_attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Adds the positions of left-padded target prefixes to transformers' preparation."""
        kwargs = with_cache_named(CACHE, kwargs, "prepare_inputs_for_generation()")
        if decoder_attention_mask is not None and decoder_attention_mask.dim() == 2:
            # With a static cache, transformers expands the mask, and positions can no longer be read from it.
            kwargs["decoder_position_ids"] = position_ids_from_mask(decoder_attention_mask)
        return super().prepare_inputs_for_generation(input_ids, decoder_attention_mask=decoder_attention_mask, **kwargs)

    def create_masks_for_generate(self, **kwargs: Any) -> Any:
        """Expands the mask for a static cache as transformers does, and so that flex attention may read it later."""
        kwargs[CACHE] = cache_for_masks(kwargs[CACHE], self.config._attn_implementation)
        return create_masks_for_generate(**kwargs)

    def _can_share_rows(self) -> bool:
        return _what_steps_leave_out(type(self), type(self.model)) == _AS_WRITTEN and super()._can_share_rows()


def _what_steps_leave_out(model: type, base: type) -> tuple[Any, ...]:
    """The methods that step-by-step decoding bypasses, because it calls the decoder and the projection directly."""
    return model.forward, model.prepare_inputs_for_generation, base.forward  # type: ignore[attr-defined]


_AS_WRITTEN = _what_steps_leave_out(VanillaTransformerForConditionalGeneration, VanillaTransformerModel)


__all__ = [
    "TranslationPipeline",
    "VanillaTransformerForConditionalGeneration",
    "VanillaTransformerModel",
    "VanillaTransformerPreTrainedModel",
    "VanillaTransformerSeq2SeqLMOutput",
    "VanillaTransformerSeq2SeqModelOutput",
]
