"""Before the Transformer: the shape of a recurrent encoder-decoder, as one strict configuration with presets."""

import math
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

CellKind = Literal["rnn", "gru", "lstm"]
AttentionKind = Literal["none", "additive", "multiplicative"]
StackKind = Literal["plain", "gnmt"]

# Each model as its paper wired it, but for one. Keys are fields of the config that differ from the defaults.
RECURRENT_PRESETS: dict[str, dict[str, Any]] = {
    "recurrent": {},  # Sutskever et al. (2014), Cho et al. (2014): one vector for the whole source
    "recurrent_additive": {"attention": "additive"},  # Bahdanau et al. (2015)
    "recurrent_multiplicative": {"attention": "multiplicative"},  # Luong et al. (2015)
    # Luong's scores in Bahdanau's wiring, which no paper has: only the score differs from `recurrent_additive`.
    "recurrent_multiplicative_fed": {"attention": "multiplicative", "attention_feeds_back": True},
    "recurrent_gnmt": {"attention": "additive", "stack": "gnmt", "num_layers": 4},  # Wu et al. (2016)
}


@strict
class RecurrentConfig(PreTrainedConfig):
    """Configuration of a recurrent encoder-decoder.

    Encoder and decoder have equally many layers, since each layer of the decoder starts with the final state of the
    same layer of the encoder.

    Args:
        vocab_size: V, size of the vocabulary that source and target share.
        d_model: D, width of embeddings, hidden states and attention.
        num_layers: of the encoder, and of the decoder.
        cell: "rnn" (Elman, tanh), "gru" (Cho et al. 2014) or "lstm" (Hochreiter and Schmidhuber 1997), of torch.
        attention: how a decoder state s scores an encoder state h. "none" passes on the encoder's final state only;
            "additive" is v^T tanh(W h + U s + b) (Bahdanau et al. 2015); "multiplicative" is (W h)^T s (Luong et al.
            2015, "general"). The form (V h)^T (W s) of lectures is the same function of h and s.
        attention_feeds_back: whose state looks at the source. True: the previous state of the lowest layer, and what it
            finds is input of that layer, which therefore goes step by step (Bahdanau et al. 2015). False: the current
            state of the top layer, and what it finds is input of no layer (Luong et al. 2015, without input feeding).
            None for what the paper of the attention does, and True with `stack` "gnmt".
        stack: "plain", or "gnmt" (Wu et al. 2016): residual connections from the third layer on, a bidirectional layer
            only at the bottom of the encoder, and attention by the previous state of the lowest decoder layer, whose
            result is input of all decoder layers. It needs an attention, of either kind.
        forget_bias: initial bias of the forget gates of an "lstm" (Gers et al. 2000; Jozefowicz et al. 2015 recommend 1
            or more); 0 is about what torch has. None for 1; other cells have no such gate.
        bidirectional: whether the encoder also reads from right to left, with D / 2 units in each direction.
        dropout: on embeddings, between layers and before the projection.
        label_smoothing: epsilon of the training loss; as in our Transformer.
        bos_token_id: `<s>`.
        pad_token_id: `<pad>`; source positions that hold it are skipped.
        eos_token_id: `</s>`, which ends source and target.
        decoder_start_token_id: the first token of the decoder's input.
        tie_word_embeddings: whether both embeddings and the projection share one matrix.
        use_cache: whether generation keeps the state between steps.
        is_encoder_decoder: always True; transformers requires it.

    Raises:
        huggingface_hub.errors.StrictDataclassError: a value has the wrong type, is out of range, or contradicts
            another; the message names the field, the value and what is allowed.

    Example:
        >>> config = RecurrentConfig.from_preset("recurrent_additive", vocab_size=8000, cell="gru")
        >>> (config.attention, config.cell, config.hidden_size)
        ('additive', 'gru', 512)
    """

    model_type = "recurrent_seq2seq"
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "cache",
        "past_key_values",
        "encoder_last_hidden_state",
        "nll_loss",
    ]
    attribute_map: ClassVar[dict[str, str]] = {"hidden_size": "d_model", "num_hidden_layers": "num_layers"}

    vocab_size: int = 37000
    d_model: int = 512
    num_layers: int = 2
    cell: CellKind = "lstm"
    attention: AttentionKind = "none"
    attention_feeds_back: bool | None = None
    stack: StackKind = "plain"
    forget_bias: float | int | None = None
    bidirectional: bool = True
    dropout: float | int = 0.1
    label_smoothing: float | int = 0.1
    bos_token_id: int | None = 0
    pad_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 0
    tie_word_embeddings: bool = True
    use_cache: bool = True
    is_encoder_decoder: bool = True

    @property
    def feeds_back(self) -> bool:
        """Whether what attention finds is input of the lowest decoder layer, which then has to go step by step."""
        if self.attention_feeds_back is not None:
            return self.attention_feeds_back
        return self.stack == "gnmt" or self.attention == "additive"

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "RecurrentConfig":
        """Builds the configuration of one of the historical models.

        Args:
            name: a key of `RECURRENT_PRESETS`.
            **overrides: fields that differ from the preset.

        Returns:
            A new configuration.

        Raises:
            ValueError: there is no preset of that name; the message lists them.
        """
        if name not in RECURRENT_PRESETS:
            raise ValueError(f"there is no preset {name!r}; allowed: {', '.join(RECURRENT_PRESETS)}")
        overrides = {cls.attribute_map.get(field, field): value for field, value in overrides.items()}
        return cls(**{**RECURRENT_PRESETS[name], **overrides})

    def validate_architecture(self) -> None:
        """Refuses values that no model can have, and values that contradict each other.

        Raises:
            ValueError: a value is refused; the message names the field, the value and what is allowed.
        """
        for field in ("vocab_size", "d_model", "num_layers"):
            self._require(field, getattr(self, field) >= 1, "an integer of at least 1")
        for field in ("dropout", "label_smoothing"):
            self._require(field, 0 <= getattr(self, field) < 1, "a number from 0 up to but not including 1")
        self._require("is_encoder_decoder", self.is_encoder_decoder, "True")
        if self.bidirectional:
            even = "an even number with `bidirectional`=True, which halves it"
            self._require("d_model", self.d_model % 2 == 0, even)
        if self.stack == "gnmt":
            self._require("attention", self.attention != "none", "additive or multiplicative with `stack`='gnmt'")
            self._require("attention_feeds_back", self.feeds_back, "True or None with `stack`='gnmt'")
        if self.attention == "none":
            self._require("attention_feeds_back", self.attention_feeds_back is None, "None with `attention`='none'")
        if self.cell != "lstm":
            self._require("forget_bias", self.forget_bias is None, f"None with `cell`={self.cell!r}")
        if self.forget_bias is not None:
            self._require("forget_bias", math.isfinite(self.forget_bias), "a finite number")
        for field in ("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id"):
            ids = getattr(self, field)
            for token_id in ids if isinstance(ids, list) else [ids]:
                known = token_id is None or 0 <= token_id < self.vocab_size
                self._require(field, known, f"0 to {self.vocab_size - 1} (`vocab_size`={self.vocab_size}), or None")

    def _require(self, field: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ValueError(f"`{field}`={getattr(self, field)!r} is not allowed; allowed: {allowed}")
