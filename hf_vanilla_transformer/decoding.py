"""§6.1 decoding: beam search with the paper's length penalty and limits, behind transformers' `generate()`."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from transformers import GenerationConfig, GenerationMixin
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache
from transformers.generation import StoppingCriteria, StoppingCriteriaList
from transformers.generation.logits_process import LogitsProcessorList
from transformers.generation.utils import GenerateBeamEncoderDecoderOutput, GenerateEncoderDecoderOutput

from .decoding_beam_search import BeamSearch, Observer, Ranking, Steps, stack_hypotheses
from .decoding_cache import DECODING_STATES
from .decoding_config import OUTRANKED_BY, PaperGenerationConfig, check_own_fields, chosen_values, settled
from .decoding_incremental import IncrementalDecoder, can_share_rows
from .decoding_rules import DecodingRules
from .decoding_sampling import decode_without_beams
from .decoding_steps import ForwardSteps, SynchronisedSteps
from .encoder import derive_attention_mask
from .modeling_compatibility import (
    CACHE,
    AnswersToBothCacheNames,
    cache_of_generation,
    warn_about_token_types,
    with_cache_named,
)
from .modeling_views import is_changed
from .source_inputs import source_length
from .translation_pieces import max_source_length


@dataclass
class BeamSearchOutput(AnswersToBothCacheNames, GenerateBeamEncoderDecoderOutput):
    """Output of beam search in `generate()`: transformers' output, whose cache has two names."""


@dataclass
class DecodingOutput(AnswersToBothCacheNames, GenerateEncoderDecoderOutput):
    """Output of `generate()` without beams: transformers' output, whose cache has two names."""


class SourceLengthCriteria(StoppingCriteria):
    """§6.1 "maximum output length": ends each row at its own limit.

    Args:
        limits: (rows,), the maximum tokens of each row after its prefix.
        prefix_length: tokens in the prefix.
    """

    def __init__(self, limits: torch.Tensor, prefix_length: int) -> None:
        self.limits, self.prefix_length = limits, prefix_length

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Returns (rows,), True for each row of `input_ids` (rows, L) that has reached its limit."""
        return input_ids.shape[1] - self.prefix_length >= self.limits


class PaperGenerationMixin(GenerationMixin):
    """§6.1 in `generate()`: all its arguments, and two more fields of the `generation_config`; None turns each off.

    - `gnmt_length_penalty`: alpha of the length penalty ((5 + n) / 6)^alpha. With it, beam search ends as soon as no
      open beam can win. It is off if the caller sets `length_penalty`, which is transformers' n^length_penalty, and has
      no effect without beams.
    - `max_extra_tokens`: how many tokens longer than its source (without padding) a translation may be. It is off if
      the caller sets `max_new_tokens` or `max_length`; if one call sets both kinds of limit, both apply.

    Arguments of a call override the `generation_config` passed to it, which overrides the model's.

    A hypothesis that is cut at its limit competes like a finished one, as in transformers. One that logits processors
    have made impossible (-inf) is never returned: if there are too few hypotheses, the last results are empty, with the
    score -inf.

    With `return_dict_in_generate=True`, beam search returns None as the cache if the beams of a sentence share their
    keys and values, which cannot be separated. They always do, unless a hook, `output_attentions` or the like requires
    calls of `forward()`. Without beams the cache is returned, and can be passed on together with the whole prefix.
    """

    # The loop arguments that fast steps handle. With any other, the model's own forward() is called.
    _served: ClassVar[set[str]] = {"encoder_outputs", "attention_mask", CACHE, "use_cache", "logits_to_keep"}
    # What beam search returns, and what other searches return.
    _outputs: ClassVar[tuple[type, type]] = (BeamSearchOutput, DecodingOutput)

    @property
    def generation_config(self) -> Any:
        """The defaults of `generate()` for this model: a `PaperGenerationConfig`."""
        return self.__dict__.get("_generation_config")

    @generation_config.setter
    def generation_config(self, config: GenerationConfig | None) -> None:
        """Accepts any config; one of transformers' own class becomes a `PaperGenerationConfig`."""
        # transformers and users create configs of transformers' own class. They hold our fields too.
        if type(config) is GenerationConfig:
            config.__class__ = PaperGenerationConfig
        self.__dict__["_generation_config"] = config

    def _prepare_generation_config(
        self, generation_config: GenerationConfig | None, **kwargs: Any
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        kwargs = with_cache_named(CACHE, kwargs, "generate()")
        if kwargs.pop("token_type_ids", None) is not None:
            warn_about_token_types()
        places = [kwargs, chosen_values(generation_config), chosen_values(self.generation_config)]
        others = {name: value for name, value in kwargs.items() if name not in OUTRANKED_BY}
        prepared, model_kwargs = super()._prepare_generation_config(generation_config, **others)
        prepared.gnmt_length_penalty, _ = settled("gnmt_length_penalty", places)
        prepared.max_extra_tokens, prepared._chosen_limits = settled("max_extra_tokens", places)
        check_own_fields(prepared)
        if "max_new_tokens" not in prepared._chosen_limits:
            prepared.max_new_tokens = None  # set in a place that is overridden
        return prepared, model_kwargs

    def _prepare_model_inputs(
        self, inputs: torch.Tensor | None, bos_token_id: torch.Tensor | None, model_kwargs: dict[str, Any]
    ) -> tuple[torch.Tensor, str | None, dict[str, Any]]:
        # transformers looks for embeddings only where a model reads tokens.
        name, embeddings = self.main_input_name, model_kwargs.get("inputs_embeds")
        if name == "input_ids" or embeddings is None:
            return super()._prepare_model_inputs(inputs, bos_token_id, model_kwargs)
        if inputs is not None or model_kwargs.get(name) is not None:
            raise ValueError(f"give generate() either `{name}` or `inputs_embeds`, and not both")
        return model_kwargs.pop("inputs_embeds"), "inputs_embeds", model_kwargs

    def _prepare_text_encoder_decoder_kwargs_for_generation(
        self, inputs_tensor: torch.Tensor, model_kwargs: dict[str, Any], model_input_name: str | None, **kwargs: Any
    ) -> dict[str, Any]:
        # generate() runs the encoder itself; without a mask, each step would attend over its padding.
        if (model_input_name or self.main_input_name) == "input_ids":
            mask = derive_attention_mask(inputs_tensor, model_kwargs.get("attention_mask"), self.config.pad_token_id)
            if mask is not None:
                model_kwargs["attention_mask"] = mask
        return super()._prepare_text_encoder_decoder_kwargs_for_generation(
            inputs_tensor, model_kwargs=model_kwargs, model_input_name=model_input_name, **kwargs
        )

    def _prepare_generated_length(
        self,
        generation_config: GenerationConfig,
        has_default_max_length: bool,
        has_default_min_length: bool,
        model_input_name: str,
        input_ids_length: int,
        inputs_tensor: torch.Tensor,
    ) -> GenerationConfig:
        # Without a limit, transformers would stop after 20 tokens. This is the limit of the longest sentence.
        if generation_config.max_extra_tokens is not None and not generation_config._chosen_limits:
            length = source_length(inputs_tensor, getattr(self.config, "source_stride", None))
            limit = length + generation_config.max_extra_tokens
            positions = max_source_length(self)
            if positions is not None:
                limit = max(1, min(limit, positions - input_ids_length))
            generation_config.max_new_tokens = limit
        # A default that the Trainer filled in does not count.
        has_default_max_length = "max_length" not in generation_config._chosen_limits
        return super()._prepare_generated_length(
            generation_config=generation_config,
            has_default_max_length=has_default_max_length,
            has_default_min_length=has_default_min_length,
            model_input_name=model_input_name,
            input_ids_length=input_ids_length,
            inputs_tensor=inputs_tensor,
        )

    def _prepare_cache_for_generation(
        self, generation_config: GenerationConfig, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        is_given = cache_of_generation(model_kwargs) is not None
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        cache = cache_of_generation(model_kwargs)
        if is_given or cache is None:
            return
        own: Any = getattr(cache, "self_attention_cache", cache)
        asked, attention = generation_config.cache_implementation, self.config.attention
        if attention != "softmax" and asked not in (None, "dynamic"):
            raise ValueError(
                f"`cache_implementation`={asked!r} is for keys and values, and `attention`={attention!r} keeps sums of "
                "constant size instead; leave it out"
            )
        if asked in (None, "dynamic") and _layer_types(own) == {DynamicLayer}:
            own.layers = [DECODING_STATES[attention]() for _ in own.layers]
            if generation_config.is_assistant:
                cache.activate_past_recording()

    def _beam_search(
        self,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        observer: Observer | None = None,
        **model_kwargs: Any,
    ) -> BeamSearchOutput | torch.Tensor:
        config, num_beams = generation_config, generation_config.num_beams
        self._mask_prefix(input_ids, model_kwargs)
        if config.low_memory:
            raise NotImplementedError("beam search with `low_memory`=True is not supported; leave it off")
        limits = self._limits(config, input_ids, model_kwargs)
        rules = DecodingRules(config, limits[::num_beams], logits_processor, stopping_criteria, log_softmax=True)
        steps = None if synced_gpus else self._incremental_steps(config, model_kwargs, num_beams)
        is_incremental, recorded = steps is not None, {}
        if steps is None:
            forward_steps = ForwardSteps(self, input_ids, config, model_kwargs)
            steps, recorded = forward_steps, forward_steps.recorded
            if synced_gpus:
                steps = SynchronisedSteps(forward_steps)
        search = BeamSearch(
            steps,
            input_ids[::num_beams],
            Ranking(
                num_beams,
                config.num_return_sequences,
                config.gnmt_length_penalty,
                config.length_penalty,
                # One beam is only searched for an observer, which is to see what greedy search finds.
                num_beams == 1 or config.early_stopping,
                rules.may_raise_log_probs,
            ),
            rules,
            observer,
        )
        found = search.run()
        if isinstance(steps, SynchronisedSteps):
            steps.wait_for_others()
        best = stack_hypotheses(found, input_ids[::num_beams], config.num_return_sequences, rules.padding_id)
        if not config.return_dict_in_generate:
            return best["sequences"]
        return self._outputs[0](
            **best,
            **rules.recorded,
            **self._recorded_of_source(config, model_kwargs),
            # A cache with shared rows is useless to callers.
            **{CACHE: None if is_incremental else cache_of_generation(model_kwargs)},
            **recorded,
        )

    def _recorded_of_source(self, config: GenerationConfig, model_kwargs: dict[str, Any]) -> dict[str, Any]:
        encoder_outputs = model_kwargs["encoder_outputs"]
        return {
            "encoder_attentions": encoder_outputs.get("attentions") if config.output_attentions else None,
            "encoder_hidden_states": encoder_outputs.get("hidden_states") if config.output_hidden_states else None,
        }

    def _sample(
        self,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        streamer: Any = None,
        **model_kwargs: Any,
    ) -> DecodingOutput | torch.Tensor:
        config = generation_config
        self._mask_prefix(input_ids, model_kwargs)
        limits = self._limits(config, input_ids, model_kwargs)
        steps = None
        if not synced_gpus and not config.is_assistant:
            steps = self._incremental_steps(config, model_kwargs, 1)
        if steps is None:
            output = super()._sample(
                input_ids,
                logits_processor,
                StoppingCriteriaList([*stopping_criteria, SourceLengthCriteria(limits, input_ids.shape[1])]),
                config,
                synced_gpus,
                streamer,
                **model_kwargs,
            )
            return self._with_both_cache_names(output)
        rules = DecodingRules(config, limits, logits_processor, stopping_criteria, log_softmax=False)
        ids = decode_without_beams(steps, input_ids, rules, streamer)
        if not config.return_dict_in_generate:
            return ids
        return self._outputs[1](
            sequences=ids,
            **rules.recorded,
            **{CACHE: cache_of_generation(model_kwargs)},
        )

    def _assisted_decoding(
        self,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        inputs_tensor: torch.Tensor | None = None,  # named because generate() looks for the name
        **kwargs: Any,
    ) -> DecodingOutput | torch.Tensor:
        self._mask_prefix(input_ids, kwargs)
        limits = self._limits(generation_config, input_ids, kwargs)
        criteria = StoppingCriteriaList([*stopping_criteria, SourceLengthCriteria(limits, input_ids.shape[1])])
        output = super()._assisted_decoding(
            input_ids, logits_processor, criteria, generation_config, inputs_tensor=inputs_tensor, **kwargs
        )
        return self._with_both_cache_names(output)

    def _mask_prefix(self, input_ids: torch.Tensor, model_kwargs: dict[str, Any]) -> None:
        """Adds a mask of ones for a prefix (rows, L) whose beginning is cached, so that it is not read twice.

        Raises:
            ValueError: the prefix has no token beyond the cache.
        """
        cache = cache_of_generation(model_kwargs)
        past_length = 0 if cache is None else int(cache.get_seq_length())
        if past_length == 0 or model_kwargs.get("decoder_attention_mask") is not None:
            return
        if input_ids.shape[1] <= past_length:
            raise ValueError(
                f"the cache has {past_length} positions, but `decoder_input_ids` only {input_ids.shape[1]} with the "
                "start token; give the whole prefix, of which the cache is the beginning"
            )
        model_kwargs["decoder_attention_mask"] = torch.ones_like(input_ids)

    def _limits(self, config: GenerationConfig, input_ids: torch.Tensor, model_kwargs: dict[str, Any]) -> torch.Tensor:
        """The maximum tokens (rows,) of each row after its prefix."""
        source = self._source(input_ids, model_kwargs)
        limit = config.max_length - input_ids.shape[1]
        if config.max_extra_tokens is None:
            return torch.full(source.shape[:1], limit, device=source.device)
        mask = _source_mask(model_kwargs)
        everything = torch.full(source.shape[:1], source.shape[1], device=source.device)
        lengths = everything if mask is None else mask.ne(0).sum(1)
        return (lengths + config.max_extra_tokens).clamp(min=1, max=limit)

    def _source(self, input_ids: torch.Tensor, model_kwargs: dict[str, Any]) -> torch.Tensor:
        """A tensor (rows, L, ...) as long as what `max_extra_tokens` is counted from."""
        return model_kwargs["encoder_outputs"][0]

    def _incremental_steps(
        self, config: GenerationConfig, model_kwargs: dict[str, Any], num_beams: int
    ) -> Steps | None:
        """The fast source of logits, or None if something is requested that only forward() gives."""
        cache: Any = cache_of_generation(model_kwargs)
        own = getattr(cache, "self_attention_cache", cache)
        asked = {name for name, value in model_kwargs.items() if value is not None}
        if (
            not asked <= self._served
            or not isinstance(own, DynamicCache)
            or _layer_types(own) != {DECODING_STATES[self.config.attention]}
            or cache.get_seq_length()
            or config.output_attentions
            or config.output_hidden_states
            or config.prefill_chunk_size is not None
            or not self._can_share_rows()
        ):
            return None
        return self._steps_of(model_kwargs, num_beams, cache)

    def _can_share_rows(self) -> bool:
        """Whether no code that sees whole rows is replaced or hooked, so that `IncrementalDecoder` can be used."""
        return (
            "prepare_inputs_for_generation" not in vars(self)
            and not any(is_changed(part) for part in (self, self.base_model, self.get_output_embeddings()))
            and can_share_rows(self.get_decoder())
        )

    def _steps_of(self, model_kwargs: dict[str, Any], num_beams: int, cache: Any) -> Steps:
        mask = _source_mask(model_kwargs)
        return self._make_steps(
            model_kwargs["encoder_outputs"][0][::num_beams], None if mask is None else mask[::num_beams], cache
        )

    def _make_steps(
        self, encoder_hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, cache: EncoderDecoderCache
    ) -> Steps:
        return IncrementalDecoder(
            self.get_decoder(), self.get_output_embeddings(), encoder_hidden_states, attention_mask, cache
        )

    def _with_both_cache_names(self, output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            return output
        return self._outputs[1](**{field.name: getattr(output, field.name) for field in fields(output)})


def _source_mask(model_kwargs: dict[str, Any]) -> torch.Tensor | None:
    """The mask (rows, S) of the encoder's output: its own, or that of the tokens which it has read."""
    own = getattr(model_kwargs.get("encoder_outputs"), "attention_mask", None)
    return model_kwargs.get("attention_mask") if own is None else own


def _layer_types(cache: DynamicCache) -> set[type]:
    return {type(layer) for layer in cache.layers}
