"""§3.4: token embeddings multiplied by sqrt(d_model)."""

import math

import torch
from torch import nn

from .configuration_vanilla_transformer import VanillaTransformerConfig


class TokenEmbedding(nn.Embedding):
    """§3.4 "Input Embedding" and "Output Embedding" of Figure 1: a learned vector per token, times sqrt(d_model).

    The factor belongs to the lookup and not to the matrix, so the matrix can be shared with the pre-softmax
    projection, which has no such factor.
    """

    @property
    def embed_scale(self) -> float:
        """sqrt(d_model), under the name that adapters use if they bypass `forward`."""
        return math.sqrt(self.embedding_dim)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Looks up the embeddings and scales them.

        Args:
            input: (B, L) token ids.

        Returns:
            (B, L, D) embeddings, ready for a position encoding to be added.
        """
        return super().forward(input) * self.embed_scale


def token_embedding(config: VanillaTransformerConfig, vocab_size: int) -> nn.Embedding:
    """§3.4: the embedding of one side of the model.

    Args:
        config: gives d_model, and whether embeddings are scaled.
        vocab_size: the number of tokens on that side.

    Returns:
        The paper's scaled embedding, or a plain one.
    """
    kind = TokenEmbedding if config.scale_embeddings else nn.Embedding
    return kind(vocab_size, config.d_model)


def with_scale(embedding: nn.Module, config: VanillaTransformerConfig) -> nn.Module:
    """§3.4: makes sure that a replacement embedding multiplies by sqrt(d_model) if the model's own does.

    Args:
        embedding: the replacement.
        config: says whether embeddings are scaled.

    Returns:
        A `TokenEmbedding`, or a plain embedding if embeddings are not scaled, with the same parameter. Other modules
        are returned unchanged, because those that wrap an embedding (adapters) call it.

    Raises:
        ValueError: embeddings are scaled, and one of another class has no `embed_scale`.
    """
    kind = TokenEmbedding if config.scale_embeddings else nn.Embedding
    if type(embedding) in (nn.Embedding, TokenEmbedding) and type(embedding) is not kind:
        assert isinstance(embedding, nn.Embedding)
        settings = ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
        replaced = kind(
            embedding.num_embeddings,
            embedding.embedding_dim,
            device="meta",
            **{name: getattr(embedding, name) for name in settings},
        )
        replaced.weight = embedding.weight
        return replaced
    if config.scale_embeddings and isinstance(embedding, nn.Embedding) and not hasattr(embedding, "embed_scale"):
        raise ValueError(
            f"a {type(embedding).__name__} does not say that it multiplies by sqrt(d_model), as the embeddings of this "
            "model do (`scale_embeddings`); give a `TokenEmbedding`, a plain `nn.Embedding`, or yours an `embed_scale`"
        )
    return embedding
