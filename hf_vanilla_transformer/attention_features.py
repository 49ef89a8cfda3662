"""§3.2.1 without softmax: features of queries and keys, by whose products linear attention weighs values.

softmax(q . k) is replaced by phi(q) . phi(k) (Katharopoulos et al., 2020); the features decide what that similarity is.
"""

import torch
from torch import nn

from .configuration_vanilla_transformer import VanillaTransformerConfig

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
