"""§3.1, the right half of Figure 1 without an encoder: the configuration of language models such as GPT."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict

from .configuration_vanilla_transformer import VanillaTransformerConfig

PrefixVisibility = Literal["causal", "bidirectional"]


@strict
class VanillaTransformerDecoderConfig(VanillaTransformerConfig):
    """Configuration of a decoder alone (§3.1); the defaults are the decoder of the paper's base model.

    It has the fields of `VanillaTransformerConfig` and the one below. Fields of an encoder, those of two vocabularies,
    and the start token (a text starts with its prompt) have one value each, which means "none"; another is refused.

    Args:
        prefix_visibility: which tokens those of a prefix see: "causal", themselves and earlier ones, as all others do;
            "bidirectional", all of the prefix (a prefix language model: Raffel et al., 2020). The argument
            `prefix_length` of the model says how long prefixes are; in `generate()`, the prompt is the prefix.
        num_encoder_layers: always 0.
        source_vocab_size: always None.
        source_kind: always "tokens".
        cross_attention: always "softmax".
        decoder_start_token_id: always None.
        is_encoder_decoder: always False.

    Raises:
        huggingface_hub.errors.StrictDataclassError: as in `VanillaTransformerConfig`.
        ValueError: an argument begins with `encoder_`; there is no encoder.

    Example:
        >>> config = VanillaTransformerDecoderConfig.from_preset("tiny", vocab_size=8000)
        >>> (config.d_model, config.num_hidden_layers, config.is_encoder_decoder)
        (128, 4, False)
    """

    model_type = "vanilla_transformer_decoder"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["cache", "past_key_values", "nll_loss"]
    attribute_map: ClassVar[dict[str, str]] = {
        alias: field
        for alias, field in VanillaTransformerConfig.attribute_map.items()
        if not alias.startswith("encoder_")
    }
    fixed_fields: ClassVar[dict[str, Any]] = {
        "is_encoder_decoder": False,
        "num_encoder_layers": 0,
        "source_vocab_size": None,
        "source_kind": "tokens",
        "cross_attention": "softmax",
        "decoder_start_token_id": None,
    }

    prefix_visibility: PrefixVisibility = "causal"
    num_encoder_layers: int = 0
    decoder_start_token_id: int | None = None
    is_encoder_decoder: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if of_encoder := [name for name in kwargs if name.startswith("encoder_")]:
            raise ValueError(f"`{of_encoder[0]}`={kwargs[of_encoder[0]]!r}: a {type(self).__name__} has no encoder")
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Refuses what `VanillaTransformerConfig` refuses, and prefixes that attention cannot tell from the rest.

        Raises:
            ValueError: a value is refused; the message names the field, the value and what is allowed.
        """
        super().validate_architecture()
        if self.prefix_visibility == "bidirectional" and self.attention == "linear":
            raise ValueError(
                "`prefix_visibility`='bidirectional' lets some queries see later keys, and `attention`='linear' has "
                "one sum for all; allowed: 'causal', or `attention`='softmax'"
            )


__all__ = ["VanillaTransformerDecoderConfig"]
