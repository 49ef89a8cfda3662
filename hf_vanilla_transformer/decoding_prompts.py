"""§6.1 without an encoder: `generate()` continues prompts, by the same search and the same steps."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import GenerationConfig
from transformers.generation.utils import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput

from .attention import additive_mask
from .decoder_only import VanillaTransformerDecoderModel, check_prefix, padding_only
from .decoding import PaperGenerationMixin
from .decoding_beam_search import Steps
from .decoding_incremental import IncrementalDecoder
from .encoder import derive_attention_mask, refuse_other_shape
from .modeling_compatibility import CACHE, AnswersToBothCacheNames, cache_of_generation
from .positions import position_ids_from_mask


@dataclass
class PromptBeamSearchOutput(AnswersToBothCacheNames, GenerateBeamDecoderOnlyOutput):
    """Output of beam search in `generate()` without an encoder: transformers' output, whose cache has two names."""


@dataclass
class PromptDecodingOutput(AnswersToBothCacheNames, GenerateDecoderOnlyOutput):
    """Output of `generate()` without beams and without an encoder: likewise."""


class PromptDecoder(IncrementalDecoder):
    """§3.1 without an encoder, position by position; the K beams of a prompt share the prompt's keys and values.

    Args:
        decoder: a decoder that passes `can_share_rows`.
        lm_head: the pre-softmax projection.
        attention_mask: (B, P), non-zero for tokens of the prompts; None if all are.
        prefix_length: (B,), how many tokens of each prompt see each other; None for none.
        cache: an empty cache to fill.
    """

    def __init__(
        self,
        decoder: VanillaTransformerDecoderModel,
        lm_head: nn.Module,
        attention_mask: torch.Tensor | None,
        prefix_length: torch.Tensor | None,
        cache: Any,
    ) -> None:
        nothing = torch.empty(0, 0, decoder.config.d_model, dtype=decoder.dtype, device=decoder.device)
        super().__init__(decoder, lm_head, nothing, None, cache, is_in_step=attention_mask is None)
        self.is_token = None if attention_mask is None else attention_mask.ne(0)  # (B, P)
        self.prefix_length = prefix_length
        self.prompt_mask: torch.Tensor | None = None  # (B, P) numbers, the lowest for padding
        self.num_tokens: torch.Tensor | None = None  # (B,), read so far, if there is padding

    def start(self, prefix: torch.Tensor) -> torch.Tensor:
        """Reads the prompts (B, P); returns the logits (B, 1, V) after them."""
        if self.is_token is None and self.prefix_length is None:
            return super().start(prefix)
        is_token = torch.ones_like(prefix, dtype=torch.bool) if self.is_token is None else self.is_token
        positions, length = position_ids_from_mask(is_token), prefix.shape[1]
        sees = torch.ones(length, length, dtype=torch.bool, device=self.device).tril()[None]  # (1, P, P)
        if self.prefix_length is not None:
            in_prefix = is_token & (positions < self.prefix_length.unsqueeze(1))
            sees = sees | (in_prefix.unsqueeze(1) & in_prefix.unsqueeze(2))
        mask = additive_mask(sees & is_token.unsqueeze(1), self.dtype).unsqueeze(1) if self.shares_keys else is_token
        if self.is_token is None:
            positions = positions[:1]
        else:
            self.prompt_mask, self.num_tokens = additive_mask(is_token, self.dtype), is_token.sum(1)
        return self.lm_head(self._forward(prefix, positions, mask, length)[:, -1:])

    def advance(self, tokens: torch.Tensor, parents: torch.Tensor | None = None) -> torch.Tensor:
        """Reads one more token (B, K) of each beam; as in `IncrementalDecoder`."""
        if self.prompt_mask is None or self.num_tokens is None:
            return super().advance(tokens, parents)
        positions, mask = self.num_tokens.unsqueeze(1).expand_as(tokens), None
        if parents is None and self.shares_keys:
            batch_size, length = self.prompt_mask.shape
            since = self._zeros(batch_size, self.length + 1 - length)
            mask = torch.cat([self.prompt_mask, since], dim=1)[:, None, None]  # (B, 1, 1, keys)
        self.num_tokens = self.num_tokens + 1
        return self._advance(tokens, positions, parents, mask)

    def keep(self, rows: torch.Tensor) -> None:
        """Drops all prompts but those at `rows`, 1-dimensional indices."""
        for state in self.states:
            state.keep(rows)
        self._keep_masks(rows)
        if self.prompt_mask is not None and self.num_tokens is not None:
            self.prompt_mask, self.num_tokens = self.prompt_mask[rows], self.num_tokens[rows]

    def _through_layers(
        self, embeddings: torch.Tensor, position_ids: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        return self.through_layers(
            embeddings, position_ids, mask, self.cache, self.key_positions, implementation=self.attention
        )

    def _mask_of_prefix(self, batch_size: int, num_beams: int) -> torch.Tensor:
        mask = super()._mask_of_prefix(batch_size, num_beams)
        return mask if self.prompt_mask is None else mask + self.prompt_mask.unsqueeze(1)


class PromptGenerationMixin(PaperGenerationMixin):
    """§6.1 in `generate()` for a decoder alone: what `PaperGenerationMixin` does, after prompts instead of sources.

    What is returned begins with the prompts. Prompts that are padded on the right come back padded on the left, so that
    a continuation follows its prompt. The length penalty counts the tokens of a continuation, without its prompt;
    `max_extra_tokens` is how many tokens more than its prompt (without padding) a continuation may have. A new model
    has neither, and no beams: it decodes greedily, as transformers' defaults say, unless told otherwise.

    With `prefix_visibility`="bidirectional", prompts are prefixes, whole unless a `prefix_length` is given.
    """

    _served: ClassVar[set[str]] = {"attention_mask", CACHE, "use_cache", "logits_to_keep", "prefix_length"}
    _outputs: ClassVar[tuple[type, type]] = (PromptBeamSearchOutput, PromptDecodingOutput)

    def _prepare_generation_config(self, *args: Any, **kwargs: Any) -> tuple[GenerationConfig, dict[str, Any]]:
        prepared, model_kwargs = super()._prepare_generation_config(*args, **kwargs)
        # An assistant is handed the prefix of the model that it helps, and its own cache, out of which transformers
        # takes the end of the prompt to read it again. It sees all of the prefix then as before: its keys are cached.
        cache = cache_of_generation(model_kwargs)
        if prepared.is_assistant and self.config.prefix_visibility == "causal":
            model_kwargs.pop("prefix_length", None)
        elif prepared.is_assistant and cache is not None and cache.get_seq_length():
            model_kwargs["prefix_length"] = torch.zeros(1, dtype=torch.long)  # there is a single text
        return prepared, model_kwargs

    def _prepare_model_inputs(
        self, inputs: torch.Tensor | None, bos_token_id: torch.Tensor | None, model_kwargs: dict[str, Any]
    ) -> tuple[torch.Tensor, str | None, dict[str, Any]]:
        inputs, name, model_kwargs = super()._prepare_model_inputs(inputs, bos_token_id, model_kwargs)
        ids = inputs if name == "input_ids" else None
        cache = cache_of_generation(model_kwargs)
        past_length = 0 if cache is None else int(cache.get_seq_length())
        mask = model_kwargs.get("attention_mask")
        if past_length:
            _check_continuation(inputs.shape[1], past_length, mask)
        else:
            mask = derive_attention_mask(ids, mask, padding_only(self.config))
        is_token = torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device) if mask is None else mask.ne(0)
        prefix_length = model_kwargs.get("prefix_length")
        if prefix_length is not None:
            model_kwargs["prefix_length"] = prefix_length = prefix_length.to(inputs.device)
            check_prefix(self.config, prefix_length, is_token, past_length)
        elif self.config.prefix_visibility == "bidirectional":
            if past_length:
                raise ValueError(
                    "a cache does not say how long its prefix is, which `prefix_visibility`='bidirectional' needs; "
                    "give `prefix_length` (B,)"
                )
            model_kwargs["prefix_length"] = is_token.sum(1)
        if mask is None:
            return inputs, name, model_kwargs
        if not past_length:
            refuse_other_shape("attention_mask", mask, (inputs.shape[0], inputs.shape[1]), "the prompts")
            if model_kwargs.get("position_ids") is None:
                inputs, mask = _padded_left(inputs, mask)
        model_kwargs["attention_mask"] = mask
        if name != "input_ids":
            model_kwargs["inputs_embeds"] = inputs
        return inputs, name, model_kwargs

    def _prepare_attention_mask_for_generation(
        self, inputs_tensor: torch.Tensor, generation_config: GenerationConfig, model_kwargs: dict[str, Any]
    ) -> torch.Tensor:
        mask = model_kwargs.get("attention_mask")  # derived above
        if mask is not None:
            return mask
        return torch.ones(inputs_tensor.shape[:2], dtype=torch.long, device=inputs_tensor.device)

    def _prepare_position_ids_for_generation(self, inputs_tensor: torch.Tensor, model_kwargs: dict[str, Any]) -> None:
        """None, so that `position_ids` are only those of a caller; the model numbers tokens by the mask."""

    def _mask_prefix(self, input_ids: torch.Tensor, model_kwargs: dict[str, Any]) -> None:
        """Nothing: transformers leaves out what is cached."""

    def _recorded_of_source(self, config: GenerationConfig, model_kwargs: dict[str, Any]) -> dict[str, Any]:
        return {}

    def _source(self, input_ids: torch.Tensor, model_kwargs: dict[str, Any]) -> torch.Tensor:
        embeddings = model_kwargs.get("inputs_embeds")
        return input_ids if embeddings is None else embeddings

    def _steps_of(self, model_kwargs: dict[str, Any], num_beams: int, cache: Any) -> Steps:
        mask, prefix_length = (
            None if value is None else value[::num_beams]
            for value in (model_kwargs.get("attention_mask"), model_kwargs.get("prefix_length"))
        )
        return PromptDecoder(self.get_decoder(), self.get_output_embeddings(), mask, prefix_length, cache)


def _check_continuation(length: int, past_length: int, mask: torch.Tensor | None) -> None:
    """Refuses a prompt that does not continue its cache, of which transformers would read too much or too little."""
    if mask is not None and bool(mask[:, -1].eq(0).any()):
        raise ValueError("a prompt that continues a cache cannot be padded on its right; pad on the left")
    is_whole = mask is None or mask.shape[1] == length
    if (is_whole and length <= past_length) or not (is_whole or mask is None or mask.shape[1] == past_length + length):
        raise ValueError(
            f"the cache has {past_length} positions, the prompt {length} tokens, and the mask "
            f"{length if mask is None else mask.shape[1]}; give the whole text, of which the cache is the beginning, "
            "or only new tokens with an `attention_mask` for the whole"
        )


def _padded_left(inputs: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Moves padding in prompts (B, P) or (B, P, D) to the left; their tokens keep their order."""
    if not bool(mask[:, -1].eq(0).any()):
        return inputs, mask
    order = mask.ne(0).long().argsort(dim=1, stable=True)  # padding first
    places = order.view(*order.shape, *[1] * (inputs.dim() - 2)).expand_as(inputs)
    return inputs.gather(1, places), mask.gather(1, order)
