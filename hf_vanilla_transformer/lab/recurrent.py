"""Before the Transformer: recurrent encoder-decoders that train by the same Trainer and decode by the same search.

Fixed vector (Sutskever et al. 2014, Cho et al. 2014), additive attention (Bahdanau et al. 2015), multiplicative
attention (Luong et al. 2015), and the residual stack of GNMT (Wu et al. 2016), on torch's own recurrent layers.
Importing this module registers them with transformers' Auto classes.
"""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationConfig, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import can_return_tuple

from ..decoding import PaperGenerationMixin
from ..decoding_config import PAPER_DECODING
from ..encoder import derive_attention_mask, refuse_other_shape
from ..loss import IGNORED_LABEL, label_smoothed_cross_entropy, projected_label_smoothed_cross_entropy
from ..modeling_compatibility import CACHE, cache_of_generation, strict_forward, with_cache_named
from ..modeling_vanilla_transformer import VanillaTransformerSeq2SeqLMOutput
from ..translation_scoring import shift_right
from .recurrent_configuration import RecurrentConfig
from .recurrent_stacks import (
    RecurrentCache,
    RecurrentDecoder,
    RecurrentEncoder,
    RecurrentEncoderOutput,
    with_forget_bias,
)


class RecurrentForConditionalGeneration(PreTrainedModel, PaperGenerationMixin):
    """A recurrent encoder-decoder with projection, label-smoothed loss and `generate()`.

    It takes what `VanillaTransformerForConditionalGeneration` takes, and gives what that gives, so that what trains,
    decodes and evaluates the one does so with the other. The `generation_config` of a new model decodes as in §6.1.

    Initial weights: recurrent layers are uniform as torch makes them, but for the forget gates of LSTMs, which the
    config's `forget_bias` opens; projections are Xavier-uniform; embeddings are
    normal with standard deviation d_model^-0.5, and multiplied by sqrt(d_model) where they are looked up, so that one
    matrix can serve embeddings and projection.

    Args:
        config: the model's config.

    Example:
        >>> model = RecurrentForConditionalGeneration(RecurrentConfig.from_preset("recurrent_additive", vocab_size=100))
        >>> source = torch.tensor([[11, 12, 13, 2]])
        >>> loss = model(input_ids=source, labels=torch.tensor([[21, 22, 2]])).loss
        >>> translation = model.eval().generate(source, max_new_tokens=5)
    """

    config: RecurrentConfig
    config_class = RecurrentConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _is_stateful = True  # generate() then refuses drafts, after which a state would have to go back
    _no_split_modules = ["RecurrentEncoder", "RecurrentDecoder"]
    _tied_weights_keys = {
        "decoder.embed_tokens.weight": "encoder.embed_tokens.weight",
        "lm_head.weight": "encoder.embed_tokens.weight",
    }
    accepts_loss_kwargs = True  # the Trainer then passes `num_items_in_batch`

    def __init__(self, config: RecurrentConfig) -> None:
        config.validate_architecture()  # again, because setting a field checks only its type
        super().__init__(config)
        self.encoder = RecurrentEncoder(config)
        self.decoder = RecurrentDecoder(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        # transformers would not load our own fields into a generation_config that it takes for a copy of the config.
        self.generation_config._from_model_config = False
        for name, value in PAPER_DECODING.items():
            setattr(self.generation_config, name, value)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.RNNBase | nn.RNNCellBase):
            bound = module.hidden_size**-0.5
            for weight in module.parameters(recurse=False):
                init.uniform_(weight, -bound, bound)
            if isinstance(module, nn.LSTM | nn.LSTMCell):
                forget_bias = 1.0 if self.config.forget_bias is None else float(self.config.forget_bias)
                for name, bias in module.named_parameters(recurse=False):
                    if name.startswith("bias"):  # of which torch has two, that are added up
                        init.copy_(bias, with_forget_bias(bias, forget_bias if name.startswith("bias_ih") else 0.0))
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=self.config.d_model**-0.5)

    def get_encoder(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Returns the encoder."""
        return self.encoder

    def get_input_embeddings(self) -> nn.Module:
        """Returns the encoder's token embedding; if embeddings are tied, all parts share its matrix."""
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: Any) -> None:
        """Replaces the encoder's token embedding; `tie_weights()` then gives its matrix to decoder and projection.

        Args:
            value: an embedding; of a plain one, the matrix is taken.
        """
        self.encoder.embed_tokens.weight = value.weight
        self.encoder.embed_tokens.num_embeddings = len(value.weight)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Changes the number of tokens, as in transformers.

        Args:
            *args: as in transformers.
            **kwargs: likewise.

        Returns:
            The encoder's embedding.

        Raises:
            ValueError: the embeddings are not tied.
        """
        if not self.config.tie_word_embeddings:
            raise ValueError("`tie_word_embeddings`=False: only a recurrent model with one matrix can be resized")
        embedding = super().resize_token_embeddings(*args, **kwargs)
        self.decoder.embed_tokens.num_embeddings = len(self.decoder.embed_tokens.weight)
        return embedding

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
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        return_logits: bool | None = None,
        r_drop: float = 0.0,
        **kwargs: Any,
    ) -> VanillaTransformerSeq2SeqLMOutput:
        """Predicts each next target token, and computes the loss if there are labels.

        Args:
            input_ids: (B, S) source tokens; or `encoder_outputs`.
            attention_mask: (B, S), non-zero for tokens and 0 for padding, on either side; derived from the `<pad>`
                tokens in `input_ids` by default.
            decoder_input_ids: (B, T) target tokens, shifted right; by default, made from `labels`. With a cache, only
                the new ones.
            decoder_attention_mask: (B, cached + T); padding on the right has no effect, and before a token is refused.
            encoder_outputs: a `RecurrentEncoderOutput` of an earlier call of the encoder.
            cache: a `RecurrentCache`, the state after earlier tokens; continued in place and returned.
            labels: (B, T) target tokens that end with `</s>`, -100 where nothing is to be predicted.
            use_cache: whether to return a cache; None means False with labels, and otherwise what the config says.
            logits_to_keep: the number of last positions to compute logits for; 0 for all.
            num_items_in_batch: divisor of the summed loss; by default, the number of labels in this call.
            return_logits: whether to compute the (B, T, V) logits. The default is True, except in training with labels.
            r_drop: alpha of R-Drop, as in `VanillaTransformerForConditionalGeneration`.
            **kwargs: `output_attentions` and `return_dict`.

        Returns:
            `loss`, `nll_loss`, `logits`, `cross_attentions` (one, (B, 1, T, S)) on request, and the cache. In train
            mode `loss` is smoothed by the config's `label_smoothing`; in eval mode it is not.

        Raises:
            ValueError: source or target is missing, a target is padded before a token, or outputs were requested that
                this model does not have.
            TypeError: an argument is unknown.
        """
        if kwargs.get("output_attentions") and self.config.attention == "none":
            raise ValueError("output_attentions=True: a model with `attention`='none' attends to nothing")
        if r_drop and (labels is None or return_logits):
            raise ValueError(f"r_drop={r_drop} is part of a loss without logits; give `labels`, and no `return_logits`")
        if labels is not None:
            decoder_input_ids = shift_right(self, labels) if decoder_input_ids is None else decoder_input_ids
            use_cache = bool(use_cache)
        if decoder_input_ids is None:
            raise ValueError("give the decoder `decoder_input_ids` or `labels`")
        use_cache = self.config.use_cache if use_cache is None else use_cache
        attention_mask = derive_attention_mask(input_ids, attention_mask, self.config.pad_token_id)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids, attention_mask, output_hidden_states=kwargs.get("output_hidden_states")
            )
        state = _state(cache, encoder_outputs)
        _check_target_mask(decoder_attention_mask, state.length, decoder_input_ids)
        hidden, weights = self.decoder(decoder_input_ids, encoder_outputs.last_hidden_state, attention_mask, state)

        if return_logits is None:
            return_logits = labels is None or not self.training
        logits = self.lm_head(hidden[:, -logits_to_keep:]) if return_logits else None
        loss = nll_loss = None
        if labels is not None:
            epsilon = self.config.label_smoothing if self.training else 0.0
            if logits is not None and logits_to_keep == 0:
                loss, nll_loss = label_smoothed_cross_entropy(logits, labels, epsilon)
            else:
                weight = self.lm_head.weight
                loss, nll_loss = projected_label_smoothed_cross_entropy(hidden, weight, labels, epsilon, r_drop)
            divisor = labels.ne(IGNORED_LABEL).sum() if num_items_in_batch is None else num_items_in_batch
            divisor = torch.as_tensor(divisor, device=loss.device).clamp(min=1)
            loss, nll_loss = loss / divisor, nll_loss / divisor
        attended = kwargs.get("output_attentions") and weights is not None
        return VanillaTransformerSeq2SeqLMOutput(
            loss=loss,
            logits=logits,
            **{CACHE: state if use_cache else None},
            cross_attentions=(weights.unsqueeze(1),) if attended else None,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            nll_loss=nll_loss,
        )

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """The decoder's input while it learns to predict `labels`.

        Args:
            labels: (B, T) token ids, -100 where nothing is to be predicted.

        Returns:
            (B, T): the start token, then all labels but the last; `<pad>` in place of -100.
        """
        return shift_right(self, labels)

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, next_sequence_length: int | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Leaves out the tokens that the state has read."""
        kwargs = with_cache_named(CACHE, kwargs, "prepare_inputs_for_generation()")
        if (cache := cache_of_generation(kwargs)) is not None:
            next_sequence_length = input_ids.shape[1] - cache.get_seq_length()
        return super().prepare_inputs_for_generation(input_ids, next_sequence_length=next_sequence_length, **kwargs)

    def _prepare_cache_for_generation(
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        if generation_config.cache_implementation is not None:
            raise ValueError(
                f"cache_implementation={generation_config.cache_implementation!r}: a recurrent model keeps one state, "
                "of which there is one kind; leave it out"
            )
        if generation_config.use_cache and cache_of_generation(model_kwargs) is None:
            model_kwargs[CACHE] = RecurrentCache()


def _state(cache: Cache | None, encoder_outputs: Any) -> RecurrentCache:
    """The state to go on from: that of a cache, or the encoder's final one."""
    state = RecurrentCache() if cache is None else cache
    if not isinstance(state, RecurrentCache):
        raise ValueError(f"`cache` is a {type(state).__name__}, but a recurrent model continues a RecurrentCache")
    if state.hidden is None:
        if not isinstance(encoder_outputs, RecurrentEncoderOutput) or encoder_outputs.final_hidden is None:
            raise ValueError(
                f"`encoder_outputs` is a {type(encoder_outputs).__name__} without the encoder's final state; give the "
                "RecurrentEncoderOutput that the encoder returns"
            )
        state.hidden, state.cell = encoder_outputs.final_hidden, encoder_outputs.final_cell
    return state


def _check_target_mask(mask: torch.Tensor | None, length: int, input_ids: torch.Tensor) -> None:
    """Refuses padding before a token: the state would have read it."""
    if mask is None:
        return
    refuse_other_shape("decoder_attention_mask", mask, (len(input_ids), length + input_ids.shape[1]), "the target")
    if bool((mask.ne(0).int().diff(dim=1) > 0).any()) or bool(mask[:, 0].eq(0).any()):
        raise ValueError(
            "`decoder_attention_mask` has padding before a token, which a recurrent decoder would read; pad targets on "
            "the right, or decode targets of one length at a time"
        )


AutoConfig.register(RecurrentConfig.model_type, RecurrentConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(RecurrentConfig, RecurrentForConditionalGeneration, exist_ok=True)
