"""Several checkpoints decode together: at each position, the average of their probabilities."""

import copy
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import DynamicCache, GenerationConfig
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from ..decoding import PaperGenerationMixin
from ..decoding_beam_search import Steps
from ..decoding_cache import DECODING_STATES
from ..decoding_self_check import check_untested_transformers
from ..modeling_compatibility import strict_forward
from ..modeling_pretrained import VanillaTransformerPreTrainedModel
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..modeling_views import is_changed
from ..translation_scoring import alignment_attention

# Fields of the config that give token ids their meaning.
_SAME = ("vocab_size", "pad_token_id", "eos_token_id", "decoder_start_token_id")


class EnsembleForConditionalGeneration(VanillaTransformerPreTrainedModel, PaperGenerationMixin):
    """Models of one vocabulary as one model: p(token) is the arithmetic mean of their probabilities for it.

    `generate()` takes the arguments that it takes for one model, except those of assisted decoding. The
    `generation_config` is a copy of the first model's. The models may differ in everything except the vocabulary.

    Args:
        models: at least one; they are not copied.

    Raises:
        ValueError: there is no model, or their vocabularies differ.

    Example:
        >>> ensemble = EnsembleForConditionalGeneration([first, second]).eval()
        >>> translation = ensemble.generate(**tokenizer("A dog runs.", return_tensors="pt"))
    """

    def __init__(self, models: Sequence[VanillaTransformerForConditionalGeneration]) -> None:
        if not models:
            raise ValueError("an ensemble of no models; give at least one")
        for index, model in enumerate(models):
            for name in _SAME:
                first, other = getattr(models[0].config, name), getattr(model.config, name)
                if first != other:
                    raise ValueError(
                        f"model {index} has `{name}`={other!r}, but model 0 has {first!r}; "
                        "only models of one vocabulary decode together"
                    )
        super().__init__(models[0].config)
        self.generation_config = copy.deepcopy(models[0].generation_config)
        self.models = nn.ModuleList(models)
        self.encoder: nn.Module = _Encoders([model.get_encoder() for model in models])

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """Returns the encoders of all models as one, whose output is theirs side by side: (B, S, sum of D)."""
        return self.encoder

    @strict_forward
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        output_attentions: bool = False,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Predicts each next target token.

        Args:
            input_ids: (B, S) source tokens, or `encoder_outputs`.
            attention_mask: (B, S), non-zero for tokens.
            decoder_input_ids: (B, T).
            encoder_outputs: of `get_encoder()`.
            output_attentions: whether to return `cross_attentions`.
            use_cache: must not be True; `generate()` has caches of its own.
            **kwargs: `return_dict`, which can only be True. Any other argument is refused.

        Returns:
            `logits` (B, T, V): the logarithms of the averaged probabilities. `cross_attentions`, on request: one
            tensor (B, 1, T, S), the mean of `alignment_attention` over the models, which may differ in their layers.

        Raises:
            TypeError: an argument is unknown.
            ValueError: a cache or hidden states are requested, which several models do not have in common.
        """
        asked = {
            "use_cache=True": use_cache,
            "output_hidden_states=True": kwargs.get("output_hidden_states"),
            "kernel_options": kwargs.get("kernel_options"),
            "return_dict=False": kwargs.get("return_dict") is False,
        }
        for argument, is_asked in asked.items():
            if is_asked:
                raise ValueError(f"an ensemble does not support {argument}; call its models one by one")
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        outputs = [
            model(
                encoder_outputs=BaseModelOutput(states),
                attention_mask=attention_mask,
                decoder_input_ids=decoder_input_ids,
                use_cache=False,
                output_attentions=output_attentions,
            )
            for model, states in self._by_model(encoder_outputs[0])
        ]
        attention = None
        if output_attentions:
            attention = torch.stack([alignment_attention(each.cross_attentions) for each in outputs]).mean(0)
        return Seq2SeqLMOutput(
            logits=average_probabilities([each.logits for each in outputs]),
            cross_attentions=None if attention is None else (attention.unsqueeze(1),),
        )

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        """Prepares `forward` for `generate()` where that needs more than logits: without a cache, on whole prefixes."""
        names = ("attention_mask", "encoder_outputs", "output_attentions", "output_hidden_states")
        return {
            "decoder_input_ids": input_ids,
            **{name: kwargs[name] for name in names if kwargs.get(name) is not None},
        }

    def _prepare_generation_config(self, *args: Any, **kwargs: Any) -> tuple[GenerationConfig, dict[str, Any]]:
        check_untested_transformers(VanillaTransformerForConditionalGeneration)  # generate() comes here first
        return super()._prepare_generation_config(*args, **kwargs)

    def _can_share_rows(self) -> bool:
        own = type(self).forward, type(self).prepare_inputs_for_generation
        return own == _AS_WRITTEN and not is_changed(self) and all(model._can_share_rows() for model in self._members)

    def _make_steps(
        self, encoder_hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, cache: EncoderDecoderCache
    ) -> Steps:
        steps = []
        for model, states in self._by_model(encoder_hidden_states):
            own_cache = EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache(config=model.config))
            state = DECODING_STATES[model.config.attention]
            own_cache.self_attention_cache.layers = [state() for _ in range(model.config.num_decoder_layers)]
            steps.append(model._make_steps(states, attention_mask, own_cache))
        return _EnsembleSteps(steps)

    def _assisted_decoding(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("an ensemble does not support assisted decoding; leave out the assistant")

    def _by_model(
        self, encoder_hidden_states: torch.Tensor
    ) -> list[tuple[VanillaTransformerForConditionalGeneration, torch.Tensor]]:
        parts = encoder_hidden_states.split([model.config.d_model for model in self._members], dim=-1)
        return [(model, part.to(model.dtype)) for model, part in zip(self._members, parts, strict=True)]

    @property
    def _members(self) -> list[VanillaTransformerForConditionalGeneration]:
        return cast("list[VanillaTransformerForConditionalGeneration]", list(self.models))


_AS_WRITTEN = EnsembleForConditionalGeneration.forward, EnsembleForConditionalGeneration.prepare_inputs_for_generation


class _Encoders(nn.Module):
    main_input_name = "input_ids"  # generate() asks

    def __init__(self, encoders: Sequence[nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutput:
        states = [encoder(input_ids=input_ids, attention_mask=attention_mask)[0] for encoder in self.encoders]
        return BaseModelOutput(torch.cat(states, dim=-1))


class _EnsembleSteps:
    def __init__(self, steps: Sequence[Steps]) -> None:
        self.steps = steps

    def start(self, prefix: torch.Tensor) -> torch.Tensor:
        return average_probabilities([steps.start(prefix) for steps in self.steps])

    def advance(self, tokens: torch.Tensor, parents: torch.Tensor | None = None) -> torch.Tensor:
        return average_probabilities([steps.advance(tokens, parents) for steps in self.steps])

    can_drop_rows = True

    def keep(self, rows: torch.Tensor) -> None:
        for steps in self.steps:
            steps.keep(rows)


def average_probabilities(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """The logarithm of the mean of the models' probabilities.

    Args:
        logits: (..., V), of each model.

    Returns:
        (..., V) log-probabilities in float32.
    """
    log_probs = torch.stack([each.float().log_softmax(-1) for each in logits])
    return log_probs.logsumexp(0) - math.log(len(logits))
