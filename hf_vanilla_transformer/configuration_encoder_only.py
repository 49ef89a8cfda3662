"""§3.1, the left half of Figure 1 as a model of its own: its configuration, for models such as BERT."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict

from .configuration_vanilla_transformer import VanillaTransformerConfig

Pooling = Literal["mean", "first", "first_tanh"]
MaskedLMHead = Literal["plain", "transform"]


@strict
class VanillaTransformerEncoderConfig(VanillaTransformerConfig):
    """Configuration of an encoder alone (§3.1); the defaults are the encoder of the paper's base model.

    It has the fields of `VanillaTransformerConfig` and those below. Fields of a decoder, and those of two vocabularies,
    have one value each, which means "none"; another is refused. `num_hidden_layers` is `num_encoder_layers` here.

    Args:
        type_vocab_size: number of token types, for each of which a learned vector is added to the embeddings: BERT's
            first and second sentence. 0 means none, as in the paper.
        masked_lm_head: of masked language models: "plain" is the pre-softmax projection of §3.4; "transform" is BERT's,
            with one more linear layer, activation and norm before it.
        pooling: of models that classify sequences, which vector the classifier reads: the "mean" of the states of all
            tokens, the state of the "first" token, or "first_tanh", BERT's: that state through a linear layer and tanh.
        classifier_dropout: dropout before a classifier; None means `dropout`.
        num_decoder_layers: always 0.
        source_vocab_size: always None.
        source_kind: always "tokens".
        cross_attention: always "softmax".
        decoder_start_token_id: always None.
        use_cache: always False.
        is_encoder_decoder: always False.

    Raises:
        huggingface_hub.errors.StrictDataclassError: as in `VanillaTransformerConfig`.
        ValueError: an argument begins with `decoder_`; there is no decoder.

    Example:
        >>> config = VanillaTransformerEncoderConfig.from_preset("tiny", vocab_size=8000)
        >>> (config.d_model, config.num_hidden_layers, config.is_encoder_decoder)
        (128, 4, False)
    """

    model_type = "vanilla_transformer_encoder"
    attribute_map: ClassVar[dict[str, str]] = {
        **{
            alias: field
            for alias, field in VanillaTransformerConfig.attribute_map.items()
            if not alias.startswith("decoder_")
        },
        "num_hidden_layers": "num_encoder_layers",
    }
    fixed_fields: ClassVar[dict[str, Any]] = {
        "is_encoder_decoder": False,
        "num_decoder_layers": 0,
        "source_vocab_size": None,
        "source_kind": "tokens",
        "cross_attention": "softmax",
        "decoder_start_token_id": None,
        "use_cache": False,
    }

    type_vocab_size: int = 0
    masked_lm_head: MaskedLMHead = "plain"
    pooling: Pooling = "mean"
    classifier_dropout: float | int | None = None
    num_decoder_layers: int = 0
    decoder_start_token_id: int | None = None
    use_cache: bool = False
    is_encoder_decoder: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if of_decoder := [name for name in kwargs if name.startswith("decoder_")]:
            raise ValueError(f"`{of_decoder[0]}`={kwargs[of_decoder[0]]!r}: a {type(self).__name__} has no decoder")
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Refuses what `VanillaTransformerConfig` refuses, and values of the additional fields that are out of range.

        Raises:
            ValueError: a value is refused; the message names the field, the value and what is allowed.
        """
        super().validate_architecture()
        self._require("type_vocab_size", self.type_vocab_size >= 0, "an integer of at least 0")
        rate = self.classifier_dropout
        self._require(
            "classifier_dropout", rate is None or 0 <= rate < 1, "a number from 0 up to but not including 1, or None"
        )


__all__ = ["VanillaTransformerEncoderConfig"]
