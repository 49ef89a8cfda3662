"""§3.1, the left half of Figure 1 as a model of its own: states of tokens, masked words, and classes."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers.modeling_outputs import (
    BaseModelOutput,
    MaskedLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils.generic import can_return_tuple

from .configuration_encoder_only import VanillaTransformerEncoderConfig
from .dropout import Dropout
from .encoder import Encoder, derive_attention_mask
from .encoder_heads import POOLINGS, prediction_transform, token_types
from .modeling_compatibility import strict_forward
from .modeling_loss import mean_token_loss
from .modeling_pretrained import VanillaTransformerPreTrainedModel, require_kind

# The class that each Auto class finds in a folder that contains the code, by file and name.
ENCODER_AUTO_MAP = {
    "AutoConfig": "configuration_encoder_only.VanillaTransformerEncoderConfig",
    "AutoModel": "modeling_encoder_only.VanillaTransformerEncoderModel",
    "AutoModelForMaskedLM": "modeling_encoder_only.VanillaTransformerForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_encoder_only.VanillaTransformerForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_encoder_only.VanillaTransformerForTokenClassification",
}


class VanillaTransformerEncoderPreTrainedModel(VanillaTransformerPreTrainedModel):
    """§3.1: the base class of the models that are an encoder and a head; weights start as in the whole Transformer."""

    config: VanillaTransformerEncoderConfig
    config_class = VanillaTransformerEncoderConfig
    auto_map_with_code: ClassVar[dict[str, str]] = ENCODER_AUTO_MAP
    pipelines_with_code: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: VanillaTransformerEncoderConfig, *args: Any, **kwargs: Any) -> None:
        require_kind(self, config)
        super().__init__(config, *args, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        """Returns the token embedding (§3.4)."""
        return self.base_model.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embedding; `tie_weights()` then gives its matrix to a tied projection.

        Args:
            value: as in `VanillaTransformerPreTrainedModel.set_input_embeddings`.
        """
        self.base_model.encoder.set_input_embeddings(value)


class VanillaTransformerEncoderModel(VanillaTransformerEncoderPreTrainedModel):
    """§3.1: the encoder of Figure 1, which returns the state of each token; BERT without heads.

    Its weights have the names of a translation model's encoder, so either loads from a checkpoint of the other.

    Args:
        config: the model's config.
    """

    def __init__(self, config: VanillaTransformerEncoderConfig) -> None:
        super().__init__(config)
        self.embed_token_types = token_types(config)
        self.encoder = Encoder(config)
        self.post_init()

    @strict_forward
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Encodes a batch of texts.

        Args:
            input_ids: (B, S) tokens; or `inputs_embeds`.
            attention_mask: (B, S), non-zero for tokens and 0 for padding, on either side. By default it is derived
                from the `<pad>` tokens in `input_ids`.
            token_type_ids: (B, S) types below `type_vocab_size`; None means 0 everywhere. Without types in the config,
                they are ignored with one warning.
            inputs_embeds: (B, S, D) in place of `input_ids`, as `get_input_embeddings()(input_ids)` returns them.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`; `kernel_options` of flex attention.

        Returns:
            `last_hidden_state` (B, S, D), and the requested outputs.

        Raises:
            ValueError: neither or both of `input_ids` and `inputs_embeds` were given, or a shape differs.
            TypeError: an argument is unknown.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give the model either `input_ids` or `inputs_embeds`, and not both")
        if inputs_embeds is None:
            attention_mask = derive_attention_mask(input_ids, attention_mask, self.config.pad_token_id)
            inputs_embeds = self.encoder.embed_tokens(input_ids)
        return self.encoder(
            inputs_embeds=self.embed_token_types(inputs_embeds, token_type_ids),
            attention_mask=attention_mask,
            return_dict=True,
            **kwargs,
        )


@dataclass
class VanillaTransformerMaskedLMOutput(MaskedLMOutput):
    """Output of `VanillaTransformerForMaskedLM`: transformers' output and `nll_loss`.

    Args:
        nll_loss: scalar, the loss without label smoothing (§5.4), detached; exp(nll_loss) is the perplexity. None
            without labels; divided like `loss`. In eval mode `loss` is the same number.
    """

    nll_loss: torch.Tensor | None = None


class VanillaTransformerForMaskedLM(VanillaTransformerEncoderPreTrainedModel):
    """§3.1 and §3.4: an encoder that predicts masked tokens by the pre-softmax projection (BERT's first objective).

    With `tie_word_embeddings`, the projection shares the embedding matrix (§3.4).

    Args:
        config: the model's config; `masked_lm_head` says what stands before the projection.

    Example:
        >>> config = VanillaTransformerEncoderConfig.from_preset("tiny", vocab_size=100)
        >>> model = VanillaTransformerForMaskedLM(config)
        >>> text = torch.tensor([[11, 4, 13, 2]])
        >>> loss = model(input_ids=text, labels=torch.tensor([[-100, 12, -100, -100]])).loss
    """

    _tied_weights_keys = {"lm_head.weight": "model.encoder.embed_tokens.weight"}
    accepts_loss_kwargs = True  # the Trainer then passes `num_items_in_batch`

    def __init__(self, config: VanillaTransformerEncoderConfig) -> None:
        super().__init__(config)
        self.model = VanillaTransformerEncoderModel(config)
        self.transform = prediction_transform(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=config.final_logits_bias)
        self.post_init()

    @strict_forward
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_logits: bool | None = None,
        **kwargs: Any,
    ) -> VanillaTransformerMaskedLMOutput:
        """Predicts the tokens at all positions, and computes the loss at those that have labels.

        Args:
            input_ids: (B, S) tokens, some of them masked; this and the next three arguments are as in
                `VanillaTransformerEncoderModel`.
            attention_mask: (B, S).
            token_type_ids: (B, S).
            inputs_embeds: (B, S, D).
            labels: (B, S) token ids where a token is to be predicted, -100 elsewhere.
            num_items_in_batch: divisor of the summed loss: the number of labels in the whole batch, if this is one of
                several micro-batches or processes. By default, the number of labels in this call.
            return_logits: whether to compute the (B, S, V) logits. The default is True, except in training with
                labels: then the loss is computed without ever holding them.
            **kwargs: as in `VanillaTransformerEncoderModel`.

        Returns:
            `loss`, `logits` (B, S, V) or None, `nll_loss`, and the requested outputs. Losses are in nats per label, and
            0 without any label. In train mode `loss` is smoothed by the config's `label_smoothing`; in eval mode not.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
            return_dict=True,
            **kwargs,
        )
        hidden_states = self.transform(outputs.last_hidden_state)
        if return_logits is None:
            return_logits = labels is None or not self.training
        logits = self.lm_head(hidden_states) if return_logits else None
        loss = nll_loss = None
        if labels is not None:
            epsilon = self.config.label_smoothing if self.training else 0.0
            loss, nll_loss = mean_token_loss(self.lm_head, hidden_states, labels, logits, epsilon, num_items_in_batch)
        return VanillaTransformerMaskedLMOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            nll_loss=nll_loss,
        )


class _Classifier(VanillaTransformerEncoderPreTrainedModel):
    """An encoder, dropout and a linear layer from D to `num_labels`."""

    def __init__(self, config: VanillaTransformerEncoderConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = VanillaTransformerEncoderModel(config)
        rate = config.dropout if config.classifier_dropout is None else config.classifier_dropout
        self.dropout = Dropout(rate)
        self.classifier = nn.Linear(config.d_model, config.num_labels)


class VanillaTransformerForSequenceClassification(_Classifier):
    """§3.1: an encoder that sorts texts into classes, or gives each a number or several.

    The loss is that of transformers' models of this kind: `problem_type` "single_label_classification" (cross-entropy),
    "multi_label_classification" (binary cross-entropy), or "regression" (squared error); None chooses by the number and
    type of the labels.

    Args:
        config: the model's config; `num_labels`, `problem_type`, `pooling` and `classifier_dropout` are for this class.
    """

    # The loss of every problem type is a mean, so the Trainer divides by the number of accumulated micro-batches.
    accepts_loss_kwargs = False

    def __init__(self, config: VanillaTransformerEncoderConfig) -> None:
        super().__init__(config)
        self.pooling = POOLINGS[config.pooling](config)
        self.post_init()

    @strict_forward
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Classifies a batch of texts.

        Args:
            input_ids: (B, S); this and the next three arguments are as in `VanillaTransformerEncoderModel`.
            attention_mask: (B, S).
            token_type_ids: (B, S).
            inputs_embeds: (B, S, D).
            labels: (B) integers below `num_labels`; numbers (B) or (B, `num_labels`) for a regression; (B,
                `num_labels`) zeros and ones in floating point for several classes at once.
            **kwargs: as in `VanillaTransformerEncoderModel`.

        Returns:
            `loss` if there are labels, `logits` (B, `num_labels`), and the requested outputs.

        Raises:
            ValueError: the mask is not (B, S), and so does not say which states are of tokens.
        """
        attention_mask = derive_attention_mask(input_ids, attention_mask, self.config.pad_token_id)
        if attention_mask is not None and attention_mask.dim() != 2:
            raise ValueError(f"`attention_mask` has the shape {tuple(attention_mask.shape)}; pooling needs (B, S)")
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
            return_dict=True,
            **kwargs,
        )
        states = outputs.last_hidden_state
        is_token = torch.ones_like(states[..., 0], dtype=torch.bool) if attention_mask is None else attention_mask != 0
        logits = self.classifier(self.dropout(self.pooling(states, is_token)))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class VanillaTransformerForTokenClassification(_Classifier):
    """§3.1: an encoder that sorts each token into one of `num_labels` classes.

    Args:
        config: the model's config; `num_labels` and `classifier_dropout` are for this class.
    """

    accepts_loss_kwargs = True  # the Trainer then passes `num_items_in_batch`

    def __init__(self, config: VanillaTransformerEncoderConfig) -> None:
        super().__init__(config)
        self.post_init()

    @strict_forward
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """Classifies the tokens of a batch of texts.

        Args:
            input_ids: (B, S); this and the next three arguments are as in `VanillaTransformerEncoderModel`.
            attention_mask: (B, S).
            token_type_ids: (B, S).
            inputs_embeds: (B, S, D).
            labels: (B, S) integers below `num_labels`, -100 where nothing is to be predicted.
            num_items_in_batch: as in `VanillaTransformerForMaskedLM`.
            **kwargs: as in `VanillaTransformerEncoderModel`.

        Returns:
            `loss` if there are labels, in nats per label and never smoothed; `logits` (B, S, `num_labels`), and the
            requested outputs.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
            return_dict=True,
            **kwargs,
        )
        hidden_states = self.dropout(outputs.last_hidden_state)
        logits = self.classifier(hidden_states)
        loss = None
        if labels is not None:
            loss, _ = mean_token_loss(self.classifier, hidden_states, labels, logits, 0.0, num_items_in_batch)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = [
    "VanillaTransformerEncoderModel",
    "VanillaTransformerEncoderPreTrainedModel",
    "VanillaTransformerForMaskedLM",
    "VanillaTransformerForSequenceClassification",
    "VanillaTransformerForTokenClassification",
    "VanillaTransformerMaskedLMOutput",
]
