"""The shape of the model: §3 of the paper as one strict configuration, with Table 3 as presets."""

import difflib
import math
from dataclasses import fields
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.utils import logging

from .configuration_presets import PRESETS
from .configuration_variants import check_variants, fill_in

logger = logging.get_logger(__name__)

NormPosition = Literal["post", "pre", "sandwich"]
PositionEncoding = Literal["sinusoidal", "learned", "none", "rotary", "alibi", "t5_relative", "shaw_relative"]
Attention = Literal["softmax", "linear"]
FeatureMap = Literal["elu", "relu", "random", "cosine_sine"]
AttentionPattern = Literal["full", "local", "strided", "local_global", "random"]
Norm = Literal["layer_norm", "rms_norm", "scale_norm"]
FeedForwardKind = Literal["plain", "gated"]
SourceKind = Literal["tokens", "frames", "patches"]
SinusoidLayout = Literal["interleaved", "concatenated", "concatenated_tensor2tensor"]

# What acts in training only.
TRAINING_RATES = ("dropout", "attention_dropout", "activation_dropout", "word_dropout", "label_smoothing")

# Keywords of old configs that resemble fields but are not fields.
_OF_TRANSFORMERS = {
    *("cls_token_id", "mask_token_id", "sep_token_id", "unk_token_id"),
    *("tie_encoder_decoder", "add_cross_attention"),
}


@strict
class VanillaTransformerConfig(PreTrainedConfig):
    """Configuration of the model (§3, §5.4, Table 3); the defaults are the paper's base model.

    Args:
        vocab_size: V, size of the vocabulary shared by source and target (§5.1: about 37,000 for English-German).
        source_vocab_size: size of the source's vocabulary if it is separate; `vocab_size` is then the target's, and ids
            such as `pad_token_id` mean the same in both. None is the paper's one vocabulary for both (§5.1).
        source_kind: what the encoder reads: "tokens" (§5.1); "frames", vectors of numbers as of a time series or a
            spectrogram, called `input_features`; or "patches" of images, called `pixel_values`. Targets are tokens.
        source_width: features of a frame, or channels of an image; required for them and refused with tokens.
        source_stride: of "frames": how many of them make one position of the encoder, None means 1; of "patches": the
            side of a patch in pixels, required. Refused with tokens.
        d_model: D, width of every layer's output, of the embeddings and of the residual stream (§3.1). Even, if
            positions are sinusoids, which come in pairs of sine and cosine.
        num_encoder_layers: N of the encoder, identical layers of self-attention and feed-forward (§3.1).
        num_decoder_layers: N of the decoder, whose layers also attend over the encoder's output (§3.1).
        num_heads: h, parallel attention heads (§3.2.2).
        d_k: width of the queries and keys of one head; None means d_model / num_heads (§3.2.2).
        d_v: width of the values of one head; None means d_model / num_heads (§3.2.2).
        num_key_value_heads: heads of keys and values, each shared by a group of `num_heads / num_key_value_heads` heads
            of queries: grouped-query attention; with 1, multi-query attention. None means one for each head (§3.2.2).
        d_ff: F, inner width of the position-wise feed-forward network (§3.3).
        feed_forward: "plain" is Equation 2 (§3.3); "gated" is (activation(x W) * x V) W_2 without biases: GLU with the
            `activation_function` "sigmoid", ReGLU with "relu", GEGLU with "gelu", SwiGLU with "silu". It has three
            matrices, so two thirds of a d_ff give as many parameters.
        dropout: P_drop, on the output of each sub-layer before it is added and normalised, and on the sums of
            embeddings and positions (§5.4).
        attention_dropout: dropout on the attention weights. The paper has none.
        activation_dropout: dropout on the inner layer of the feed-forward network. The paper has none.
        word_dropout: the probability that training hides a whole embedding, of a source token or of one that the
            decoder reads, and leaves its position (Gal and Ghahramani, 2016). The paper has none.
        label_smoothing: epsilon_ls of the training loss, over the whole vocabulary (§5.4). In eval mode the model's
            loss is not smoothed.
        activation_function: "relu" (max(0, x) of Equation 2) or any other name in `transformers.activations.ACT2FN`.
        norm: "layer_norm" (§3.1), "rms_norm" (without mean and bias), or "scale_norm" (one learned length).
        norm_position: "post" is the paper's LayerNorm(x + Sublayer(x)) (§3.1); "pre" is x + Sublayer(LayerNorm(x))
            with one more norm at the end of each stack; "sandwich" (Ding et al., 2021) also norms what is added.
        final_norm: whether each stack ends with one more norm. None means all but post-norm ones; True after post-norm
            layers matches `torch.nn.Transformer`.
        position_encoding: added to embeddings: "sinusoidal" (§3.5), "learned" (Table 3 row E), or "none". Inside
            self-attention: "rotary" turns queries and keys (Su et al., 2021), "alibi" lowers scores by distance (Press
            et al., 2022), "t5_relative" has a learned bias for each bucket of distances (Raffel et al., 2020), and
            "shaw_relative" learned vectors for each distance (Shaw et al., 2018), which needs eager attention.
        sinusoid_layout: order of the sines and cosines of §3.5 in the vector. "interleaved" is the formula of
            the paper: sines in the even dimensions, cosines in the odd. "concatenated" has the same frequencies,
            first all sines, then all cosines (MarianMT). "concatenated_tensor2tensor" also spaces the frequencies
            so that the last one is exactly 1/10000, as in the authors' tensor2tensor, fairseq and Marian.
            With rotary positions, "interleaved" turns neighbouring dimensions (the paper's), "concatenated" one of the
            first half with one of the second (LLaMA).
        position_offset: number of the first position, for sinusoids. The paper's presumably start at 0; fairseq's
            start at the id of `<pad>` plus one.
        scale_embeddings: whether token embeddings are multiplied by sqrt(d_model), as in the paper (§3.4).
        num_learned_positions: number of learned positions; required for them and refused otherwise, because sinusoids
            have no maximum length. `max_position_embeddings`, transformers' name, is an alias; a config without a limit
            has no attribute of that name, because programs compare it with numbers.
        rotary_base: base of the rotary angles; None means 10,000, as in §3.5. Refused with other positions.
        max_relative_distance: "t5_relative": distances from here on share a bucket, None means 128. "shaw_relative": k,
            beyond which distances are clipped, None means 16. Refused with other positions.
        num_relative_buckets: buckets of "t5_relative"; None means 32. Refused with other positions.
        embedding_norm: whether a norm follows the sums of embeddings and positions, as in BERT and BART. The paper has
            none.
        attention_pattern: which keys self-attention sees, by position: "full" (§3.2.3); "local" (§4, "restricted"),
            those at most `attention_window` away; "strided" (Child et al., 2019), also those a multiple of
            `attention_stride` away; "local_global" (Beltagy et al., 2020), also every `attention_stride`-th, which
            itself sees all; "random" (Zaheer et al., 2020), also those linked by a random graph.
        attention_window: positions to either side of a query; required for all patterns but "full", refused with it.
        attention_stride: of "strided" and "local_global"; required there and refused elsewhere.
        num_random_keys: of "random": with how many earlier positions, at most, each is linked; None means 3.
        attention_seed: of the random graph; None means 0.
        attention: of self-attentions: "softmax" is Equation 1 (§3.2.1); "linear" has features of queries and keys in
            its place, and takes time linear in the length.
        cross_attention: of the decoder's attention over the encoder's output: "softmax" (§3.2.3) or "linear", likewise.
            Decoding then keeps sums over the source, of the same size for any length, in place of keys and values.
        feature_map: of "linear", and one for both; None means "elu", elu(x) + 1 (Katharopoulos et al., 2020). "relu" is
            max(0, x). "random" estimates the softmax by positive orthogonal random features (FAVOR+, Choromanski et
            al., 2021), "cosine_sine" by random Fourier features (Rahimi and Recht, 2007). Refused without "linear".
        num_random_features: directions of the last two, the more the better the estimate; None means 128. Each gives
            one feature, or a cosine and a sine. Refused with other maps.
        feature_seed: of these directions, which are saved with the weights; None means 0.
        attention_bias: whether the four attention projections have biases. The paper's have none (§3.2.2).
        final_logits_bias: whether the pre-softmax projection has a bias. The paper's has none (§3.4).
        layer_norm_eps: added to the variance in layer normalisation (to the mean square in `rms_norm`; least length in
            `scale_norm`). The paper gives no value; 1e-6 is that of the
            authors' code.
        bos_token_id: `<s>`.
        pad_token_id: `<pad>`; source positions that hold it are masked.
        eos_token_id: `</s>`, which ends source and target.
        decoder_start_token_id: the first token of the decoder's input; the "shifted right" of Figure 1.
        tie_word_embeddings: whether both embeddings and the pre-softmax projection share one matrix (§3.4). With a
            `source_vocab_size`, the encoder's embedding always has its own matrix, and only the other two share one;
            likewise where the encoder reads no tokens.
        use_cache: whether the decoder uses a key/value cache in generation.
        is_encoder_decoder: always True; transformers requires it.

    Raises:
        huggingface_hub.errors.StrictDataclassError: a value has the wrong type, is out of range, is not one of
            the allowed ones, or contradicts another; the message names the field, the value and what is allowed.

    Example:
        >>> config = VanillaTransformerConfig.from_preset("tiny", vocab_size=8000)
        >>> (config.d_model, config.d_k, config.norm_position)
        (128, 32, 'post')
    """

    model_type = "vanilla_transformer"
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "cache",
        "past_key_values",
        "encoder_last_hidden_state",
        "nll_loss",
    ]
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "intermediate_size": "d_ff",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_decoder_layers",  # the decoder's, because transformers sizes caches by it
        "head_dim": "d_k",
        "max_position_embeddings": "num_learned_positions",
        "encoder_layers": "num_encoder_layers",
        "decoder_layers": "num_decoder_layers",
        "encoder_attention_heads": "num_heads",
        "decoder_attention_heads": "num_heads",
        "encoder_ffn_dim": "d_ff",
        "decoder_ffn_dim": "d_ff",
    }

    # Fields that every model of this kind has the same value of: a kind without a part has none of its fields.
    fixed_fields: ClassVar[dict[str, Any]] = {"is_encoder_decoder": True}

    vocab_size: int = 37000
    source_vocab_size: int | None = None
    source_kind: SourceKind = "tokens"
    source_width: int | None = None
    source_stride: int | None = None
    d_model: int = 512
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    num_heads: int = 8
    d_k: int | None = None
    d_v: int | None = None
    num_key_value_heads: int | None = None
    d_ff: int = 2048
    feed_forward: FeedForwardKind = "plain"
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.0
    activation_dropout: float | int = 0.0
    word_dropout: float | int = 0.0
    label_smoothing: float | int = 0.1
    activation_function: str = "relu"
    norm: Norm = "layer_norm"
    norm_position: NormPosition = "post"
    final_norm: bool | None = None
    position_encoding: PositionEncoding = "sinusoidal"
    sinusoid_layout: SinusoidLayout = "interleaved"
    position_offset: int = 0
    scale_embeddings: bool = True
    num_learned_positions: int | None = None
    embedding_norm: bool = False
    attention: Attention = "softmax"
    cross_attention: Attention = "softmax"
    feature_map: FeatureMap | None = None
    num_random_features: int | None = None
    feature_seed: int | None = None
    attention_pattern: AttentionPattern = "full"
    attention_window: int | None = None
    attention_stride: int | None = None
    num_random_keys: int | None = None
    attention_seed: int | None = None
    rotary_base: float | int | None = None
    max_relative_distance: int | None = None
    num_relative_buckets: int | None = None
    attention_bias: bool = False
    final_logits_bias: bool = False
    layer_norm_eps: float = 1e-6
    bos_token_id: int | None = 0
    pad_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 0
    tie_word_embeddings: bool = True
    use_cache: bool = True
    is_encoder_decoder: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        # Aliases come first, because fields are derived from them below.
        said: dict[str, Any] = {}
        for alias, field in self.attribute_map.items():
            if alias in kwargs:
                value = kwargs.pop(alias)
                if (own := getattr(self, field)) != getattr(type(self), field, None):
                    said.setdefault(field, own)
                if said.setdefault(field, value) != value:
                    raise ValueError(
                        f"`{alias}`={value!r} contradicts `{field}`={said[field]!r}, of which it is another name; "
                        "allowed: one of the two, or equal values"
                    )
                setattr(self, field, value)
        if not __name__.startswith("transformers_modules."):
            # A model folder with code names a pipeline for programs without this package. Here it is not needed, and
            # transformers would ask the user to trust its code.
            kwargs.pop("custom_pipelines", None)
        self._warn_about_misspelled_fields(kwargs)
        if self.num_heads > 0 and self.d_model % self.num_heads == 0:
            self.d_k = self.d_model // self.num_heads if self.d_k is None else self.d_k
            self.d_v = self.d_model // self.num_heads if self.d_v is None else self.d_v
        self.num_key_value_heads = self.num_heads if self.num_key_value_heads is None else self.num_key_value_heads
        fill_in(self)
        super().__post_init__(**kwargs)

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if value is None and name == "max_position_embeddings":
            raise AttributeError(
                f"there is no `max_position_embeddings` with `position_encoding`={self.position_encoding!r}, which has "
                "no longest length"
            )
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.attribute_map:
            setattr(self, self.attribute_map[name], value)  # from the outermost method, which checks types
        else:
            own = vars(self)
            if name == "num_heads" and own.get("num_heads") == own.get("num_key_value_heads") is not None:
                super().__setattr__("num_key_value_heads", value)  # one for each head, as before
            super().__setattr__(name, value)

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "VanillaTransformerConfig":
        """Builds the configuration of one row of Table 3, or of the `tiny` model.

        Args:
            name: a key of `PRESETS`: `base`, `big`, `tiny`, or a row of Table 3 such as `table3_C_N2`.
            **overrides: fields that differ from the preset, by their own names or their aliases in `attribute_map`.

        Returns:
            A new configuration.

        Raises:
            ValueError: there is no preset of that name; the message lists them.
        """
        if name not in PRESETS:
            raise ValueError(
                f"there is no preset {name!r};{_did_you_mean(name, PRESETS)} allowed: {', '.join(PRESETS)}"
            )
        overrides = {cls.attribute_map.get(field, field): value for field, value in overrides.items()}
        preset = {field: value for field, value in PRESETS[name].items() if field not in cls.fixed_fields}
        return cls(**{**preset, **overrides})

    def validate_architecture(self) -> None:
        """Refuses values that no model can have, and values that contradict each other.

        Raises:
            ValueError: a value is refused; the message names the field, the value and what is allowed.
        """
        fill_in(self)  # again, for what was chosen since the config was made
        self._check_sizes()
        self._check_choices()

    def _check_sizes(self) -> None:
        for field in ("vocab_size", "d_model", "num_encoder_layers", "num_decoder_layers", "num_heads", "d_ff"):
            self._require(field, field in self.fixed_fields or getattr(self, field) >= 1, "an integer of at least 1")
        if self.d_k is None or self.d_v is None:
            raise ValueError(
                f"`d_model`={self.d_model} cannot be divided among `num_heads`={self.num_heads} heads; "
                "allowed: a multiple of `num_heads`, or any `d_model` with both `d_k` and `d_v` given"
            )
        for field in ("d_k", "d_v"):
            self._require(field, getattr(self, field) >= 1, "an integer of at least 1")
        groups = self.num_key_value_heads or 0
        if groups < 1 or self.num_heads % groups:
            raise ValueError(
                f"`num_key_value_heads`={groups} does not divide `num_heads`={self.num_heads}; allowed: a divisor "
                "of it, such as an equal number"
            )
        source_rows = self.source_vocab_size
        self._require("source_vocab_size", source_rows is None or source_rows >= 1, "an integer of at least 1, or None")
        self._require("position_offset", self.position_offset >= 0, "an integer of at least 0")
        for field in TRAINING_RATES:
            self._require(field, 0 <= getattr(self, field) < 1, "a number from 0 up to but not including 1")
        self._require("layer_norm_eps", 0 < self.layer_norm_eps < math.inf, "a finite number above 0")
        self._require("eos_token_id", self.eos_token_id != [], "an id, a list of at least one id, or None")
        for field in ("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id"):
            ids = getattr(self, field)
            for token_id in ids if isinstance(ids, list) else [ids]:
                # A source is padded, and ends with </s>, by the same ids.
                is_of_sources = field in ("pad_token_id", "eos_token_id") and source_rows is not None
                for size in ("vocab_size", "source_vocab_size") if is_of_sources else ("vocab_size",):
                    if token_id is not None and not 0 <= token_id < getattr(self, size):
                        raise ValueError(
                            f"`{field}`={token_id} is not in the vocabulary; allowed: 0 to {getattr(self, size) - 1} "
                            f"(`{size}`={getattr(self, size)}), or None"
                        )

    def _check_choices(self) -> None:
        for field, value in self.fixed_fields.items():
            self._require(field, getattr(self, field) == value, f"{value} in a {type(self).__name__}")
        if self.activation_function not in ACT2FN:
            names = ", ".join(sorted(ACT2FN))
            hint = _did_you_mean(self.activation_function, ACT2FN)
            raise ValueError(f"`activation_function`={self.activation_function!r} is not known;{hint} allowed: {names}")
        if self.position_encoding == "sinusoidal" and self.d_model % 2:
            raise ValueError(
                f"`d_model`={self.d_model} is odd, but `position_encoding`='sinusoidal' pairs a sine with a cosine; "
                "allowed: an even `d_model`, or another `position_encoding`, such as 'learned' or 'none'"
            )
        if self.sinusoid_layout == "concatenated_tensor2tensor" and self.d_model < 4:
            raise ValueError(
                f"`d_model`={self.d_model} has a single frequency, which `sinusoid_layout`="
                "'concatenated_tensor2tensor' cannot space; allowed: a `d_model` of at least 4"
            )
        if self.position_offset and self.position_encoding != "sinusoidal":
            raise ValueError(
                f"`position_offset`={self.position_offset} moves nothing with `position_encoding`="
                f"{self.position_encoding!r}; allowed: 0, or `position_encoding`='sinusoidal'"
            )
        check_variants(self)
        learned = self.position_encoding == "learned"
        if learned and (self.num_learned_positions is None or self.num_learned_positions < 1):
            raise ValueError(
                f"`num_learned_positions`={self.num_learned_positions}, but `position_encoding`='learned' needs to "
                "know how many positions to learn; allowed: an integer of at least 1, such as 1024"
            )
        if not learned and self.num_learned_positions is not None:
            raise ValueError(
                f"`num_learned_positions`={self.num_learned_positions} limits nothing with `position_encoding`="
                f"{self.position_encoding!r}, which has no longest length; allowed: None"
            )

    def _require(self, field: str, satisfied: bool, allowed: str) -> None:
        if not satisfied:
            raise ValueError(f"`{field}`={getattr(self, field)} is not allowed; allowed: {allowed}")

    def _warn_about_misspelled_fields(self, unknown: dict[str, Any]) -> None:
        # transformers keeps any extra keyword as an attribute, so a misspelt field would silently do nothing.
        known = [field.name for field in fields(self) if not field.name.startswith("_")] + list(self.attribute_map)
        others = {field.name: kind for kind in VanillaTransformerConfig.__subclasses__() for field in fields(kind)}
        for name in unknown:
            if name in others and name not in known:
                logger.warning(
                    f"`{name}` is a field of {others[name].__name__}, and changes nothing in a {type(self).__name__}"
                )
            elif (
                not name.startswith("_")
                and name not in _OF_TRANSFORMERS
                and (match := _did_you_mean(name, known, cutoff=0.8))
            ):
                logger.warning(f"`{name}` is not a field of {type(self).__name__} and changes nothing;{match}")


def _did_you_mean(name: str, known: Any, cutoff: float = 0.6) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f" did you mean `{matches[0]}`?" if matches else ""


__all__ = ["PRESETS", "TRAINING_RATES", "VanillaTransformerConfig"]
