"""The search of §6.1 as CTranslate2 is asked for it: which options of `generate()` it has, and what they come to."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from transformers import GenerationConfig

from ..decoding_beam_search import Ranking
from ..decoding_config import LengthLimits, check_own_fields, chosen_values, settled
from ..translation_batches import number_wanted

# CTranslate2 ends a search at a number of finished hypotheses, and knows no other rule; ours ends once no open beam can
# win. With this many times `num_beams`, a small English-German model translated all 1,000 sentences of Multi30k's
# Test2016 as torch does with `gnmt_length_penalty` 0.6, and 994 with 1.4; n-best lists need more. A search that ends at
# `num_beams` takes a tenth less time.
_PATIENCE_FOR_ONE, _PATIENCE_FOR_SEVERAL = 2, 4

# Scores are penalised here. With a length penalty of 0, CTranslate2 goes on until the best beam has ended, too. This
# one changes no number in float32, and ends a search at the number of hypotheses, as `early_stopping` has it.
_ENDS_AT_ONCE = 1e-12

# Options that `plan_search` reads, and those that say nothing about which tokens are found.
_READ = {
    *("num_beams", "num_return_sequences", "early_stopping", "generation_config"),
    *("gnmt_length_penalty", "length_penalty", "max_extra_tokens", "max_new_tokens", "max_length"),
}
_WITHOUT_EFFECT = {
    *("bos_token_id", "pad_token_id", "use_cache", "cache_implementation", "cache_config", "low_memory"),
    *("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate"),
    *("temperature", "top_k", "top_p", "min_p", "typical_p"),  # of sampling, which is an option by itself
    *("compile_config", "disable_compile", "transformers_version", "_from_model_config"),
}


@dataclass(frozen=True)
class SearchPlan:
    """One search.

    Args:
        ranking: beams, how many hypotheses are wanted, and their score.
        candidates: finished hypotheses of a source before which its search does not end.
        longest: how long translations may be.
    """

    ranking: Ranking
    candidates: int
    longest: LengthLimits

    @property
    def is_exact(self) -> bool:
        """Whether CTranslate2 ends this search where `generate()` does, whatever the model."""
        return self.ranking.num_beams == 1 or bool(self.ranking.early_stopping)

    def arguments(self) -> dict[str, Any]:
        """What `translate_batch` of CTranslate2 is told of the search, limits aside."""
        num_beams = self.ranking.num_beams
        return {
            "beam_size": num_beams,
            "num_hypotheses": self.candidates,
            "patience": self.candidates / num_beams,
            "length_penalty": _ENDS_AT_ONCE if self.ranking.early_stopping else 0.0,
            "min_decoding_length": 0,
            "max_input_length": 0,
            "return_end_token": True,
        }


def plan_search(
    options: dict[str, Any], defaults: GenerationConfig, token_ids: dict[str, int]
) -> tuple[SearchPlan | None, list[str]]:
    """Reads the options of a search.

    Args:
        options: for `generate()`.
        defaults: the model's `generation_config`.
        token_ids: `eos_token_id` and `decoder_start_token_id` of the converted model.

    Returns:
        The search, or None; and what CTranslate2 cannot do of it, a phrase each.

    Raises:
        ValueError: an option is not allowed, or there are two length penalties.
    """
    given = options.get("generation_config")
    places = [options, chosen_values(given), chosen_values(defaults)]
    unset = GenerationConfig._get_default_generation_params()

    def said(name: str) -> Any:
        """What the first place says that mentions an option; transformers' default where none does."""
        value = next((place[name] for place in places if name in place), None)
        return unset.get(name) if value is None else value

    obstacles = []
    for name in sorted({name for place in places for name in place} - _READ - _WITHOUT_EFFECT):
        value = said(name)
        allowed = [token_ids[name], [token_ids[name]]] if name in token_ids else []
        if value not in (None, unset.get(name), *allowed):
            obstacles.append(f"the option `{name}`={value!r}")
    num_beams, wanted = said("num_beams"), number_wanted(options, defaults)
    early, power = said("early_stopping") is True, said("length_penalty")
    alpha, _ = settled("gnmt_length_penalty", places)
    longest = LengthLimits.of(places)
    check_own_fields(SimpleNamespace(gnmt_length_penalty=alpha, max_extra_tokens=longest.max_extra))
    if num_beams > 1 and alpha is None and not early:
        obstacles.append(f"`length_penalty`={power!r} without `early_stopping`=True, whose end of search it has not")
    if num_beams == 1 and wanted > 1 and not obstacles:
        obstacles.append(f"{wanted} translations without beams")
    if obstacles:
        return None, obstacles
    patience = 1 if early else _PATIENCE_FOR_ONE if wanted == 1 else _PATIENCE_FOR_SEVERAL
    ranking = Ranking(num_beams, wanted, alpha, power, early)
    return SearchPlan(ranking, 1 if num_beams == 1 else num_beams * patience, longest), []


__all__ = ["SearchPlan", "plan_search"]
