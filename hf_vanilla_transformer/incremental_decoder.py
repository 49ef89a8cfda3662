"""§3.1 "Decoder" one position at a time, as §6.1 decodes: only the new position is computed, for all beams at once."""

import torch
from torch import nn
from transformers.cache_utils import DynamicLayer, EncoderDecoderCache

from .decoder import Decoder

# Room for so many positions at first; it doubles whenever it is full.
_ROOM = 32


class GrowingLayer(DynamicLayer):
    """The keys and values of one layer, kept in buffers with room to spare (§3.2.3, masked self-attention).

    transformers' own layer copies everything at each new position, which adds up to the square of the length.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Begins empty, with the type and device of the first states."""
        super().lazy_initialization(key_states, value_states)
        self._key_buffer: torch.Tensor | None = None
        self._value_buffer: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends (B, H, T, d_k) keys and (B, H, T, d_v) values.

        Args:
            key_states: the new keys.
            value_states: the new values.
            *args: what other kinds of layers take.
            **kwargs: likewise.

        Returns:
            All keys and all values: views of the buffers, good until the next call.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self._key_buffer = _append(self.keys, self._key_buffer, key_states)
        self.values, self._value_buffer = _append(self.values, self._value_buffer, value_states)
        return self.keys, self.values


def _append(states: torch.Tensor, buffer: torch.Tensor | None, new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    length = states.shape[-2] if states.dim() == 4 else 0
    end = length + new.shape[-2]
    # Whoever reorders or selects rows leaves states that are no longer the beginning of the buffer.
    is_ours = buffer is not None and states.data_ptr() == buffer.data_ptr() and len(states) == len(buffer)
    if buffer is None or not is_ours or end > buffer.shape[-2]:
        buffer = new.new_empty((*new.shape[:2], max(_ROOM, 2 * end), new.shape[-1]))
        if length:
            buffer[:, :, :length] = states
    buffer[:, :, length:end] = new
    return buffer[:, :, :end], buffer


class IncrementalDecoder:
    """Runs a decoder position by position; the K beams of a sentence are so many queries of one row.

    The beams share the keys and values of their source, which are projected once. Keys and values of the target are
    shared as well: each position appends those of its K beams, nothing is ever reordered, and a mask says which of them
    are a beam's ancestors. Layers are called as in any forward pass.

    Args:
        decoder: the decoder.
        lm_head: the pre-softmax projection.
        encoder_hidden_states: (B, S, D), the encoder's output.
        attention_mask: (B, S), non-zero for source tokens; None if all are.
        cache: an empty cache to fill.
    """

    def __init__(
        self,
        decoder: Decoder,
        lm_head: nn.Module,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        cache: EncoderDecoderCache,
    ) -> None:
        self.decoder, self.lm_head, self.cache = decoder, lm_head, cache
        self.encoder_hidden_states = encoder_hidden_states
        self.dtype, self.device = encoder_hidden_states.dtype, encoder_hidden_states.device
        self.hidden = torch.finfo(self.dtype).min
        self.encoder_mask: torch.Tensor | None = None
        if attention_mask is not None and not bool(attention_mask.all()):
            self.encoder_mask = self._zeros(*attention_mask.shape).masked_fill(attention_mask == 0, self.hidden)
            self.encoder_mask = self.encoder_mask[:, None, None]  # (B, 1, 1, S)
        self.length = 0
        self.positions = self._zeros(0, 0)
        self.ancestors: torch.Tensor | None = None

    def start(self, prefix: torch.Tensor) -> torch.Tensor:
        """Reads the prefix (B, P) that all beams of a sentence share; returns the logits (B, 1, V) after it."""
        length = prefix.shape[1]
        mask = self._zeros(length, length).fill_(self.hidden).triu_(1)[None, None] if length > 1 else None
        return self.lm_head(self._forward(prefix, mask, length)[:, -1:])

    def advance(self, tokens: torch.Tensor, parents: torch.Tensor | None = None) -> torch.Tensor:
        """Reads one more token of each beam.

        Args:
            tokens: (B, K).
            parents: (B, K), which beam of the position before each of them continues; None where K is 1.

        Returns:
            The logits (B, K, V) of what follows.
        """
        return self.lm_head(self._forward(tokens, None if parents is None else self._ancestry(parents), 1))

    def keep(self, rows: torch.Tensor) -> None:
        """Goes on with some of the sentences only: those at `rows`, 1-dimensional indices."""
        self.cache.batch_select_indices(rows)
        self.encoder_hidden_states = self.encoder_hidden_states[rows]
        if self.encoder_mask is not None:
            self.encoder_mask = self.encoder_mask[rows]
        if self.ancestors is not None:
            self.ancestors = self.ancestors[rows]

    def _forward(self, tokens: torch.Tensor, mask: torch.Tensor | None, new_positions: int) -> torch.Tensor:
        end = self.length + new_positions
        states = self.decoder.embed_tokens(tokens) + self._encoded_positions(end)[self.length : end]
        for layer in self.decoder.layers:
            states = layer(
                states,
                mask,
                self.encoder_hidden_states,
                encoder_attention_mask=self.encoder_mask,
                past_key_values=self.cache,
            )
        self.length = end
        return self.decoder.final_norm(states)

    def _ancestry(self, parents: torch.Tensor) -> torch.Tensor:
        batch_size, num_beams = parents.shape
        if self.ancestors is None:  # the prefix, which is everybody's
            ancestors = self._zeros(batch_size, num_beams, self.length)
        else:
            ancestors = self.ancestors.gather(1, parents.unsqueeze(-1).expand(-1, -1, self.ancestors.shape[-1]))
        itself = self._zeros(num_beams, num_beams).fill_(self.hidden).fill_diagonal_(0)
        self.ancestors = torch.cat([ancestors, itself.expand(batch_size, -1, -1)], dim=-1)
        return self.ancestors.unsqueeze(1)  # (B, 1, K, prefix + positions * K)

    def _encoded_positions(self, end: int) -> torch.Tensor:
        # What is added at each position, for many positions at a time; learned positions are limited in number.
        if end > len(self.positions):
            limit = self.decoder.config.max_position_embeddings
            count = max(_ROOM, 2 * end)
            count = count if limit is None else max(end, min(count, limit))
            nothing = self._zeros(1, count, self.decoder.config.d_model)
            self.positions = self.decoder.embed_positions(nothing, torch.arange(count, device=self.device)[None])[0]
        return self.positions

    def _zeros(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)
