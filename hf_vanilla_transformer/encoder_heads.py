"""§3.1 and BERT (Devlin et al., 2019): what an encoder alone has before its layers and after them."""

import torch
from torch import nn
from transformers.activations import ACT2FN

from .configuration_encoder_only import VanillaTransformerEncoderConfig
from .encoder import refuse_other_shape
from .modeling_compatibility import warn_about_token_types
from .norms import norm


class TokenTypes(nn.Embedding):
    """BERT's "segment embeddings": a learned vector for each type of token, added to the token's embedding.

    Args:
        config: gives `type_vocab_size` and d_model.
    """

    def __init__(self, config: VanillaTransformerEncoderConfig) -> None:
        super().__init__(config.type_vocab_size, config.d_model)

    def forward(self, embeddings: torch.Tensor, token_type_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Adds the vector of its type to each embedding.

        Args:
            embeddings: (B, S, D).
            token_type_ids: (B, S) integers below `type_vocab_size`; None means 0 everywhere.

        Returns:
            (B, S, D) sums.

        Raises:
            ValueError: there is not one type for each token.
        """
        if token_type_ids is None:
            token_type_ids = torch.zeros(1, 1, dtype=torch.long, device=embeddings.device)
        else:
            batch_size, length, _ = embeddings.shape
            refuse_other_shape("token_type_ids", token_type_ids, (batch_size, length), "the input")
        return embeddings + super().forward(token_type_ids)


class NoTokenTypes(nn.Module):
    """The paper's embeddings, which know no types; types that a tokenizer adds are left out with one warning."""

    def forward(self, embeddings: torch.Tensor, token_type_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Returns `embeddings` (B, S, D) unchanged."""
        if token_type_ids is not None:
            warn_about_token_types()
        return embeddings


def token_types(config: VanillaTransformerEncoderConfig) -> nn.Module:
    """§3.4: what adds types to the embeddings.

    Args:
        config: gives `type_vocab_size`.

    Returns:
        A module from embeddings (B, S, D) and types (B, S) or None to embeddings.
    """
    return TokenTypes(config) if config.type_vocab_size else NoTokenTypes()


class PredictionTransform(nn.Module):
    """The variant `masked_lm_head="transform"`: BERT's Norm(activation(x W + b)) before the pre-softmax projection.

    Args:
        config: gives d_model, the activation and the norm.
    """

    def __init__(self, config: VanillaTransformerEncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model)
        self.activation = ACT2FN[config.activation_function]
        self.norm = norm(config)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps (..., D) to (..., D)."""
        return self.norm(self.activation(self.dense(hidden_states)))


def prediction_transform(config: VanillaTransformerEncoderConfig) -> nn.Module:
    """§3.4: what stands between the last layer and the pre-softmax projection of a masked language model.

    Args:
        config: gives `masked_lm_head`.

    Returns:
        BERT's transform, or nothing, as in the paper.
    """
    return PredictionTransform(config) if config.masked_lm_head == "transform" else nn.Identity()


class MeanPooling(nn.Module):
    """The variant `pooling="mean"`: the mean of the states of all tokens, without padding."""

    def __init__(self, config: VanillaTransformerEncoderConfig) -> None:
        super().__init__()

    def forward(self, hidden_states: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
        """Maps states (B, S, D) and a mask (B, S), True at tokens, to (B, D)."""
        # Divided first, and not in half precision, in which counts are rounded and sums may overflow.
        tokens = is_token.to(torch.promote_types(hidden_states.dtype, torch.float32))
        shares = tokens / tokens.sum(dim=1, keepdim=True).clamp(min=1)
        return (hidden_states * shares.unsqueeze(-1)).sum(dim=1).to(hidden_states.dtype)


class FirstToken(nn.Module):
    """The variant `pooling="first"`: the state of the first token, wherever padding is."""

    def __init__(self, config: VanillaTransformerEncoderConfig) -> None:
        super().__init__()

    def forward(self, hidden_states: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
        """Maps states (B, S, D) and a mask (B, S), True at tokens, to (B, D)."""
        first = is_token.long().argmax(dim=1)  # of equal numbers, the first
        return hidden_states[torch.arange(len(first), device=first.device), first]


class FirstTokenTanh(FirstToken):
    """The variant `pooling="first_tanh"`, BERT's pooler: tanh(x W + b) of the state x of the first token.

    Args:
        config: gives d_model.
    """

    def __init__(self, config: VanillaTransformerEncoderConfig) -> None:
        super().__init__(config)
        self.dense = nn.Linear(config.d_model, config.d_model)

    def forward(self, hidden_states: torch.Tensor, is_token: torch.Tensor) -> torch.Tensor:
        """Maps states (B, S, D) and a mask (B, S), True at tokens, to (B, D)."""
        return torch.tanh(self.dense(super().forward(hidden_states, is_token)))


POOLINGS: dict[str, type[nn.Module]] = {"mean": MeanPooling, "first": FirstToken, "first_tanh": FirstTokenTanh}
