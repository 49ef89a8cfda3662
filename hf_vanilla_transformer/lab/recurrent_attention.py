"""Before the Transformer: how a decoder state finds what it needs in the source (additive, multiplicative)."""

import torch
from torch import nn

from .recurrent_configuration import RecurrentConfig


class RecurrentAttention(nn.Module):
    """A distribution over the source for each query, and the mean of the encoder's states under it.

    Args:
        config: gives the width.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.key_proj = nn.Linear(config.d_model, config.d_model, bias=config.attention == "additive")

    def scores(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Scores (B, T, S) of queries (B, T, D) for keys (B, S, D), which are `key_proj` of the encoder's states."""
        raise NotImplementedError

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, states: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Looks at the source.

        Args:
            queries: (B, T, D) states of the decoder.
            keys: (B, S, D) `key_proj` of the encoder's states, the same for all queries.
            states: (B, S, D) the encoder's states h.
            mask: (B, S), non-zero for tokens; None for no padding.

        Returns:
            Contexts (B, T, D) and weights (B, T, S), which sum to 1 over the tokens of the source.
        """
        scores = self.scores(queries, keys)
        if mask is not None:
            scores = scores.masked_fill(mask.eq(0).unsqueeze(1), torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1)
        return weights @ states.to(weights.dtype), weights


class AdditiveAttention(RecurrentAttention):
    """Bahdanau et al. (2015): e_ij = v^T tanh(W h_j + U s_i + b), a small feed-forward network.

    Args:
        config: gives the width.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.query_proj = nn.Linear(config.d_model, config.d_model, bias=False)
        self.score_proj = nn.Linear(config.d_model, 1, bias=False)

    def scores(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """As in `RecurrentAttention`; takes memory for B x T x S x D numbers."""
        summed = self.query_proj(queries).unsqueeze(2) + keys.unsqueeze(1)  # (B, T, S, D)
        return self.score_proj(summed.tanh()).squeeze(-1)


class MultiplicativeAttention(RecurrentAttention):
    """Luong et al. (2015), "general": e_ij = (W h_j)^T s_i, a product of matrices."""

    def scores(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """As in `RecurrentAttention`."""
        return queries @ keys.transpose(1, 2).to(queries.dtype)


ATTENTIONS: dict[str, type[RecurrentAttention]] = {
    "additive": AdditiveAttention,
    "multiplicative": MultiplicativeAttention,
}
