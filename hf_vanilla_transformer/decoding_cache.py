"""§3.2.3 masked self-attention, step by step: what each kind of attention keeps of earlier positions.

It is one object per layer, which appends new positions (`update`, as transformers calls it), lets beams follow their
parents (`select`), and drops rows of the batch (`keep`). Linear attention over the encoder's output keeps the same sums
as linear self-attention, but those of the source, which are made once.
"""

import torch
from transformers.cache_utils import Cache, DynamicLayer, EncoderDecoderCache

# Initial capacity in positions; it doubles when it is full.
_ROOM = 32


class GrowingLayer(DynamicLayer):
    """The key/value cache of one layer, in buffers with spare capacity (§3.2.3, masked self-attention).

    transformers' own layer copies everything at each new position, which costs time quadratic in the length.
    """

    keys: torch.Tensor
    values: torch.Tensor
    # The K beams of a sentence are K queries of one row, and a mask tells each which keys are its ancestors'.
    is_shared_by_beams = True

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

    def select(self, parents: torch.Tensor) -> None:
        """Does nothing: beams share keys, and need another mask when their parents change, not other keys.

        Args:
            parents: (B, K), beams of the previous position.
        """

    def keep(self, rows: torch.Tensor) -> None:
        """Drops all rows of the batch but those at `rows`, 1-dimensional indices."""
        self.batch_select_indices(rows)


class RunningSums(DynamicLayer):
    """What linear attention keeps: sums of constant size, whatever the length (Katharopoulos et al., 2020).

    For each of K beams, `keys` (B, K, G, F) is the sum of the F features of all keys, and `values` (B, K, G, F, d_v)
    the sum of their products with the values, of G heads; K is 1 until beams are selected, and always of a source.
    """

    keys: torch.Tensor
    values: torch.Tensor
    is_shared_by_beams = False

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.is_recording = False
        self._forget()

    @classmethod
    def of_layer(cls, cache: Cache, layer_idx: int, of_source: bool = False) -> "RunningSums":
        """The sums of one layer of a cache, where they replace keys and values that are not there yet.

        Args:
            cache: a dynamic cache, which may be that of an encoder-decoder model; changed.
            layer_idx: index of the layer.
            of_source: whether the sums are those of the attention over the encoder's output. They are never added to,
                so that there they also replace static layers.

        Raises:
            ValueError: the layer of the cache has keys already, or is of a kind that is made for keys, such as a
                static one.
        """
        field, kept = ("cross_attention", "the source") if of_source else ("attention", "earlier positions")
        if isinstance(cache, EncoderDecoderCache):
            cache = cache.cross_attention_cache if of_source else cache.self_attention_cache
        layers = cache.layers
        while len(layers) <= layer_idx:
            layers.append(cls())
        found = layers[layer_idx]
        is_for_any = of_source or type(found) in (DynamicLayer, GrowingLayer)
        if is_for_any and not isinstance(found, cls) and found.get_seq_length() == 0:
            found = layers[layer_idx] = cls()
        if not isinstance(found, cls):
            raise ValueError(
                f"`{field}`='linear' keeps sums of {kept}, and layer {layer_idx} of the cache is a "
                f"{type(found).__name__} for keys and values, with {found.get_seq_length()} positions; give an empty "
                "DynamicCache, a cache that this model has returned, or none"
            )
        return found

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds T new positions of one sequence, or one new position of each of T = K beams.

        Args:
            key_states: (B, G, T, F), the features of the new keys, 0 for padding.
            value_states: (B, G, T, d_v), the new values.
            *args: arguments of other layers, unused.
            **kwargs: likewise.

        Returns:
            `keys` and `values`, the sums with the new positions.
        """
        beams = self.keys.shape[1] if self.length else 1
        new = key_states.shape[2]
        assert beams in (1, new), "a key for each beam"
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.is_recording:
            self._recorded.append((key_states, value_states))
        keys, values = _sums(key_states, value_states, one_each=beams == new)
        self.keys, self.values = (self.keys + keys, self.values + values) if self.length else (keys, values)
        self.length += 1 if beams > 1 else new
        self._latest = self.keys
        return self.keys, self.values

    def select(self, parents: torch.Tensor) -> None:
        """Gives each beam the sums of the beam that it continues.

        Args:
            parents: (B, K), beams of the previous position.
        """
        if not self.length:  # the decoder has lost this layer
            return
        parents = parents.clamp(max=self.keys.shape[1] - 1)  # one beam, the prefix, is everybody's parent
        rows = torch.arange(len(parents), device=parents.device).unsqueeze(1)
        self.keys, self.values = self.keys[rows, parents], self.values[rows, parents]

    def keep(self, rows: torch.Tensor) -> None:
        """Drops all rows but those at `rows`, 1-dimensional indices."""
        self.batch_select_indices(rows)

    def get_seq_length(self) -> int:
        """The number of positions in the sums, padding included."""
        return self.length

    def reset(self) -> None:
        """Starts anew."""
        super().reset()
        self.length = 0
        self._forget()

    def activate_past_recording(self) -> None:
        """Keeps the new positions too from now on, so that `crop` can take them back; for assisted decoding."""
        self.is_recording = True
        self._forget()

    def crop(self, tokens_to_remove: int) -> None:
        """Takes back the last positions, if they were recorded; forgets the other recorded ones.

        Args:
            tokens_to_remove: their number, negative.

        Raises:
            ValueError: the number is positive, fewer were recorded, or rows were reordered since.
        """
        if tokens_to_remove > 0:
            raise ValueError(f"crop({tokens_to_remove}): give the number of positions to take back as a negative one")
        count = -tokens_to_remove
        recorded = sum(keys.shape[2] for keys, _ in self._recorded)
        if count and (count > recorded or self.keys is not self._latest):
            raise ValueError(
                f"{count} positions cannot be taken out of the sums that `attention`='linear' keeps, of which "
                f"{recorded} were recorded in this order; call `activate_past_recording()` of the cache before it "
                "reads them"
            )
        if count:
            keys, values = (
                torch.cat(each, dim=2)[:, :, : recorded - count] for each in zip(*self._recorded, strict=True)
            )
            keys, values = _sums(keys, values, one_each=False)
            earlier = self._before
            self.keys, self.values = (keys, values) if earlier is None else (earlier[0] + keys, earlier[1] + values)
            self.length -= count
        self._forget()

    def _forget(self) -> None:
        self._recorded: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._before = (self.keys, self.values) if self.length else None
        self._latest = self.keys


# What a decoder's self-attention keeps, by the config's `attention`.
DECODING_STATES: dict[str, type[GrowingLayer] | type[RunningSums]] = {"softmax": GrowingLayer, "linear": RunningSums}


def _sums(keys: torch.Tensor, values: torch.Tensor, one_each: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums over all positions, (B, 1, G, F) and (B, 1, G, F, d_v), or of each alone, with T in place of 1."""
    if one_each:
        keys, values = keys.transpose(1, 2), values.transpose(1, 2)
        return keys, keys.unsqueeze(-1) * values.unsqueeze(-2)
    return keys.sum(2).unsqueeze(1), torch.matmul(keys.transpose(2, 3), values).unsqueeze(1)


def _with_room(states: torch.Tensor, length: int, new: torch.Tensor, end: int) -> torch.Tensor:
    buffer = new.new_empty((*new.shape[:2], max(_ROOM, 2 * end), new.shape[-1]))
    if length:
        buffer[:, :, :length] = states
    return buffer
