"""§3.2 without softmax: attention in time linear in the length, by features of queries and keys and running sums.

softmax(q . k) is replaced by phi(q) . phi(k), so that sum_j phi(k_j) v_j^T, which does not depend on the query, is
computed once (Katharopoulos et al., 2020). The features decide what that similarity is.
"""

import contextlib
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask

from .attention import AttentionFunction, MultiHeadAttention, refuse_without_effect, split_heads
from .configuration_vanilla_transformer import VanillaTransformerConfig
from .decoding_cache import RunningSums

# Causal sums are kept for every so many positions: each needs as much memory as F positions' keys.
CHUNK = 64
# Keys weigh at least e^-60 and at most e^60, so that sums over any length are finite and above 0 in float32.
_LARGEST_EXPONENT = 60.0


class EluFeatures(nn.Module):
    """phi(x) = elu(x) + 1 (Katharopoulos et al., 2020): positive, one feature for each dimension.

    Args:
        config: the model's config.
    """

    # The least denominator: a query that attends to nothing, such as padding, divides 0 by it. Gradients are finite.
    least = 1e-30

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()

    def forward(self, states: torch.Tensor, are_keys: bool) -> torch.Tensor:
        """Maps queries or keys (..., L, d_k) to features (..., L, F) of the same type.

        Args:
            states: of one head or of several.
            are_keys: whether they are keys; a factor of a query's features cancels in the quotient, that of a key's is
                its weight.
        """
        return nn.functional.elu(states) + 1


class ReluFeatures(EluFeatures):
    """phi(x) = max(0, x), one feature for each dimension; a query that no key resembles attends to nothing."""

    def forward(self, states: torch.Tensor, are_keys: bool) -> torch.Tensor:
        """Maps queries or keys (..., L, d_k) to features (..., L, d_k)."""
        return torch.relu(states)


class RandomFeatures(EluFeatures):
    """FAVOR+ (Choromanski et al., 2021): positive orthogonal random features, whose attention estimates softmax's.

    With m random directions w and x scaled by d_k^(-1/4), phi(x)_i = exp(w_i . x - |x|^2 / 2) / sqrt(m) has the
    expectation phi(q) . phi(k) = exp(q . k / sqrt(d_k)). All heads and layers have the same directions.
    """

    directions: torch.Tensor

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        assert config.d_k is not None  # the config resolves all three
        assert config.num_random_features is not None
        assert config.feature_seed is not None
        self.shape, self.seed, self.scale = (
            (config.num_random_features, config.d_k),
            config.feature_seed,
            config.d_k**-0.25,
        )
        self.register_buffer("directions", self.drawn().to(torch.get_default_device()))  # also where that is "meta"

    def drawn(self) -> torch.Tensor:
        """Draws the directions (m, d_k) anew, by the seed."""
        return orthogonal_directions(*self.shape, self.seed)

    def forward(self, states: torch.Tensor, are_keys: bool) -> torch.Tensor:
        """Maps queries or keys (..., L, d_k) to features (..., L, m)."""
        states, products = self._projected(states)
        if are_keys:
            exponents = products - states.square().sum(-1, keepdim=True) / 2
            return exponents.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT).exp() * self.shape[0] ** -0.5
        return (products - products.detach().amax(-1, keepdim=True)).exp()

    def _projected(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states = states * self.scale
        return states, torch.matmul(states, self.directions.to(states.dtype).t())


class CosineSineFeatures(RandomFeatures):
    """Random Fourier features (Rahimi and Recht, 2007): cosines and sines of m random projections.

    phi(x) = (cos(w_1 . x), ..., sin(w_1 . x), ...) / sqrt(m) has the expectation phi(q) . phi(k) = exp(-|q - k|^2 / 2),
    so that keys weighted by exp(|k|^2 / 2) give softmax's attention. Estimates may be negative, and a sum of them near
    zero, which is why Performers have positive features: here a sum below the noise of one estimate, 1 / sqrt(m),
    counts as that.
    """

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        self.least = self.shape[0] ** -0.5

    def forward(self, states: torch.Tensor, are_keys: bool) -> torch.Tensor:
        """Maps queries or keys (..., L, d_k) to features (..., L, 2m)."""
        states, angles = self._projected(states)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1) * self.shape[0] ** -0.5
        if not are_keys:
            return waves
        exponents = states.square().sum(-1, keepdim=True) / 2
        return waves * exponents.clamp(max=_LARGEST_EXPONENT).exp()


FEATURE_MAPS: dict[str, type[EluFeatures]] = {
    "elu": EluFeatures,
    "relu": ReluFeatures,
    "random": RandomFeatures,
    "cosine_sine": CosineSineFeatures,
}


def num_features(config: VanillaTransformerConfig) -> int:
    """F, the number of features of a query or key.

    Args:
        config: of a model with linear attention.
    """
    assert config.d_k is not None  # the config resolves it
    directions = config.num_random_features or config.d_k
    return 2 * directions if config.feature_map == "cosine_sine" else directions


class LinearAttention(MultiHeadAttention):
    """Self-attention in linear time: sum_j phi(q_i) . phi(k_j) v_j / sum_j phi(q_i) . phi(k_j) for each query i.

    In the decoder j runs to i, by sums that grow from chunk to chunk. There is no implementation to choose.
    """

    def __init__(self, config: VanillaTransformerConfig, layer_idx: int | None = None, is_causal: bool = False) -> None:
        super().__init__(config, layer_idx, is_causal)
        assert config.feature_map is not None  # the config resolves it
        self.feature_map = FEATURE_MAPS[config.feature_map](config)
        self.least = self.feature_map.least  # here too, because step-by-step decoding makes a function of the module

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        key_value_states: torch.Tensor | None = None,
        cache: Cache | None = None,
        implementation: str | AttentionFunction | None = None,
        positions: Any = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends from each position of `hidden_states` over all of them, or over all up to it.

        Args:
            hidden_states: (B, T, D). With a cache of K > 1 beams, these are T = K beams at one position.
            attention_mask: (B, T), True for tokens and False for padding; or None.
            key_value_states: None, as this is self-attention.
            cache: has `RunningSums`, or gets them; extended in place.
            implementation: that of other attentions.
            positions: what the stack's module of `positions_relative` returned.
            **kwargs: those of `PASSED_ON`.

        Returns:
            (B, T, D); and the weights (B, H, T, T) if `output_attentions`, here or in the config, asks for them.

        Raises:
            TypeError: an argument is unknown, or has no effect.
            ValueError: weights are asked for, and the cache holds earlier positions, of which there are only sums.
        """
        assert key_value_states is None
        if kwargs:
            refuse_without_effect(kwargs, implementation or self.config._attn_implementation)
        query = split_heads(self.q_proj(hidden_states), self.d_k)  # (B, H, T, d_k)
        key, value = self._project(hidden_states)  # (B, G, T, d_k), (B, G, T, d_v)
        if positions is not None:
            query, key = self._place(query, key, positions)
        asked = kwargs.get("output_attentions")
        has_weights = self.config.output_attentions if asked is None else asked
        # At least in float32, because sums of many small numbers would lose them.
        precision = torch.promote_types(query.dtype, torch.float32)
        with _without_autocast(query.device.type):
            queries = self.feature_map(query.to(precision), are_keys=False).unflatten(1, (key.shape[1], -1))
            keys = self.feature_map(key.to(precision), are_keys=True)
            if attention_mask is not None:
                keys = keys.masked_fill(~attention_mask[:, None, :, None], 0)
            sums = self._sums(queries, keys, value.to(precision), cache, has_weights)
            heads = (sums[0] / sums[1].clamp(min=self.least)).flatten(1, 2).to(value.dtype)  # (B, H, T, d_v)
            weights = self._weights(queries, keys).to(value.dtype) if has_weights else None
        return self.out_proj(heads.transpose(1, 2).flatten(2)), weights

    def _sums(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, cache: Cache | None, has_weights: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Numerators (B, G, R, T, d_v) and denominators (B, G, R, T, 1) of R = H / G queries for each head of keys."""
        if cache is None and not self.is_causal:
            return _read(queries, keys.sum(2)[:, :, None], torch.matmul(keys.transpose(2, 3), values)[:, :, None])
        if cache is None:
            return causal_sums(queries, keys, values)
        assert self.layer_idx is not None
        state = RunningSums.of_layer(cache, self.layer_idx)
        if state.length and has_weights:
            raise ValueError(
                f"`output_attentions` asks for the weights of {state.length} earlier positions, of which "
                "`attention`='linear' keeps only sums; pass use_cache=False"
            )
        earlier = (state.keys[:, 0], state.values[:, 0]) if state.length else None
        key_sums, value_sums = state.update(keys, values)
        if key_sums.shape[1] != queries.shape[3]:
            return causal_sums(queries, keys, values, earlier)
        # One position: each query reads the sums of its beam.
        of_beams = _read(queries.permute(0, 3, 1, 2, 4), key_sums, value_sums)  # (B, K, G, R, ...)
        return of_beams[0].permute(0, 2, 3, 1, 4), of_beams[1].permute(0, 2, 3, 1, 4)

    def _weights(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        products = torch.matmul(queries, keys.unsqueeze(2).transpose(-2, -1))  # (B, G, R, T, T)
        if self.is_causal:
            products = products.tril()
        return (products / products.sum(-1, keepdim=True).clamp(min=self.least)).flatten(1, 2)


def causal_sums(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    earlier: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each query, the sums over all keys up to its own position: in linear time, and in memory linear in T.

    Within a chunk of positions products of queries and keys are written out; all earlier chunks are one sum.

    Args:
        queries: (B, G, R, T, F) features of R queries for each head of keys.
        keys: (B, G, T, F) features, 0 for padding.
        values: (B, G, T, d_v).
        earlier: the sums over still earlier positions, (B, G, F) of keys and (B, G, F, d_v) of their products with
            values; or None.

    Returns:
        sum_j phi(q_i) . phi(k_j) v_j, (B, G, R, T, d_v), and sum_j phi(q_i) . phi(k_j), (B, G, R, T, 1).
    """
    length = queries.shape[-2]
    # A graph for any length cannot cut it into chunks, and takes time and memory quadratic in it.
    is_one = torch.compiler.is_exporting() or length <= CHUNK
    size, chunks = (length, 1) if is_one else (CHUNK, -(-length // CHUNK))
    padding = (0, 0, 0, chunks * size - length)
    queries, keys, values = (
        nn.functional.pad(each, padding).unflatten(-2, (chunks, size))
        for each in (queries, keys[:, :, None], values[:, :, None])
    )  # (B, G, R or 1, chunks, size, ...)
    products = torch.matmul(queries, keys.transpose(-2, -1)).tril()
    numerators, denominators = torch.matmul(products, values), products.sum(-1, keepdim=True)
    if chunks > 1 or earlier is not None:
        sums = keys.sum(-2), torch.matmul(keys.transpose(-2, -1), values)  # (B, G, 1, chunks, F), (..., F, d_v)
        before = _read(
            queries, *(_before_each(each, None if earlier is None else earlier[i]) for i, each in enumerate(sums))
        )
        numerators, denominators = numerators + before[0], denominators + before[1]
    return numerators.flatten(3, 4)[:, :, :, :length], denominators.flatten(3, 4)[:, :, :, :length]


def key_mask(
    config: VanillaTransformerConfig,
    inputs_embeds: torch.Tensor,
    attention_mask: Any,
    cache: Cache | None = None,
    is_causal: bool = False,
) -> torch.Tensor | None:
    """Which of the new positions are tokens: the only mask that sums can have. Takes what transformers' masks take.

    Args:
        config: the model's config.
        inputs_embeds: (B, T, D), the new positions.
        attention_mask: (B, L), non-zero for tokens, of cached and new positions; or (B, 1, T, L), booleans or numbers
            to be added to scores, that hide padding and, if `is_causal`, later positions; or None.
        cache: holds the cached positions.
        is_causal: whether earlier positions are all that is attended to.

    Returns:
        (B, T) booleans, True for tokens; or None.

    Raises:
        ValueError: the mask hides anything else.
    """
    if attention_mask is None:
        return None
    start, length = 0 if cache is None else cache.get_seq_length(), inputs_embeds.shape[1]
    if isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2:
        return attention_mask[:, start : start + length].to(inputs_embeds.device) != 0
    if isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 4:
        may_attend = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
        is_token = may_attend[:, 0, -1]  # the last query sees all keys but padding
        expected = is_token[:, None, None]
        if is_causal:
            places = torch.arange(is_token.shape[1], device=is_token.device)
            expected = expected & (places <= places[start : start + length, None])
        if torch.compiler.is_compiling() or bool((may_attend == expected).all()):
            return is_token[:, start : start + length]
    raise ValueError(
        "`attention_mask` hides more than padding" + " and later positions" * is_causal + ", which sums cannot leave "
        f"out for single queries (`attention`='linear'); give a mask (B, {start + length}) of the tokens, or use a "
        "model with `attention`='softmax'"
    )


def causal_key_mask(
    config: VanillaTransformerConfig,
    inputs_embeds: torch.Tensor,
    attention_mask: Any,
    cache: Cache | None = None,
    position_ids: torch.Tensor | None = None,
    block_sequence_ids: None = None,
) -> torch.Tensor | None:
    """`key_mask` of the decoder, which also takes masks (B, 1, T, L) that hide later positions.

    Args:
        config: as in `key_mask`.
        inputs_embeds: likewise.
        attention_mask: likewise.
        cache: likewise.
        position_ids: not read, because models refuse packed texts, which sums do not keep apart.
        block_sequence_ids: None, because sums leave out nothing for single queries.

    Raises:
        ValueError: as in `key_mask`.
    """
    return key_mask(config, inputs_embeds, attention_mask, cache, is_causal=True)


# Who makes the masks of the encoder's and of the decoder's self-attentions, by the config's `attention`.
ENCODER_MASKS = {"softmax": create_bidirectional_mask, "linear": key_mask}
DECODER_MASKS = {"softmax": create_causal_mask, "linear": causal_key_mask}


def orthogonal_directions(count: int, width: int, seed: int) -> torch.Tensor:
    """Random vectors, each distributed as N(0, 1) in all dimensions, of which `width` at a time are orthogonal.

    Args:
        count: m, the number of vectors.
        width: d_k.
        seed: gives the same vectors on every machine and device.

    Returns:
        (m, d_k) in float32.
    """
    generator = torch.Generator().manual_seed(seed)

    def gaussian(rows: int) -> torch.Tensor:
        return torch.randn(rows, width, generator=generator, dtype=torch.float64, device="cpu")

    blocks = []
    for _ in range(-(-count // width)):
        rotation, triangle = torch.linalg.qr(gaussian(width))
        blocks.append(rotation * triangle.diagonal().sign())  # uniform among all rotations
    lengths = gaussian(count).norm(dim=1, keepdim=True)
    return (torch.cat(blocks)[:count] * lengths).float()


def _read(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Products of features (..., T, F) with sums (..., F) and (..., F, d_v)."""
    return torch.matmul(queries, values), torch.matmul(queries, keys.unsqueeze(-1))


def _before_each(sums: torch.Tensor, earlier: torch.Tensor | None) -> torch.Tensor:
    """Sums over all chunks (B, G, 1, chunks, ...) before each, and over `earlier` (B, G, ...)."""
    first = torch.zeros_like(sums[:, :, :, 0]) if earlier is None else earlier.unsqueeze(2)
    return torch.cat([first.unsqueeze(3), sums[:, :, :, :-1]], dim=3).cumsum(3)


def _without_autocast(device_type: str) -> contextlib.AbstractContextManager[Any]:
    is_on = torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, enabled=False) if is_on else contextlib.nullcontext()
