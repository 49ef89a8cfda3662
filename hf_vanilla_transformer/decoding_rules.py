"""§6.1: the rules of a search: length limits, logits processors, stopping criteria, and what to record."""

from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import EosTokenCriteria, MaxLengthCriteria, StoppingCriteriaList, logits_process
from transformers.generation.logits_process import LogitsProcessorList

# After a log-softmax, these leave no value above 0: they forbid, scale, or renormalise.
_NEVER_RAISE = (
    logits_process.MinLengthLogitsProcessor,
    logits_process.MinNewTokensLengthLogitsProcessor,
    logits_process.TemperatureLogitsWarper,
    logits_process.RepetitionPenaltyLogitsProcessor,
    logits_process.EncoderRepetitionPenaltyLogitsProcessor,
    logits_process.TopPLogitsWarper,
    logits_process.TopKLogitsWarper,
    logits_process.MinPLogitsWarper,
    logits_process.TypicalLogitsWarper,
    logits_process.EpsilonLogitsWarper,
    logits_process.EtaLogitsWarper,
    logits_process.NoRepeatNGramLogitsProcessor,
    logits_process.EncoderNoRepeatNGramLogitsProcessor,
    logits_process.NoBadWordsLogitsProcessor,
    logits_process.PrefixConstrainedLogitsProcessor,
    logits_process.ForcedBOSTokenLogitsProcessor,
    logits_process.ForcedEOSTokenLogitsProcessor,
    logits_process.SuppressTokensLogitsProcessor,
    logits_process.SuppressTokensAtBeginLogitsProcessor,
    logits_process.LogitNormalization,
)


class DecodingRules:
    """The settings of `generate()` that a search applies at each position.

    Args:
        config: a prepared `generation_config`: special tokens, whether to sample, and what to record.
        limits: (B,), the maximum tokens of each sentence after its prefix.
        processors: change the scores; may be empty.
        criteria: what else ends a sentence. Those that repeat the limits or special tokens are left out.
        log_softmax: whether scores are log-probabilities, as in beam search, and not logits.
    """

    def __init__(
        self,
        config: GenerationConfig,
        limits: torch.Tensor,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        log_softmax: bool,
    ) -> None:
        self.limits, self.processors, self.log_softmax = limits, processors, log_softmax
        own = (MaxLengthCriteria, EosTokenCriteria)
        self.criteria = StoppingCriteriaList([each for each in criteria if type(each) not in own])
        self.eos_token_ids, self.padding_id = eos_token_ids(config), padding_id(config)
        self.do_sample, self.returns_dict = bool(config.do_sample), bool(config.return_dict_in_generate)
        self.scores: list[torch.Tensor] | None = [] if self.returns_dict and config.output_scores else None
        self.logits: list[torch.Tensor] | None = [] if self.returns_dict and config.output_logits else None

    @property
    def are_plain(self) -> bool:
        """Whether scores are the model's own and need not be recorded, so that `process` can be skipped."""
        return not self.processors and self.scores is None and self.logits is None

    @property
    def look_at_each_row_alone(self) -> bool:
        """Whether nothing looks at all rows at once, so that finished sentences may leave the batch."""
        return self.are_plain and not self.criteria and not self.do_sample

    @property
    def may_raise_log_probs(self) -> bool:
        """Whether the log-probability of a token can rise above 0, by a positive bias or an unknown processor."""
        return not all(type(each) in _NEVER_RAISE or _forbids(each) for each in self.processors)

    def process(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Turns logits into scores, and records what is to be returned.

        Args:
            ids: (rows, L), the tokens of each row.
            logits: (rows, V); the next step may overwrite them.

        Returns:
            (rows, V).
        """
        # Processors may also write into their input.
        own = logits.log_softmax(-1) if self.log_softmax else logits.clone(memory_format=torch.contiguous_format)
        scores = self.processors(ids, own)
        if self.scores is not None:
            self.scores.append(scores)
        if self.logits is not None:
            self.logits.append(logits.clone(memory_format=torch.contiguous_format))
        return scores

    def end(self, ids: torch.Tensor) -> torch.Tensor | None:
        """Which rows of ids (rows, L) the criteria end, as (rows,) booleans; None if there are no criteria."""
        return self.criteria(ids, self.recorded["scores"]) if self.criteria else None

    @property
    def recorded(self) -> dict[str, tuple[torch.Tensor, ...] | None]:
        """`scores` and `logits` of each position, as transformers returns them; None for what was not requested."""
        kept = {"scores": self.scores, "logits": self.logits}
        return {name: None if each is None else tuple(each) for name, each in kept.items()}


def _forbids(processor: Any) -> bool:
    is_bias = type(processor) is logits_process.SequenceBiasLogitsProcessor
    return is_bias and all(bias <= 0 for bias in processor.sequence_bias.values())


def eos_token_ids(config: GenerationConfig) -> list[int]:
    """The ids that end a sentence, by a prepared `generation_config`; may be empty."""
    return [] if config._eos_token_tensor is None else config._eos_token_tensor.flatten().tolist()


def padding_id(config: GenerationConfig) -> int:
    """The id that pads finished sentences, by a prepared `generation_config`."""
    if config._pad_token_tensor is not None:
        return int(config._pad_token_tensor)
    return next(iter(eos_token_ids(config)), 0)
