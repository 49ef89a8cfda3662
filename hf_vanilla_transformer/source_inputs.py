"""§3.1 "Encoder" without tokens: frames of numbers, as of a time series or a spectrogram, and patches of images.

The box "Input Embedding" of Figure 1 becomes one linear projection (with bias, and without the factor sqrt(d_model)) of
`source_stride` frames side by side, or of a square patch: what a convolution with equal kernel and stride computes. The
encoder is that much shorter than its input, and returns the mask of what remains, which the decoder attends by.
Positions (§3.5) number what remains, those of an image row by row: there is one dimension of them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_vanilla_transformer import VanillaTransformerConfig
from .encoder import Encoder, refuse_other_shape
from .modeling_compatibility import strict_forward


@dataclass
class EncodedSource(BaseModelOutput):
    """Output of an encoder that does not read tokens: transformers' output, and what to attend to of it.

    Args:
        attention_mask: (B, S), non-zero where `last_hidden_state` (B, S, D) is no padding; None, and not an item, if
            there is none.
    """

    attention_mask: torch.Tensor | None = None


class FrameEncoder(Encoder):
    """The encoder of `source_kind="frames"`: §3.1 after a projection of `source_stride` frames side by side.

    Args:
        config: the model's config; `source_width` is W, the features of a frame.
    """

    main_input_name = "input_features"

    def add_embedding(self, config: VanillaTransformerConfig) -> None:
        """Adds the projection of frames in place of an embedding of tokens."""
        width, stride = source_sizes(config)
        self.embed_frames = nn.Linear(stride * width, config.d_model)

    @strict_forward
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> EncodedSource:
        """Encodes a batch of sequences of frames.

        Args:
            input_features: (B, N, W) frames, best of about unit variance; or `inputs_embeds`. Zeros are added up to a
                multiple of `source_stride`.
            attention_mask: (B, N), non-zero for frames and 0 for padding, on either side; with `inputs_embeds`,
                (B, S). None if there is no padding. Frames of padded sources are moved to the left before they are
                grouped, so padding on the left changes no group; what is returned is then padded on the right.
            inputs_embeds: (B, S, D) in place of `input_features`, one vector for each position of the encoder.
            **kwargs: as in `Encoder`.

        Returns:
            `last_hidden_state` (B, S, D) with S = N / `source_stride`, rounded up; its `attention_mask` (B, S), if
            there was one; and the requested outputs.

        Raises:
            ValueError: not exactly one of the two inputs was given, or they or the mask have a wrong shape.
            TypeError: an argument is unknown.
        """
        _require_one(self.main_input_name, input_features, inputs_embeds)
        if inputs_embeds is None:
            assert input_features is not None
            frames, attention_mask = stacked_frames(self.config, input_features, attention_mask)
            inputs_embeds = _projected(self.embed_frames, frames)
        states = self.encode(inputs_embeds, attention_mask, **kwargs)
        return EncodedSource(last_hidden_state=states, attention_mask=attention_mask)

    @property
    def dummy_source(self) -> dict[str, Any]:
        """Frames of four positions, of which the second row fills two."""
        width, stride = source_sizes(self.config)
        mask = torch.ones(2, 4 * stride, dtype=torch.long, device=self.device)
        mask[1, 2 * stride :] = 0
        features = torch.linspace(-1, 1, mask.numel() * width, device=self.device)
        return {self.main_input_name: features.view(*mask.shape, width), "attention_mask": mask}


class PatchEncoder(Encoder):
    """The encoder of `source_kind="patches"`: §3.1 after a projection of square patches, row by row.

    Args:
        config: the model's config; `source_width` is C, the channels, and `source_stride` the side of a patch.
    """

    main_input_name = "pixel_values"

    def add_embedding(self, config: VanillaTransformerConfig) -> None:
        """Adds the projection of patches in place of an embedding of tokens."""
        channels, side = source_sizes(config)
        self.embed_patches = nn.Linear(channels * side**2, config.d_model)

    @strict_forward
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> EncodedSource:
        """Encodes a batch of images.

        Args:
            pixel_values: (B, C, height, width), best of about unit variance; or `inputs_embeds`. Height and width are
                multiples of `source_stride`.
            attention_mask: (B, S), non-zero for patches and 0 for padding, row by row. None if there is no padding.
            inputs_embeds: (B, S, D) in place of `pixel_values`, one vector for each patch.
            **kwargs: as in `Encoder`.

        Returns:
            `last_hidden_state` (B, S, D), with S patches; the `attention_mask`, if there was one; and the requested
            outputs.

        Raises:
            ValueError: not exactly one of the two inputs was given, or they or the mask have a wrong shape.
            TypeError: an argument is unknown.
        """
        _require_one(self.main_input_name, pixel_values, inputs_embeds)
        if inputs_embeds is None:
            assert pixel_values is not None
            inputs_embeds = _projected(self.embed_patches, cut_patches(self.config, pixel_values))
        states = self.encode(inputs_embeds, attention_mask, **kwargs)
        return EncodedSource(last_hidden_state=states, attention_mask=attention_mask)

    @property
    def dummy_source(self) -> dict[str, Any]:
        """Two images of two by two patches."""
        channels, side = source_sizes(self.config)
        pixels = torch.linspace(-1, 1, 8 * channels * side**2, device=self.device)
        return {self.main_input_name: pixels.view(2, channels, 2 * side, 2 * side)}


# By `source_kind`.
ENCODERS: dict[str, type[Encoder]] = {"tokens": Encoder, "frames": FrameEncoder, "patches": PatchEncoder}


def source_sizes(config: VanillaTransformerConfig) -> tuple[int, int]:
    """`source_width` and `source_stride` of a config that says frames or patches, which refuses to have neither."""
    assert config.source_width is not None
    assert config.source_stride is not None
    return config.source_width, config.source_stride


def stacked_frames(
    config: VanillaTransformerConfig, frames: torch.Tensor, attention_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Puts `source_stride` frames side by side; padding moves to the right and becomes zeros.

    Groups are thus those of the source without its padding, wherever that is.

    Args:
        config: gives `source_width`, W, and `source_stride`, k.
        frames: (B, N, W).
        attention_mask: (B, N), 0 for padding, on either side; or None.

    Returns:
        (B, S, k W), with S = N / k rounded up; and its mask (B, S), non-zero where there is a frame, or None.

    Raises:
        ValueError: frames or mask have another shape.
    """
    width, stride = source_sizes(config)
    if frames.dim() != 3 or frames.shape[2] != width:
        raise ValueError(
            f"`input_features` has the shape {tuple(frames.shape)}; expected (batch, frames, {width}), with "
            f"`source_width`={width} features last"
        )
    if attention_mask is not None:
        refuse_other_shape("attention_mask", attention_mask, (frames.shape[0], frames.shape[1]), "the source")
        is_padding = attention_mask.eq(0)
        frames = frames.masked_fill(is_padding.unsqueeze(-1), 0)
        order = is_padding.long().argsort(dim=1, stable=True)  # frames first; no value is read, which a graph cannot
        frames = frames.take_along_dim(order.unsqueeze(-1), dim=1)
        attention_mask = attention_mask.gather(1, order)[:, ::stride]  # a group whose first is padding has no frame
    frames = F.pad(frames, (0, 0, 0, -frames.shape[1] % stride))
    return frames.reshape(frames.shape[0], -1, stride * frames.shape[2]), attention_mask


def cut_patches(config: VanillaTransformerConfig, pixels: torch.Tensor) -> torch.Tensor:
    """Cuts images into square patches, row by row.

    Args:
        config: gives `source_width`, C, and `source_stride`, k.
        pixels: (B, C, height, width).

    Returns:
        (B, S, C k k), with S patches.

    Raises:
        ValueError: the images have other channels, or a size that is no multiple of k.
    """
    channels, side = source_sizes(config)
    if pixels.dim() != 4 or pixels.shape[1] != channels:
        raise ValueError(
            f"`pixel_values` has the shape {tuple(pixels.shape)}; expected (batch, {channels}, height, width), with "
            f"`source_width`={channels} channels"
        )
    if pixels.shape[2] % side or pixels.shape[3] % side:
        raise ValueError(
            f"`pixel_values` has images of {pixels.shape[2]} by {pixels.shape[3]}, which cannot be cut into patches of "
            f"`source_stride`={side}; pad them to multiples of it"
        )
    rows = pixels.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # (B, C, rows, k, columns, k)
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def source_of(main_input_name: str, given: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor | None]:
    """What an encoder reads, of all that a model can be given.

    Args:
        main_input_name: of the encoder.
        given: all inputs by name, None where there is none.

    Returns:
        The one that the encoder reads.

    Raises:
        ValueError: another was given.
    """
    wrong = [name for name, value in given.items() if value is not None and name != main_input_name]
    if wrong:
        raise ValueError(f"this model reads `{main_input_name}` (`source_kind`), and was given `{wrong[0]}`")
    return {main_input_name: given[main_input_name]}


def encoded_source(outputs: Any, attention_mask: torch.Tensor | None) -> tuple[BaseModelOutput, torch.Tensor | None]:
    """The output of an encoder, and the mask by which the decoder attends to it: its own, if it has one.

    Args:
        outputs: of an encoder; may be a tuple.
        attention_mask: (B, S), that of the encoder's output, if that does not have its own. One beside it is that of
            the encoder's input.

    Returns:
        The output, not as a tuple, and its mask or None.
    """
    if not isinstance(outputs, BaseModelOutput):
        last = outputs[-1]
        if isinstance(last, torch.Tensor) and last.dim() == 2:  # of `EncodedSource`; no other item is a matrix
            outputs = EncodedSource(*outputs[:-1], attention_mask=last)
        else:
            outputs = BaseModelOutput(*outputs[:3])
    own = outputs.get("attention_mask")
    return outputs, attention_mask if own is None else own


def source_length(source: torch.Tensor, stride: int | None) -> int:
    """How many positions of the encoder a source has at most.

    Args:
        source: token ids (B, S), frames (B, N, W), vectors (B, S, D), or images (B, C, height, width).
        stride: the side of a patch of images.

    Returns:
        S, exactly or a greater number.
    """
    if source.dim() < 4:
        return source.shape[1]
    return (source.shape[2] // (stride or 1)) * (source.shape[3] // (stride or 1))


def _projected(projection: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    """Embeds inputs in the weights' precision, as tokens are: all that the stack adds up stays in it under autocast."""
    return projection(inputs.to(projection.weight.dtype)).to(projection.weight.dtype)


def _require_one(name: str, source: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> None:
    if (source is None) == (inputs_embeds is None):
        raise ValueError(f"give the encoder either `{name}` or `inputs_embeds`, and not both")
