"""§6.1: the steps of a search that gets its logits from forward()."""

from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, GenerationMixin
from transformers.cache_utils import EncoderDecoderCache

from .modeling_compatibility import CACHE, cache_of_generation


class ForwardSteps:
    """Logits from the model's own forward(), one row per beam, as in transformers' loops."""

    def __init__(
        self,
        model: GenerationMixin,
        input_ids: torch.Tensor,
        config: GenerationConfig,
        model_kwargs: dict[str, Any],
    ) -> None:
        self.model, self.input_ids, self.config, self.model_kwargs = model, input_ids, config, model_kwargs
        self.num_beams = config.num_beams
        self.has_encoder = bool(model.config.is_encoder_decoder)
        own = "decoder_" if self.has_encoder else ""
        names = [f"{own}attentions"] if config.output_attentions else []
        names += ["cross_attentions"] if config.output_attentions and self.has_encoder else []
        names += [f"{own}hidden_states"] if config.output_hidden_states else []
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
            # All beams of a sentence have the same source, so only the self-attention has to follow.
            getattr(cache, "self_attention_cache", cache).reorder_cache(rows)
        inputs = self.model.prepare_inputs_for_generation(
            self.input_ids, next_sequence_length=1 if self.model_kwargs["use_cache"] else None, **self.model_kwargs
        )
        return self._taken(self.model(**inputs, return_dict=True))

    def keep(self, rows: torch.Tensor) -> None:
        """Never called: code of others, which is why forward() is called here, may count on the rows that there are."""
        raise NotImplementedError

    can_drop_rows = False

    def take_part(self) -> None:
        """Runs a forward pass and discards its result, because other processes cannot run theirs without it."""
        if not self.has_encoder:
            self.model(input_ids=self.input_ids[:, :1], use_cache=False, return_dict=True)
            return
        names = ("encoder_outputs", "attention_mask")
        inputs = {name: self.model_kwargs[name] for name in names if name in self.model_kwargs}
        cache = cache_of_generation(self.model_kwargs)
        if isinstance(cache, EncoderDecoderCache):
            # With the source's keys and values, so that the same modules are called as in the other processes.
            nothing = DynamicCache(config=self.model.config)
            inputs[CACHE] = EncoderDecoderCache(nothing, cache.cross_attention_cache)
        inputs |= {"decoder_input_ids": self.input_ids[:, :1], "use_cache": CACHE in inputs}
        self.model(**inputs, return_dict=True)

    def _taken(self, outputs: Any) -> torch.Tensor:
        self.model_kwargs.update(
            self.model._update_model_kwargs_for_generation(
                outputs, self.model_kwargs, is_encoder_decoder=self.has_encoder
            )
        )
        for name in self.recorded:
            self.recorded[name] += (getattr(outputs, name),)
        return outputs.logits[:, -1].unflatten(0, (-1, self.num_beams))


class SynchronisedSteps:
    """Steps of one process among several, none of which can run the model without the others (FSDP, ZeRO-3).

    Before each step the processes tell each other whether they continue. Finished ones still take part until none
    continues.

    Args:
        steps: the steps of this process.
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
        """Never called, because `can_drop_rows` is False: all processes step with all of their rows."""
        raise NotImplementedError

    can_drop_rows = False

    def wait_for_others(self) -> None:
        """Takes part in the others' steps after this search ends."""
        while self._somebody_goes_on(False):
            self.steps.take_part()

    def _somebody_goes_on(self, this_process: bool) -> bool:
        device = self.steps.input_ids.device
        return self.steps.model._has_unfinished_sequences(not this_process, synced_gpus=True, device=device)
