"""§6.1 without beams: greedy search and sampling."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import StoppingCriteriaList

from .beam_search import Steps, most_probable


def choose_one_by_one(
    steps: Steps,
    input_ids: torch.Tensor,
    limits: torch.Tensor,
    config: GenerationConfig,
    process: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None,
    criteria: StoppingCriteriaList,
    outputs: dict[str, Any],
    streamer: Any,
) -> torch.Tensor:
    """§6.1 without beams: greedy search, or sampling, one token a sentence at each position.

    Args:
        steps: gives the logits.
        input_ids: (B, P), the prefix.
        limits: (B,), tokens that each sentence may have after it.
        config: whether to sample, and the special tokens.
        process: turns token ids (B, L) and logits (B, V) into scores; None: they are the scores.
        criteria: what else ends a sentence.
        outputs: what `process` keeps, for the criteria.
        streamer: is given the tokens of each position, or None.

    Returns:
        (B, L) with the prefix. Where nothing looks at all rows, sentences that are done leave the batch.
    """
    ends, padding, prefix_length = eos_token_ids(config), padding_id(config), input_ids.shape[1]
    drop_done = process is None and not (criteria or config.do_sample or streamer or config.return_dict_in_generate)
    rows = torch.arange(len(input_ids), device=input_ids.device)  # which sentence each row is
    is_done = torch.zeros_like(rows, dtype=torch.bool)
    done: list[tuple[torch.Tensor, torch.Tensor]] = []
    ids, logits = input_ids, steps.start(input_ids)
    while True:
        scores = logits[:, -1] if process is None else process(ids, logits[:, -1].float())
        if config.do_sample:
            tokens = torch.multinomial(scores.float().softmax(-1), num_samples=1).squeeze(1)
        else:
            tokens = most_probable(scores)
        tokens = tokens.masked_fill(is_done, padding)
        ids = torch.cat([ids, tokens.unsqueeze(1)], dim=1)
        if streamer is not None:
            streamer.put(tokens.cpu())
        for eos_token_id in ends:
            is_done = is_done | tokens.eq(eos_token_id)
        is_done = is_done | (limits <= ids.shape[1] - prefix_length)
        if criteria:
            is_done = is_done | criteria(ids, outputs["scores"])
        num_done = int(is_done.sum())
        if num_done == len(rows):
            break
        if drop_done and 4 * num_done >= len(rows):
            done.append((rows[is_done], ids[is_done]))
            kept = (~is_done).nonzero().squeeze(1)
            rows, ids, tokens, limits, is_done = (part[kept] for part in (rows, ids, tokens, limits, is_done))
            steps.keep(kept)
        logits = steps.advance(tokens.unsqueeze(1))
    if streamer is not None:
        streamer.end()
    result = ids.new_full((len(input_ids), ids.shape[1]), padding)
    for indices, sequences in [*done, (rows, ids)]:
        result[indices, : sequences.shape[1]] = sequences
    return result


def eos_token_ids(config: GenerationConfig) -> list[int]:
    """What ends a sentence, by a prepared `generation_config`; may be nothing."""
    return [] if config._eos_token_tensor is None else config._eos_token_tensor.flatten().tolist()


def padding_id(config: GenerationConfig) -> int:
    """What fills up sentences that are done, by a prepared `generation_config`."""
    if config._pad_token_tensor is not None:
        return int(config._pad_token_tensor)
    return next(iter(eos_token_ids(config)), 0)
