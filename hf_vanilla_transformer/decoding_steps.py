"""§6.1: what a search and a model tell each other at each position, where forward() gives the logits."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, GenerationMixin
from transformers.cache_utils import EncoderDecoderCache
from transformers.generation import EosTokenCriteria, MaxLengthCriteria, StoppingCriteriaList
from transformers.generation.logits_process import LogitsProcessorList

from .compatibility import CACHE, cache_of_generation


class ForwardSteps:
    """Logits from the model's own forward(), each beam a row, as transformers' loops get them."""

    def __init__(
        self,
        model: GenerationMixin,
        input_ids: torch.Tensor,
        config: GenerationConfig,
        model_kwargs: dict[str, Any],
    ) -> None:
        self.model, self.input_ids, self.config, self.model_kwargs = model, input_ids, config, model_kwargs
        self.num_beams = config.num_beams
        names = ["decoder_attentions", "cross_attentions"] if config.output_attentions else []
        names += ["decoder_hidden_states"] if config.output_hidden_states else []
        self.recorded: dict[str, tuple[Any, ...]] = dict.fromkeys(names, ())

    def start(self, prefix: torch.Tensor) -> torch.Tensor:
        """Logits (B, K, V) after the prefix."""
        return self._taken(self.model._prefill(self.input_ids, self.config, self.model_kwargs))

    def advance(self, tokens: torch.Tensor, parents: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, K, V) after tokens (B, K) that continue the beams `parents` (B, K)."""
        assert parents is not None
        first_rows = torch.arange(len(parents), device=parents.device).unsqueeze(1) * self.num_beams
        rows = (parents + first_rows).flatten()
        self.input_ids = torch.cat([self.input_ids[rows], tokens.flatten().unsqueeze(1)], dim=1)
        cache = cache_of_generation(self.model_kwargs)
        if cache is not None:
            # All beams of a sentence have the same source, so only the other half has to follow them.
            getattr(cache, "self_attention_cache", cache).reorder_cache(rows)
        inputs = self.model.prepare_inputs_for_generation(
            self.input_ids, next_sequence_length=1 if self.model_kwargs["use_cache"] else None, **self.model_kwargs
        )
        return self._taken(self.model(**inputs, return_dict=True))

    def keep(self, rows: torch.Tensor) -> None:
        """Never called: sentences do not leave the batch on this way."""
        raise NotImplementedError

    def take_part(self) -> None:
        """Runs a forward pass of which nothing is wanted, for processes that cannot run theirs without this one."""
        names = ("encoder_outputs", "attention_mask")
        inputs = {name: self.model_kwargs[name] for name in names if name in self.model_kwargs}
        cache = cache_of_generation(self.model_kwargs)
        if isinstance(cache, EncoderDecoderCache):
            # With keys and values of the source, as in the steps of the others: the same modules have to be called.
            nothing = DynamicCache(config=self.model.config)
            inputs[CACHE] = EncoderDecoderCache(nothing, cache.cross_attention_cache)
        inputs |= {"decoder_input_ids": self.input_ids[:, :1], "use_cache": CACHE in inputs}
        self.model(**inputs, return_dict=True)

    def _taken(self, outputs: Any) -> torch.Tensor:
        self.model_kwargs.update(
            self.model._update_model_kwargs_for_generation(outputs, self.model_kwargs, is_encoder_decoder=True)
        )
        for name in self.recorded:
            self.recorded[name] += (getattr(outputs, name),)
        return outputs.logits[:, -1].unflatten(0, (-1, self.num_beams))


class SynchronisedSteps:
    """Steps of one process among several, none of which can run the model without the others (FSDP, ZeRO-3).

    Before each step the processes tell one another whether they go on; those that do not take part all the same, until
    none goes on.

    Args:
        steps: those of this process.
    """

    def __init__(self, steps: ForwardSteps) -> None:
        self.steps = steps

    def start(self, prefix: torch.Tensor) -> torch.Tensor:
        """As in `ForwardSteps`."""
        return self.steps.start(prefix)

    def advance(self, tokens: torch.Tensor, parents: torch.Tensor | None = None) -> torch.Tensor:
        """As in `ForwardSteps`."""
        self._somebody_goes_on(True)
        return self.steps.advance(tokens, parents)

    def keep(self, rows: torch.Tensor) -> None:
        """Never asked for, as in `ForwardSteps`."""
        self.steps.keep(rows)

    def wait_for_others(self) -> None:
        """After the search: takes part in the steps of the others."""
        while self._somebody_goes_on(False):
            self.steps.take_part()

    def _somebody_goes_on(self, this_process: bool) -> bool:
        device = self.steps.input_ids.device
        return self.steps.model._has_unfinished_sequences(not this_process, synced_gpus=True, device=device)


NOT_RECORDED: dict[str, tuple[torch.Tensor, ...] | None] = {"scores": None, "logits": None}


def recording(config: GenerationConfig) -> dict[str, tuple[torch.Tensor, ...] | None]:
    """Where to keep what is to be returned for each position: empty, or None where nothing is to be kept."""
    asked = {"scores": config.output_scores, "logits": config.output_logits}
    return {name: () if config.return_dict_in_generate and is_asked else None for name, is_asked in asked.items()}


def processing(
    processors: LogitsProcessorList, outputs: dict[str, tuple[torch.Tensor, ...] | None], log_softmax: bool = True
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """What turns logits into scores and keeps what is to be kept; for greedy search without a softmax."""

    def process(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        # Processors may write into what they get, and the next step writes into the logits.
        copied = partial(logits.clone, memory_format=torch.contiguous_format)
        scores = processors(ids, logits.log_softmax(-1) if log_softmax else copied())
        if outputs["scores"] is not None:
            outputs["scores"] = (*outputs["scores"], scores)
        if outputs["logits"] is not None:
            outputs["logits"] = (*outputs["logits"], copied())
        return scores

    return process


def other_criteria(criteria: StoppingCriteriaList) -> StoppingCriteriaList:
    """Those that the loops here do not already apply by themselves."""
    return StoppingCriteriaList([one for one in criteria if type(one) not in (MaxLengthCriteria, EosTokenCriteria)])
