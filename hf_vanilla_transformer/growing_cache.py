"""§3.2.3 masked self-attention, step by step: a cache of keys and values that grows without copying."""

import torch
from transformers.cache_utils import DynamicLayer

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
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None
        self._views: tuple[torch.Tensor, torch.Tensor] | None = None

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
        length = self.keys.shape[-2] if self.keys.dim() == 4 else 0
        new_length = key_states.shape[-2]
        end = length + new_length
        if torch.is_grad_enabled():  # a backward pass needs what was there before
            self.keys = torch.cat([self.keys, key_states], dim=-2) if length else key_states
            self.values = torch.cat([self.values, value_states], dim=-2) if length else value_states
            return self.keys, self.values
        # Whoever reorders or selects rows leaves states that are no longer the beginning of the buffers.
        are_ours = self._views is not None and self.keys is self._views[0] and self.values is self._views[1]
        if (
            self._buffers is None
            or not are_ours
            or end > self._buffers[0].shape[-2]
            or (self._buffers[0].is_inference() and not torch.is_inference_mode_enabled())  # may not be written to
        ):
            self._buffers = (
                _with_room(self.keys, length, key_states, end),
                _with_room(self.values, length, value_states, end),
            )
        keys, values = self._buffers
        keys.narrow(2, length, new_length).copy_(key_states)
        values.narrow(2, length, new_length).copy_(value_states)
        self.keys, self.values = self._views = keys.narrow(2, 0, end), values.narrow(2, 0, end)
        return self._views


def _with_room(states: torch.Tensor, length: int, new: torch.Tensor, end: int) -> torch.Tensor:
    buffer = new.new_empty((*new.shape[:2], max(_ROOM, 2 * end), new.shape[-1]))
    if length:
        buffer[:, :, :length] = states
    return buffer
