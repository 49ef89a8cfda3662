"""§6.1 beam search, independent of the model that gives the logits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

from .decoding_rules import DecodingRules
from .modeling_compatibility import SORTS_SAMPLED_CANDIDATES

# Chunk size: the search for the best logits first compares the maxima of chunks.
CHUNK = 64


class Steps(Protocol):
    """Source of the logits for a search, position by position."""

    def start(self, prefix: torch.Tensor) -> torch.Tensor:
        """Logits (B, 1, V) or (B, K, V) after a prefix (B, P). All logits are valid until the next call."""
        ...

    def advance(self, tokens: torch.Tensor, parents: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (B, K, V) after one more token (B, K) of each beam, which continues the beam `parents` (B, K)."""
        ...

    def keep(self, rows: torch.Tensor) -> None:
        """Drops all sentences but those at `rows`; requires `can_drop_rows`."""
        ...

    @property
    def can_drop_rows(self) -> bool:
        """Whether sentences may be dropped."""
        ...


def gnmt_length_penalty(length: int, alpha: float) -> float:
    """§6.1 "length penalty": ((5 + n) / 6)^alpha of Wu et al. (2016), the divisor of a log-probability.

    Args:
        length: n, tokens of the hypothesis, including `</s>` but not the start token.
        alpha: 0.6 in the paper; 0 means no penalty.

    Returns:
        The divisor.
    """
    return ((5 + length) / 6) ** alpha


@dataclass(frozen=True)
class Ranking:
    """How hypotheses are ranked, and when a sentence is decided.

    Args:
        num_beams: K, hypotheses to keep.
        num_wanted: how many of them to return.
        alpha: of `gnmt_length_penalty`; None for transformers' penalty, n^power.
        power: transformers' `length_penalty`.
        early_stopping: transformers' argument. With `alpha`, True stops at K hypotheses, as in transformers; any other
            value stops only once no open beam can win.
        may_rise: whether a token can raise the log-probability of a hypothesis, for example by an added bias. The score
            of an open beam then has no known bound.
    """

    num_beams: int
    num_wanted: int
    alpha: float | None
    power: float
    early_stopping: bool | str
    may_rise: bool = False

    def score(self, log_prob: float, length: int) -> float:
        """The log-probability of a hypothesis of `length` tokens, divided by the length penalty."""
        return log_prob / (length**self.power if self.alpha is None else gnmt_length_penalty(length, self.alpha))

    def is_decided(self, finished: list["Hypothesis"], best_open: float, length: int, limit: int) -> bool:
        """Whether a sentence needs no further step.

        Args:
            finished: its hypotheses, the best first.
            best_open: log-probability of the best beam that is still open.
            length: tokens of that beam.
            limit: maximum tokens of a hypothesis.

        Returns:
            With `alpha`: whether no continuation of an open beam can enter the n-best list, if log-probabilities do not
            rise and the penalty is bounded. Without: transformers' rule.
        """
        exact = self.alpha is not None and self.early_stopping is not True
        if len(finished) < (self.num_wanted if exact else self.num_beams):
            return False
        if self.early_stopping is True:
            return True
        if self.alpha is not None:
            if self.may_rise:
                return False
            best_length = limit if self.alpha > 0 else length + 1
            return self.score(best_open, best_length) <= finished[self.num_wanted - 1].score
        best_length = limit if self.early_stopping == "never" and self.power > 0 else length
        return self.score(best_open, best_length) <= finished[-1].score


class Hypothesis(NamedTuple):
    """A finished translation.

    Args:
        score: its log-probability, divided by the length penalty.
        tokens: 1-dimensional, without the prefix.
        beam_indices: 1-dimensional, for each token the row of logits it was chosen from, as in transformers.
    """

    score: float
    tokens: torch.Tensor
    beam_indices: torch.Tensor


class Position(NamedTuple):
    """What a search considered at one position, for an observer. A row is a sentence that was not dropped.

    Args:
        log_probs: (rows, K, V), of each next token of each beam, after the rules. The next position overwrites them.
        totals: (rows, 2K), log-probabilities of the continuations that were considered; -inf for impossible ones.
        parents: (rows, 2K), the beams that they continue.
        tokens: (rows, 2K), their last tokens.
        ends: (rows, 2K), whether each ends there.
    """

    log_probs: torch.Tensor
    totals: torch.Tensor
    parents: torch.Tensor
    tokens: torch.Tensor
    ends: torch.Tensor


class BeamSearch:
    """Searches for the best continuations of a prefix, K beams per sentence, all sentences at once.

    Each position considers the 2K best continuations of a sentence, or more if there are several end tokens. Of the
    first K, those that end with `</s>` or at the limit are finished. The first K that do not end become the beams of
    the next position.

    Args:
        steps: gives the logits.
        prefix: (B, P).
        ranking: how hypotheses are ranked.
        rules: what ends a hypothesis, whether to sample the 2K continuations, and how logits become scores.
        observer: called after each position, when its continuations are the beams of the search; or None.
    """

    def __init__(
        self,
        steps: Steps,
        prefix: torch.Tensor,
        ranking: Ranking,
        rules: DecodingRules,
        observer: "Observer | None" = None,
    ) -> None:
        self.steps, self.ranking, self.rules, self.observer = steps, ranking, rules, observer
        self.num_beams = ranking.num_beams
        self.num_candidates = max(2, 1 + len(rules.eos_token_ids)) * self.num_beams
        batch_size, self.prefix_length = prefix.shape
        self.finished: list[list[Hypothesis]] = [[] for _ in range(batch_size)]
        self.is_done = [False] * batch_size
        # State of the rows; each row is a sentence that was not dropped.
        self.sentences = list(range(batch_size))
        self.sequences = prefix.unsqueeze(1).expand(-1, self.num_beams, -1)  # (rows, K, L)
        self.beam_indices = prefix.new_empty(batch_size, self.num_beams, 0)
        self.totals = torch.full((batch_size, self.num_beams), -torch.inf, device=prefix.device)
        self.totals[:, 0] = 0  # all beams start as the same prefix, which is continued once
        self.limits = rules.limits
        self._first_beams = self._number_beams()
        self._log_probs = self.totals.new_empty(0)

    def run(self) -> list[list[Hypothesis]]:
        """Runs the search.

        Returns:
            The finished hypotheses of each sentence, at most K, the best first.
        """
        logits = self.steps.start(self.sequences[:, 0])
        while True:
            of_tokens = self._log_probs_of_tokens(logits)
            log_probs, indices = self._candidates(of_tokens)
            parents, tokens = indices // logits.shape[-1], indices % logits.shape[-1]
            ends = self._ends(parents, tokens)
            considered = (log_probs, parents, tokens, ends)
            any_ends = bool(ends.any())
            if any_ends:
                self._finish(log_probs, parents, tokens, ends)
            if any_ends or self.rules.do_sample:
                log_probs, best = log_probs.masked_fill(ends, -torch.inf).topk(self.num_beams)
                parents, tokens = parents.gather(1, best), tokens.gather(1, best)
            parents, tokens = self._continue(log_probs, parents, tokens)
            self._mark_decided(ends)
            if self.observer is not None:
                self.observer(self, Position(of_tokens, *considered))
            if all(self.is_done):
                return self.finished
            if self.rules.look_at_each_row_alone:
                rows = self._undecided_rows()
                if rows is not None:
                    parents, tokens = parents[rows], tokens[rows]
            logits = self.steps.advance(tokens, parents)

    @property
    def length(self) -> int:
        """Tokens of each open beam, without the prefix."""
        return self.sequences.shape[-1] - self.prefix_length

    def _log_probs_of_tokens(self, logits: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (rows, K, V) of the next tokens, after the rules."""
        if self.rules.are_plain:
            return self._log_softmax(logits.float()).expand(-1, self.num_beams, -1)
        logits = logits.float().expand(-1, self.num_beams, -1)
        return self.rules.process(self.sequences.flatten(0, 1), logits.flatten(0, 1)).view_as(logits)

    def _candidates(self, log_probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and indices beam * V + token of the continuations (rows, 2K) to consider."""
        if not self.rules.do_sample:
            return _best(log_probs, self.totals, self.num_candidates)
        totals = (log_probs + self.totals.unsqueeze(-1)).flatten(1)
        # A sentence without a possible continuation is done, but its row may still be there.
        weights = totals.softmax(-1).nan_to_num(1.0)
        indices = torch.multinomial(weights, self.num_candidates)
        if SORTS_SAMPLED_CANDIDATES:
            indices = indices.gather(1, totals.gather(1, indices).sort(dim=-1, descending=True).indices)
        return totals.gather(1, indices), indices

    def _log_softmax(self, logits: torch.Tensor) -> torch.Tensor:
        if logits.requires_grad:
            return logits.log_softmax(-1)
        # Reuses one buffer, because allocating so many numbers costs more than their softmax.
        if self._log_probs.numel() < logits.numel():
            self._log_probs = logits.new_empty(logits.numel())
        log_probs = self._log_probs[: logits.numel()].view_as(logits)
        return torch.log_softmax(logits.contiguous(), -1, out=log_probs)

    def _ends(self, parents: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        ends = (self.length + 1 >= self.limits).unsqueeze(1).expand_as(tokens)
        for eos_token_id in self.rules.eos_token_ids:
            ends = ends | tokens.eq(eos_token_id)
        if self.rules.criteria:
            sequences = torch.cat([_of_parents(self.sequences, parents), tokens.unsqueeze(-1)], dim=-1)
            ended = self.rules.end(sequences.flatten(0, 1))
            assert ended is not None
            ends = ends | ended.view_as(ends)
        return ends

    def _finish(self, log_probs: torch.Tensor, parents: torch.Tensor, tokens: torch.Tensor, ends: torch.Tensor) -> None:
        for row, rank in ends[:, : self.num_beams].nonzero().tolist():
            sentence, parent = self.sentences[row], int(parents[row, rank])
            log_prob = float(log_probs[row, rank].detach())
            if self.is_done[sentence] or log_prob == -torch.inf:  # impossible, so no hypothesis
                continue
            hypotheses = self.finished[sentence]
            score = self.ranking.score(log_prob, self.length + 1)
            if len(hypotheses) == self.num_beams and score <= hypotheses[-1].score:
                continue
            chosen_from = torch.full_like(tokens[row, :1], sentence * self.num_beams + parent)
            hypotheses.append(
                Hypothesis(
                    score,
                    torch.cat([self.sequences[row, parent, self.prefix_length :], tokens[row, rank : rank + 1]]),
                    torch.cat([self.beam_indices[row, parent], chosen_from]),
                )
            )
            hypotheses.sort(key=lambda hypothesis: -hypothesis.score)
            del hypotheses[self.num_beams :]

    def _continue(
        self, log_probs: torch.Tensor, parents: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Makes the first K continuations the beams of the next position; returns their parents and tokens."""
        self.totals, parents, tokens = (part[:, : self.num_beams] for part in (log_probs, parents, tokens))
        self.sequences = torch.cat([_of_parents(self.sequences, parents), tokens.unsqueeze(-1)], dim=-1)
        beams = (parents + self._first_beams).unsqueeze(-1)
        self.beam_indices = torch.cat([_of_parents(self.beam_indices, parents), beams], dim=-1)
        return parents, tokens

    def _mark_decided(self, ends: torch.Tensor) -> None:
        all_end, best, limits = ends.all(1).tolist(), self.totals[:, 0].tolist(), self.limits.tolist()
        for row, sentence in enumerate(self.sentences):
            self.is_done[sentence] = (
                self.is_done[sentence]
                or all_end[row]
                or best[row] == -torch.inf  # no possible beam is left
                or self.ranking.is_decided(self.finished[sentence], best[row], self.length, limits[row])
            )

    def _undecided_rows(self) -> torch.Tensor | None:
        """Drops decided sentences once they are a quarter of the rows, so that copying pays; returns the other rows."""
        rows = [row for row, sentence in enumerate(self.sentences) if not self.is_done[sentence]]
        if 4 * len(rows) > 3 * len(self.sentences) or not self.steps.can_drop_rows:
            return None
        self.sentences = [self.sentences[row] for row in rows]
        kept = torch.tensor(rows, device=self.totals.device)
        self.totals, self.sequences, self.beam_indices, self.limits = (
            state[kept] for state in (self.totals, self.sequences, self.beam_indices, self.limits)
        )
        self._first_beams = self._number_beams()
        self.steps.keep(kept)
        return kept

    def _number_beams(self) -> torch.Tensor:
        """The index (rows, 1) of each sentence's first beam, numbered as in transformers."""
        return torch.tensor(self.sentences, device=self.totals.device).unsqueeze(1) * self.num_beams


# Looks at a search while it runs.
Observer = Callable[[BeamSearch, Position], None]


def _best(scores: torch.Tensor, offsets: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` largest of scores (B, K, V) + offsets (B, K), as (B, count) values and indices k * V + v.

    All of them lie in the `count` chunks of V with the largest maxima, so only those are sorted.
    """
    batch_size, num_beams, vocab_size = scores.shape
    num_chunks = vocab_size // CHUNK
    if num_beams * num_chunks <= 2 * count:
        return (scores + offsets.unsqueeze(-1)).flatten(1).topk(count)
    chunked = scores[..., : num_chunks * CHUNK].unflatten(-1, (num_chunks, CHUNK))
    maxima = (chunked.amax(-1) + offsets.unsqueeze(-1)).flatten(1)  # (B, K * chunks)
    chunks = maxima.topk(count).indices
    beams, chunks = chunks // num_chunks, chunks % num_chunks
    start = beams * vocab_size + chunks * CHUNK
    places = (start.unsqueeze(-1) + torch.arange(CHUNK, device=scores.device)).flatten(1)
    if vocab_size % CHUNK:
        rest = torch.arange(num_chunks * CHUNK, vocab_size, device=scores.device)
        rest = (torch.arange(num_beams, device=scores.device).unsqueeze(1) * vocab_size + rest).flatten()
        places = torch.cat([places, rest.expand(batch_size, -1)], dim=1)
    values = scores.flatten(1).gather(1, places) + offsets.gather(1, places // vocab_size)
    best = values.topk(count)
    return best.values, places.gather(1, best.indices)


def _of_parents(states: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
    return states.gather(1, parents.unsqueeze(-1).expand(-1, -1, states.shape[-1]))  # (rows, K, L)


def stack_hypotheses(
    found: list[list[Hypothesis]], prefix: torch.Tensor, num_wanted: int, padding: int
) -> dict[str, Any]:
    """The n-best lists of all sentences, as transformers returns them.

    Args:
        found: what `BeamSearch.run` returned.
        prefix: (B, P).
        num_wanted: hypotheses per sentence.
        padding: the token that pads shorter ones.

    Returns:
        `sequences` (B * num_wanted, L) with the prefix, `sequences_scores` (B * num_wanted,), and `beam_indices`
        (B * num_wanted, L - P) with -1 as padding. If a vocabulary is too small for so many hypotheses, the missing
        ones have no token and the score -inf.
    """
    nothing = Hypothesis(-torch.inf, prefix.new_empty(0), prefix.new_empty(0))
    chosen = [(hypotheses + [nothing] * num_wanted)[:num_wanted] for hypotheses in found]
    flat = [hypothesis for hypotheses in chosen for hypothesis in hypotheses]
    tokens, beam_indices = (
        torch.nn.utils.rnn.pad_sequence([getattr(h, name) for h in flat], batch_first=True, padding_value=value)
        for name, value in (("tokens", padding), ("beam_indices", -1))
    )
    return {
        "sequences": torch.cat([prefix.repeat_interleave(num_wanted, dim=0), tokens], dim=1),
        "sequences_scores": torch.tensor([h.score for h in flat], device=prefix.device),
        "beam_indices": beam_indices,
    }
