"""§6.1 without beams: greedy search and sampling."""

from typing import Any

import torch

from .decoding_beam_search import CHUNK, Steps
from .decoding_rules import DecodingRules

# With fewer logits than this, chunks do not pay.
_WORTH_CHUNKS = 2**16


def decode_without_beams(
    steps: Steps, input_ids: torch.Tensor, rules: DecodingRules, streamer: Any = None
) -> torch.Tensor:
    """§6.1 without beams: greedy search or sampling, one token per sentence at each position.

    Args:
        steps: gives the logits.
        input_ids: (B, P), the prefix.
        rules: what ends a sentence, whether to sample, and how logits become scores.
        streamer: receives the tokens of each position; or None.

    Returns:
        (B, L) with the prefix. If nothing looks at all rows, finished sentences leave the batch.
    """
    limits, prefix_length = rules.limits, input_ids.shape[1]
    drop_done = rules.look_at_each_row_alone and streamer is None and not rules.returns_dict
    rows = torch.arange(len(input_ids), device=input_ids.device)  # the sentence of each row
    is_done = torch.zeros_like(rows, dtype=torch.bool)
    done: list[tuple[torch.Tensor, torch.Tensor]] = []
    ids, logits = input_ids, steps.start(input_ids)
    while True:
        scores = logits[:, -1] if rules.are_plain else rules.process(ids, logits[:, -1].float())
        if rules.do_sample:
            tokens = torch.multinomial(scores.float().softmax(-1), num_samples=1).squeeze(1)
        else:
            tokens = most_probable(scores)
        tokens = tokens.masked_fill(is_done, rules.padding_id)
        ids = torch.cat([ids, tokens.unsqueeze(1)], dim=1)
        if streamer is not None:
            streamer.put(tokens.cpu())
        for eos_token_id in rules.eos_token_ids:
            is_done = is_done | tokens.eq(eos_token_id)
        is_done = is_done | (limits <= ids.shape[1] - prefix_length)
        if (ended := rules.end(ids)) is not None:
            is_done = is_done | ended
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
    result = ids.new_full((len(input_ids), ids.shape[1]), rules.padding_id)
    for indices, sequences in [*done, (rows, ids)]:
        result[indices, : sequences.shape[1]] = sequences
    return result


def most_probable(scores: torch.Tensor) -> torch.Tensor:
    """The index of each row's largest score, the first if several are equal: argmax, but faster on a CPU.

    Args:
        scores: (B, V).

    Returns:
        (B,).
    """
    num_chunks = scores.shape[-1] // CHUNK
    if scores.numel() < _WORTH_CHUNKS:
        return scores.argmax(-1)
    chunked = scores[:, : num_chunks * CHUNK].unflatten(-1, (num_chunks, CHUNK))
    # If rows lie side by side in memory, reduce in that order.
    lie_side_by_side = scores.stride(0) == 1 < len(scores)
    maxima = chunked.permute(1, 2, 0).amax(1).t() if lie_side_by_side else chunked.amax(-1)  # (B, chunks)
    rest = scores[:, num_chunks * CHUNK :]
    if rest.shape[-1]:
        maxima = torch.cat([maxima, rest.amax(-1, keepdim=True)], dim=-1)
    chunks = maxima.argmax(-1, keepdim=True)
    places = chunks * CHUNK + torch.arange(CHUNK, device=scores.device)
    # Places beyond the end repeat the last one, and argmax takes the first.
    places = places.clamp(max=scores.shape[-1] - 1)
    return places.gather(1, scores.gather(1, places).argmax(-1, keepdim=True)).squeeze(1)
