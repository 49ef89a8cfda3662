"""§3.2.3 restricted: which keys a self-attention's queries may attend to, if not to all (§4, "restricted" of Table 1).

Each stack has one of these modules. A pattern asks for nothing but positions, so the same rule holds in training, for
cached decoding and in exported graphs. Eager and sdpa attention still compute the scores that it masks; flex attention
leaves out the blocks of them that no query may see.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from .attention import add_bias, additive_mask
from .configuration_vanilla_transformer import VanillaTransformerConfig


class FullPattern(nn.Module):
    """§3.2.3: every query may attend to every key that the other masks leave.

    Args:
        config: the model's config.
    """

    # Whether positions of keys are read, and whether there has to be a mask of numbers.
    reads_keys = False

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()

    def forward(
        self,
        attention_mask: Any,
        query_positions: torch.Tensor,
        key_positions: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> Any:
        """Masks what the pattern excludes.

        Args:
            attention_mask: the mask of the stack's self-attentions; with `reads_keys`, None, or (B or 1, 1, T, L)
                numbers to be added to scores, or booleans, or the `BlockMask` (B, 1, T, L) of flex attention.
            query_positions: (B, T) or (1, T) integers from 0.
            key_positions: (B, L) or (1, L), those of all keys; None unless `reads_keys`.
            dtype: type of the hidden states, and so of the mask.

        Returns:
            A mask of the same kind.
        """
        return attention_mask


class LocalPattern(FullPattern):
    """The "restricted" self-attention of §4: a query attends to keys at most `attention_window` positions away."""

    reads_keys = True

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        assert config.attention_window is not None  # the config refuses these patterns without it
        self.window = config.attention_window

    def forward(
        self,
        attention_mask: Any,
        query_positions: torch.Tensor,
        key_positions: torch.Tensor | None,
        dtype: torch.dtype,
    ) -> Any:
        """Masks what `may_attend` excludes; returns (B or 1, 1, T, L) numbers, or a `BlockMask` if it was given one."""
        assert key_positions is not None  # `reads_keys`
        if isinstance(attention_mask, BlockMask):
            return self._blocks(attention_mask, query_positions, key_positions)
        allowed = self.may_attend(query_positions.unsqueeze(-1), key_positions.unsqueeze(-2)).unsqueeze(1)
        return add_bias(attention_mask, additive_mask(allowed, dtype))

    def _blocks(
        self, attention_mask: BlockMask, query_positions: torch.Tensor, key_positions: torch.Tensor
    ) -> BlockMask:
        """What a mask of flex attention and the pattern both leave."""
        batch_size, _, length, num_keys = attention_mask.shape
        others, may_attend = attention_mask.mask_mod, self.may_attend
        queries, keys = query_positions.expand(batch_size, -1), key_positions.expand(batch_size, -1)

        def both(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            return others(batch, head, query, key) & may_attend(queries[batch, query], keys[batch, key])

        # Compiled on an accelerator, so that all T * L booleans are never in memory at once.
        make = create_block_mask if queries.device.type == "cpu" else torch.compile(create_block_mask)
        return make(both, batch_size, None, length, num_keys, device=queries.device)

    def may_attend(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Whether a query at one position may attend to a key at another.

        Args:
            queries: positions, broadcast against `keys`.
            keys: positions.

        Returns:
            Booleans; always True for a query and a key at the same position, and the same with the two exchanged.
        """
        return (queries - keys).abs() <= self.window


class StridedPattern(LocalPattern):
    """Sparse Transformers' strided pattern (Child et al., 2019): the window, and every `attention_stride`-th key."""

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        assert config.attention_stride is not None  # likewise
        self.stride = config.attention_stride

    def may_attend(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Whether a query may attend to a key: both near, or a multiple of the stride apart."""
        return LocalPattern.may_attend(self, queries, keys) | ((queries - keys) % self.stride == 0)


class LocalGlobalPattern(StridedPattern):
    """A window and global positions, as in Longformer (Beltagy et al., 2020): here every `attention_stride`-th.

    Global positions attend to all and are attended to by all, so any two positions are two steps apart.
    """

    def may_attend(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Whether a query may attend to a key: both near, or one of them global."""
        is_global = (queries % self.stride == 0) | (keys % self.stride == 0)
        return LocalPattern.may_attend(self, queries, keys) | is_global


class RandomPattern(LocalPattern):
    """A window and a random graph that grows linearly, as in BigBird (Zaheer et al., 2020) without its global tokens.

    Each position is linked with at most `num_random_keys` earlier ones, drawn by a hash of `attention_seed` and the
    position, maybe some twice: the graph of a longer text extends that of a shorter one. Few links make it a small
    world, in which any two positions are near to each other (Watts and Strogatz, 1998).
    """

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config)
        assert config.num_random_keys is not None  # likewise
        assert config.attention_seed is not None
        self.count, self.seed = config.num_random_keys, config.attention_seed

    def may_attend(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Whether a query may attend to a key: both near, or the later one linked with the earlier."""
        later, earlier = torch.maximum(queries, keys), torch.minimum(queries, keys)
        allowed = LocalPattern.may_attend(self, queries, keys)
        for number in range(self.count):
            allowed = allowed | (_scrambled(later, number, self.seed) % later.clamp(min=1) == earlier)
        return allowed


PATTERNS: dict[str, type[FullPattern]] = {
    "full": FullPattern,
    "local": LocalPattern,
    "strided": StridedPattern,
    "local_global": LocalGlobalPattern,
    "random": RandomPattern,
}


def dense_mask(attention_mask: Any, device: torch.device) -> torch.Tensor:
    """Who may attend to whom, read from a mask of any attention that takes such masks.

    Args:
        attention_mask: (B, 1, T, L) booleans, or numbers to be added to scores, or a `BlockMask`.
        device: where the positions of a `BlockMask` are.

    Returns:
        (B, T, L) booleans.
    """
    if isinstance(attention_mask, BlockMask):
        batch_size, _, length, num_keys = attention_mask.shape
        batch, queries, keys = (torch.arange(count, device=device) for count in (batch_size, length, num_keys))
        seen = attention_mask.mask_mod(batch[:, None, None], torch.zeros_like(batch[:1]), queries[:, None], keys)
        return seen.expand(batch_size, length, num_keys)
    return attention_mask[:, 0] if attention_mask.dtype == torch.bool else attention_mask[:, 0] == 0


def _scrambled(positions: torch.Tensor, number: int, seed: int) -> torch.Tensor:
    """A hash of each position, equal on all devices: integers from 0 to 2^31 - 1, by multiplications below 2^63."""
    offset = (number * 69_069 + seed * 7_919 + 12_345) & 0x7FFFFFFF
    bits = (positions.long() * 40_503 + offset) & 0x7FFFFFFF
    for factor in (73_244_475, 73_244_475):
        bits = ((bits ^ (bits >> 16)) * factor) & 0x7FFFFFFF
    return bits ^ (bits >> 16)
