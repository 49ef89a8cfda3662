"""The base class of encoder, decoder and whole model: flags for transformers, initial weights and embeddings."""

import copy
from dataclasses import fields
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import logging

from .attention_features import RandomFeatures
from .configuration_vanilla_transformer import VanillaTransformerConfig
from .embeddings import with_scale
from .norms import ScaleNorm
from .positions import LearnedPositions

logger = logging.get_logger(__name__)

# The class that each Auto class finds in a folder that contains the code, by file and name.
AUTO_MAP = {
    "AutoConfig": "configuration_vanilla_transformer.VanillaTransformerConfig",
    "AutoModel": "modeling_vanilla_transformer.VanillaTransformerModel",
    "AutoModelForSeq2SeqLM": "modeling_vanilla_transformer.VanillaTransformerForConditionalGeneration",
}

# The pipeline that `pipeline()` finds there, by task.
CUSTOM_PIPELINES = {
    "translation": {"impl": "translation_pipeline.TranslationPipeline", "pt": ["AutoModelForSeq2SeqLM"]}
}


class _Limit(NamedTuple):
    """The attention implementations that support a model; the field that leaves out the others, and why."""

    allowed: tuple[str, ...]
    field: str
    why: str


def _limit(config: VanillaTransformerConfig) -> _Limit | None:
    """None if all attention implementations support the model."""
    if config.attention == "linear":
        return _Limit(("eager", "sdpa"), "attention", "its sums are not computed by an attention kernel")
    if config.position_encoding == "shaw_relative":
        return _Limit(("eager",), "position_encoding", "its value term needs the attention weights")
    if config.position_encoding in ("alibi", "t5_relative"):
        return _Limit(("eager", "sdpa"), "position_encoding", "it needs an additive mask for each head")
    if config.attention_pattern != "full":
        why = "it needs a mask of which key each query may attend to"
        return _Limit(("eager", "sdpa", "flex_attention"), "attention_pattern", why)
    return None


def require_kind(model: "VanillaTransformerPreTrainedModel", config: VanillaTransformerConfig) -> None:
    """Refuses to build a model from the config of another kind of model.

    Args:
        model: of the kind that its `config_class` describes.
        config: the config.

    Raises:
        ValueError: it has not all of that kind's fields, or another value of one that is always the same.
    """
    kind = model.config_class
    has_other_value = any(getattr(config, name, None) != value for name, value in kind.fixed_fields.items())
    if has_other_value or not all(hasattr(config, field.name) for field in fields(kind)):
        raise ValueError(
            f"a {type(model).__name__} is built from a {kind.__name__}, and not from a {type(config).__name__}"
        )


class VanillaTransformerPreTrainedModel(PreTrainedModel):
    """The base class of every model of this package; its flags tell transformers what it supports.

    Initial weights: projections are Xavier-uniform with zero biases; embeddings and learned positions are normal with
    standard deviation d_model^-0.5. Embeddings times sqrt(d_model) (§3.4) thus have unit variance, similar to the
    sinusoids (about 1/2), and the logits of the tied projection also start near unit variance.
    """

    config: VanillaTransformerConfig
    config_class = VanillaTransformerConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True
    # What a folder with the code of such a model says about it, for the Auto classes and for `pipeline()`.
    auto_map_with_code: ClassVar[dict[str, str]] = AUTO_MAP
    pipelines_with_code: ClassVar[dict[str, Any]] = CUSTOM_PIPELINES

    def __init__(self, config: VanillaTransformerConfig, *args: Any, **kwargs: Any) -> None:
        config.validate_architecture()  # again, because setting a field checks only its type
        limit = _limit(config)
        self._supports_flash_attn = limit is None
        self._supports_flex_attn = limit is None or "flex_attention" in limit.allowed
        self._supports_sdpa = limit is None or "sdpa" in limit.allowed
        super().__init__(config, *args, **kwargs)

    def _check_and_adjust_attn_implementation(self, attn_implementation: str | None, *args: Any, **kwargs: Any) -> str:
        # transformers asks here for whatever is requested, at the beginning and later.
        limit = _limit(self.config)
        if limit is not None and attn_implementation is not None and attn_implementation not in limit.allowed:
            raise ValueError(
                f"`attn_implementation`={attn_implementation!r} does not work with `{limit.field}`="
                f"{getattr(self.config, limit.field)!r}: {limit.why}; allowed: "
                f"{' or '.join(map(repr, limit.allowed))}"
            )
        return super()._check_and_adjust_attn_implementation(attn_implementation, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # transformers calls this for each module with parameters; `init` skips loaded parameters.
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=self.config.d_model**-0.5)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.RMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, ScaleNorm):
            init.constant_(module.length, module.initial_length)
        elif isinstance(module, RandomFeatures):
            init.copy_(module.directions, module.drawn())

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the token embedding; the new one multiplies by sqrt(d_model) (§3.4) as the old one does.

        Args:
            value: a plain `nn.Embedding`, whose parameter is used; a `TokenEmbedding`; or a module that wraps one.

        Raises:
            ValueError: embeddings are scaled, and one of another class has no `embed_scale`.
        """
        self.embed_tokens = with_scale(value, self.config)

    def get_position_embeddings(self) -> LearnedPositions | tuple[LearnedPositions, ...]:
        """Table 3 row E: the learned positions; in a whole model, those of encoder and decoder.

        Raises:
            ValueError: the positions are not learned.
        """
        learned = tuple(part for part in self.modules() if isinstance(part, LearnedPositions))
        if not learned:
            raise ValueError(
                f"positions are not learned here (`position_encoding`={self.config.position_encoding!r}), so there is "
                "no table of them, and no longest length"
            )
        return learned if len(learned) > 1 else learned[0]

    @torch.no_grad()
    def resize_position_embeddings(self, new_num_position_embeddings: int) -> None:
        """Table 3 row E: changes the number of learned positions; added ones start as in a new model.

        Args:
            new_num_position_embeddings: number of positions on each side.

        Raises:
            ValueError: the positions are not learned, the number is less than 1, or this is only one stack.
        """
        if new_num_position_embeddings < 1:
            raise ValueError(f"`new_num_position_embeddings`={new_num_position_embeddings}; allowed: at least 1")
        tables = self.get_position_embeddings()
        if not isinstance(tables, tuple) and not self.config.is_encoder_decoder:
            tables = (tables,)
        if not isinstance(tables, tuple):
            raise ValueError(
                f"the {type(self).__name__} has one of the two tables of a model, whose config is for both; call "
                "`resize_position_embeddings` of the whole model"
            )
        for table in tables:
            old = table.weight
            new = old.new_empty(new_num_position_embeddings, old.shape[1]).normal_(std=self.config.d_model**-0.5)
            kept = min(len(old), len(new))
            new[:kept] = old[:kept]
            table.weight = nn.Parameter(new, requires_grad=old.requires_grad)
            table.num_embeddings = new_num_position_embeddings
        self.config.num_learned_positions = new_num_position_embeddings  # the stacks share this config

    def _resize_token_embeddings(
        self, new_num_tokens: int, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Module:
        if new_num_tokens is not None and self.config.source_vocab_size is not None:
            raise ValueError(
                f"this model has two vocabularies (`source_vocab_size`={self.config.source_vocab_size}, `vocab_size`="
                f"{self.config.vocab_size}), and it cannot be said which one to resize to {new_num_tokens} tokens; "
                "resizing needs a model with one"
            )
        embeddings = super()._resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        if not self.config.is_encoder_decoder:
            return embeddings
        decoder, size = self.get_decoder(), embeddings.weight.shape[0]
        # transformers resizes the encoder's embedding and the projection, and ties the weights afterwards.
        if decoder is not self and self.config.tie_word_embeddings:
            decoder.embed_tokens.num_embeddings = size
        elif decoder is not self:
            decoder.embed_tokens = self._get_resized_embeddings(decoder.embed_tokens, size, mean_resizing=mean_resizing)
        return embeddings

    @torch.no_grad()
    def untie_embeddings(self) -> None:
        """§3.4 undone: gives embeddings and projection separate, at first equal matrices, and updates the config.

        Needed before the matrices may differ, for example before merging adapters of one of them.
        """
        seen = set()
        for part in self.modules():
            weight = part._parameters.get("weight")
            if weight is not None and id(weight) in seen:
                part.weight = nn.Parameter(weight.clone(), requires_grad=weight.requires_grad)
            seen.add(id(weight))
        self.config.tie_word_embeddings = False
        for part in self.modules():
            if isinstance(part, PreTrainedModel):
                part.all_tied_weights_keys = {}

    def _is_partly_tied(self) -> bool:
        """Whether the tying of embeddings contradicts the config, as after merging peft's `modules_to_save`."""
        weights = dict(self.named_parameters(remove_duplicate=False))
        for pair in (self._tied_weights_keys or {}).items():
            first, second = (weights.get(name) for name in pair)
            # Equal copies count as tied, as they come from placing a model on devices; meta weights have no values.
            if first is second and first is not None and not self.config.tie_word_embeddings:
                return True
            if self.config.tie_word_embeddings and _differ(first, second):
                return True
        return False

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Saves config and weights; after `register_for_auto_class()` also the code of all classes and the pipeline.

        transformers itself would name only the registered classes, although the code of all is there. Partly tied
        embeddings are untied with a warning, because loading ties all of them or none.

        Args:
            *args: as in transformers.
            **kwargs: likewise.
        """
        if self._is_partly_tied():
            logger.warning("not all embeddings are tied any more, so they are saved with tie_word_embeddings=False")
            self.untie_embeddings()
        if self._auto_class is not None:
            self.config.auto_map = {**self.auto_map_with_code, **(getattr(self.config, "auto_map", None) or {})}
            if self.pipelines_with_code:
                self.config.custom_pipelines = copy.deepcopy(self.pipelines_with_code)  # transformers changes it
        else:  # these may come from the loaded folder, and would name code that is not saved now
            for name in ("auto_map", "custom_pipelines"):
                if hasattr(self.config, name):
                    delattr(self.config, name)
        super().save_pretrained(*args, **kwargs)

    @property
    def dummy_inputs(self) -> dict[str, Any]:
        """A batch of two short sources, the second padded, and targets if there are any, for tools that trace it."""
        encoder: Any = getattr(self.base_model, "encoder", self)
        if not self.config.is_encoder_decoder:
            return encoder.dummy_source
        target = torch.full((2, 4), self.config.vocab_size - 1, device=self.device)
        return {**encoder.dummy_source, "decoder_input_ids": target}

    @property
    def dummy_source(self) -> dict[str, Any]:
        """What of `dummy_inputs` the encoder reads."""
        pad = self.config.pad_token_id or 0
        eos = self.config.eos_token_id if isinstance(self.config.eos_token_id, int) else 2
        top = min(self.config.vocab_size, self.config.source_vocab_size or self.config.vocab_size) - 1
        ids = torch.tensor([[top, top, top, eos], [top, eos, pad, pad]], device=self.device)
        mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]], device=self.device)
        return {"input_ids": ids, "attention_mask": mask}


def _differ(first: torch.Tensor | None, second: torch.Tensor | None) -> bool:
    if first is None or second is None or first is second:
        return False
    is_comparable = first.device == second.device and first.device.type != "meta" and first.shape == second.shape
    return is_comparable and type(first) is type(second) is nn.Parameter and not torch.equal(first, second)
