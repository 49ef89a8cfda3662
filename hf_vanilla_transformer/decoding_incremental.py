"""§3.1 "Decoder" one position at a time, for §6.1: only the new position is computed, for all beams at once."""

from typing import Any

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from .attention import additive_mask, attention_function, scaled_dot_product_attention
from .attention_features import FEATURE_MAPS
from .attention_linear_cross import CROSS_ATTENTIONS
from .attention_patterns import PATTERNS
from .attention_relative import PLAIN_SELF_ATTENTIONS, SELF_ATTENTIONS
from .decoder import DECODER_LAYERS, Decoder
from .decoder_only import VanillaTransformerDecoderModel
from .decoding_cache import DECODING_STATES
from .decoding_projection import SlicedProjection
from .encoder import ENCODER_LAYERS
from .feed_forward import FEED_FORWARDS
from .modeling_views import ModuleView, as_function, has_global_hook, is_changed
from .positions import NoPositions, SinusoidalPositions, refuse_unlearned_positions
from .positions_relative import RELATIONS

# The number of new positions between two removals of keys that no beam descends from any more.
_POSITIONS_BETWEEN_CLEARINGS = 32
# Encodings are computed for at least this many positions at a time.
_POSITIONS_AT_A_TIME = 32


class IncrementalDecoder:
    """Runs a decoder position by position; the K beams of a sentence are K queries in one row.

    The beams share the keys and values of their source, which are projected once. They also share those of the target:
    each position appends the keys and values of its K beams, nothing is reordered, and a mask marks each beam's
    ancestors. So a key's place is not its position. Linear attention keeps sums for each beam instead, which follow the
    beams' parents; or, over the source, sums that the beams share. The computation is `Decoder.through_layers`, as in
    `forward`.

    Args:
        decoder: a decoder that passes `can_share_rows`.
        lm_head: the pre-softmax projection.
        encoder_hidden_states: (B, S, D), the encoder's output.
        attention_mask: (B, S), non-zero for source tokens; None if all are.
        cache: an empty cache to fill.
        is_in_step: whether all rows are at the same position at the same time.
    """

    def __init__(
        self,
        decoder: Any,
        lm_head: nn.Module,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        cache: Any,
        is_in_step: bool = True,
    ) -> None:
        self.states = getattr(cache, "self_attention_cache", cache).layers
        self.decoder, self.cache, self.encoder_hidden_states = decoder, cache, encoder_hidden_states
        self.lm_head: nn.Module | SlicedProjection = lm_head
        is_called = as_function(lm_head, _AS_WRITTEN) is lm_head
        if not is_called and type(lm_head) is nn.Linear and SlicedProjection.is_for(lm_head.weight):
            self.lm_head = SlicedProjection(lm_head.weight, lm_head.bias)
        self.dtype, self.device = encoder_hidden_states.dtype, encoder_hidden_states.device
        self.lowest = torch.finfo(self.dtype).min
        self.encoder_mask: torch.Tensor | None = None
        if attention_mask is not None and not bool(attention_mask.all()):
            is_token = attention_mask.ne(0)
            reads_sums = decoder.config.cross_attention == "linear"  # which leave out padding: (B, S)
            self.encoder_mask = is_token if reads_sums else additive_mask(is_token, self.dtype)[:, None, None]
        # torch's fused attention on a CPU spreads a few queries over all cores, which costs more than it saves.
        is_written_out = self.device.type == "cpu" and self.dtype == torch.float32
        name = decoder.config._attn_implementation
        self.attention = scaled_dot_product_attention if is_written_out else attention_function(name)
        view: Any = ModuleView(decoder, _AS_WRITTEN)
        if is_in_step and view.embed_positions is not decoder.embed_positions:
            view.embed_positions = _EncodedAhead(decoder.embed_positions)
        self.embed_tokens, self.through_layers = view.embed_tokens, view.through_layers
        self.shares_keys = DECODING_STATES[decoder.config.attention].is_shared_by_beams
        self.length = 0
        self.key_positions: torch.Tensor | None = None  # (B or 1, keys), if the decoder reads them
        self.ancestors: torch.Tensor | None = None  # (B, K, keys), 0 for a beam's ancestors, else the lowest number
        self.cleared_at = 0

    def start(self, prefix: torch.Tensor) -> torch.Tensor:
        """Reads the prefix (B, P) that all beams of a sentence share; returns the logits (B, 1, V) after it."""
        length = prefix.shape[1]
        mask = None
        if length > 1 and self.shares_keys:
            mask = self._zeros(length, length).fill_(self.lowest).triu_(1)[None, None]
        positions = torch.arange(length, device=self.device)[None]
        return self.lm_head(self._forward(prefix, positions, mask, length)[:, -1:])

    def advance(self, tokens: torch.Tensor, parents: torch.Tensor | None = None) -> torch.Tensor:
        """Reads one more token of each beam.

        Args:
            tokens: (B, K).
            parents: (B, K), the beam of the previous position that each token continues; None if K is 1.

        Returns:
            The logits (B, K, V) of the next token.
        """
        positions = torch.full((1, tokens.shape[1]), self.length, device=self.device)
        return self._advance(tokens, positions, parents, None)

    def _advance(
        self, tokens: torch.Tensor, positions: torch.Tensor, parents: torch.Tensor | None, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """`advance` at positions (B or 1, K), with the mask of a single beam."""
        if parents is not None:
            for state in self.states:
                state.select(parents)
            mask = self._ancestry(parents) if self.shares_keys else None
        return self.lm_head(self._forward(tokens, positions, mask, 1))

    can_drop_rows = True

    def keep(self, rows: torch.Tensor) -> None:
        """Drops all sentences but those at `rows`, 1-dimensional indices."""
        for state in self.states:
            state.keep(rows)
        self.cache.cross_attention_cache.batch_select_indices(rows)
        self.encoder_hidden_states = self.encoder_hidden_states[rows]
        if self.encoder_mask is not None:
            self.encoder_mask = self.encoder_mask[rows]
        self._keep_masks(rows)

    def _keep_masks(self, rows: torch.Tensor) -> None:
        if self.ancestors is not None:
            self.ancestors = self.ancestors[rows]
        if self.key_positions is not None and len(self.key_positions) > 1:
            self.key_positions = self.key_positions[rows]

    def _forward(
        self, tokens: torch.Tensor, position_ids: torch.Tensor, mask: torch.Tensor | None, new_positions: int
    ) -> torch.Tensor:
        config, end = self.decoder.config, self.length + new_positions
        refuse_unlearned_positions(config, position_ids, end)
        if self.decoder.reads_key_positions:
            earlier = self.key_positions
            places = position_ids if earlier is None else position_ids.expand(len(earlier), -1)
            self.key_positions = places if earlier is None else torch.cat([earlier, places], dim=1)
        states = self._through_layers(self.embed_tokens(tokens), position_ids, mask)
        self.length = end
        return states

    def _through_layers(
        self, embeddings: torch.Tensor, position_ids: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        return self.through_layers(
            embeddings,
            position_ids,
            mask,
            self.encoder_hidden_states,
            self.encoder_mask,
            self.cache,
            self.key_positions,
            implementation=self.attention,
        )

    def _ancestry(self, parents: torch.Tensor) -> torch.Tensor:
        batch_size, num_beams = parents.shape
        if self.ancestors is None:  # the prefix, which all beams share
            ancestors = self._mask_of_prefix(batch_size, num_beams)
        else:
            ancestors = self.ancestors.gather(1, parents.unsqueeze(-1).expand(-1, -1, self.ancestors.shape[-1]))
        if self.length - self.cleared_at >= _POSITIONS_BETWEEN_CLEARINGS:
            ancestors = self._without_the_childless(ancestors)
            self.cleared_at = self.length
        itself = self._zeros(num_beams, num_beams).fill_(self.lowest).fill_diagonal_(0)
        self.ancestors = torch.cat([ancestors, itself.expand(batch_size, -1, -1)], dim=-1)
        return self.ancestors.unsqueeze(1)  # (B, 1, K, keys)

    def _mask_of_prefix(self, batch_size: int, num_beams: int) -> torch.Tensor:
        return self._zeros(batch_size, num_beams, self.length)

    def _without_the_childless(self, ancestors: torch.Tensor) -> torch.Tensor:
        """Drops keys that no beam descends from, if they are at least a quarter; maps (B, K, keys) to fewer."""
        is_needed = (ancestors == 0).any(1)  # (B, keys)
        count = int(is_needed.sum(1).max())
        if 4 * count > 3 * ancestors.shape[-1]:
            return ancestors
        # Needed keys first, in order; a sentence with fewer of them keeps some others, which stay masked.
        kept = is_needed.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
        for layer in self.states:
            if not layer.is_initialized:  # the decoder has lost a layer
                continue
            for name in ("keys", "values"):
                states = getattr(layer, name)  # (B, H, keys, d)
                places = kept[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[-1])
                setattr(layer, name, states.gather(2, places))
        if self.key_positions is not None:
            self.key_positions = self.key_positions.expand(len(kept), -1).gather(1, kept)
        return ancestors.gather(2, kept.unsqueeze(1).expand(-1, ancestors.shape[1], -1))

    def _zeros(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)


class _EncodedAhead:
    """Adds encodings of positions as a module does that is known to add; computes many positions at a time.

    It knows nothing of the decoder that calls it: a cycle of references would keep the cache after its last use.
    """

    def __init__(self, embed_positions: nn.Module) -> None:
        self.embed_positions, self.length = embed_positions, 0
        self.encodings = torch.empty(0)

    def __call__(self, embeddings: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        start, self.length = self.length, self.length + (position_ids.shape[1] if self.length == 0 else 1)
        if self.length > len(self.encodings):
            numbers = torch.arange(max(_POSITIONS_AT_A_TIME, 2 * self.length), device=embeddings.device)[None]
            nothing = embeddings.new_zeros(1, numbers.shape[1], embeddings.shape[-1])
            self.encodings = self.embed_positions(nothing, numbers)[0]
        return embeddings + self.encodings[start : self.length]


# Classes that see masks, positions and whole rows; others that can have a view; their own `forward`.
_ATTENTIONS: tuple[Any, ...] = (*PLAIN_SELF_ATTENTIONS.values(), *SELF_ATTENTIONS.values())
# With an encoder and without, the layers of a decoder, and the classes of their cross-attention.
_STACKS: dict[Any, tuple[Any, tuple[type, ...]]] = {
    Decoder: (DECODER_LAYERS, tuple(CROSS_ATTENTIONS.values())),
    VanillaTransformerDecoderModel: (ENCODER_LAYERS, (type(None),)),
}
_SEE_ROWS: tuple[Any, ...] = (
    *_STACKS,
    *_ATTENTIONS,
    *CROSS_ATTENTIONS.values(),
    *DECODER_LAYERS.values(),
    *ENCODER_LAYERS.values(),
)
_OTHERS: tuple[Any, ...] = (
    *FEED_FORWARDS.values(),
    SinusoidalPositions,
    NoPositions,
    *RELATIONS.values(),
    *PATTERNS.values(),
    *FEATURE_MAPS.values(),
)
_TAKE_ANY_MASK = (scaled_dot_product_attention, sdpa_attention_forward)
_AS_WRITTEN = {each: each.forward for each in (*_SEE_ROWS, *_OTHERS)}


def can_share_rows(decoder: Any) -> bool:
    """Whether the beams of a sentence can be queries of one row of `IncrementalDecoder`.

    All parts are called as modules, so any operation on single positions may be changed: adapters, quantised matrices,
    other feed-forward networks, norms, activations and dropout that is kept on. Foreign code that sees a whole row, in
    a hook or in place of an attention, a layer or the decoder, might mistake beams for positions, and places of keys
    for positions. Flash and flex attention take no ancestor mask.

    Args:
        decoder: any decoder.

    Returns:
        False if there is such code; each beam then needs its own row.
    """
    if type(decoder) not in _STACKS:
        return False
    layers: Any = decoder.layers
    kinds, cross_attentions = _STACKS[type(decoder)]
    return (
        attention_function(decoder.config._attn_implementation) in _TAKE_ANY_MASK
        and not has_global_hook()
        and all(each.forward is _AS_WRITTEN[each] for each in _SEE_ROWS)
        and not any(is_changed(part) for part in decoder.modules())
        and all(
            type(layer) in kinds.values()
            and type(getattr(layer, "self_attention", None)) in _ATTENTIONS
            and type(getattr(layer, "cross_attention", None)) in cross_attentions
            for layer in layers
        )
        and len({layer.self_attention.layer_idx for layer in layers}) == len(layers)
    )
