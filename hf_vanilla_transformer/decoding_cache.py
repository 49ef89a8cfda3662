"""§3.2.3 masked self-attention, step by step: a key/value cache that grows without copying."""

import torch
from transformers.cache_utils import DynamicLayer

# Initial capacity in positions; it doubles when it is full.
_ROOM = 32


class GrowingLayer(DynamicLayer):
    """The key/value cache of one layer, in buffers with spare capacity (§3.2.3, masked self-attention).

    transformers' own layer copies everything at each new position, which costs time quadratic in the length.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Starts empty, with the dtype and device of the first states."""
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
            *args: arguments of other layers, unused.
            **kwargs: likewise.

        Returns:
            All keys and all values: views of the buffers, unless gradients are enabled, valid until the next call.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.keys.shape[-2] if self.keys.dim() == 4 else 0
        new_length = key_states.shape[-2]
        end = length + new_length
        if torch.is_grad_enabled():  # the backward pass needs the old tensors
            self.keys = torch.cat([self.keys, key_states], dim=-2) if length else key_states
            self.values = torch.cat([self.values, value_states], dim=-2) if length else value_states
            return self.keys, self.values
        # After rows are reordered or selected, the states are no longer the beginning of the buffers.
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
