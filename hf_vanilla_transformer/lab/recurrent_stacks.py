"""Before the Transformer: encoder and decoder of torch's recurrent layers, and the state that generation keeps."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput

from ..dropout import Dropout
from ..embeddings import TokenEmbedding
from ..encoder import derive_attention_mask, refuse_other_shape
from ..modeling_compatibility import strict_forward
from .recurrent_attention import ATTENTIONS
from .recurrent_configuration import RecurrentConfig

LAYERS: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
CELLS: dict[str, Any] = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}

# GNMT's residual connections begin at this layer, counted from 0.
_FIRST_RESIDUAL = 2


def with_forget_bias(bias: torch.Tensor, value: float) -> torch.Tensor:
    """Opens the forget gates of an LSTM: Gers et al. (2000), Jozefowicz et al. (2015).

    Args:
        bias: (4 D,) one of torch's two biases of a layer, which are added up: those of the input gate, the forget gate,
            the cell and the output gate.
        value: of the forget gate.

    Returns:
        A copy with that value.
    """
    gates = bias.detach().clone()
    gates.view(4, -1)[1] = value
    return gates


@dataclass
class RecurrentEncoderOutput(BaseModelOutput):
    """What the encoder hands to the decoder.

    Args:
        final_hidden: (B, L, D) the hidden state of each layer after the last token; of a bidirectional layer, that of
            both directions side by side.
        final_cell: (B, L, D) likewise the cell state of LSTMs; None for others.
    """

    final_hidden: torch.Tensor | None = None
    final_cell: torch.Tensor | None = None


class RecurrentCache(Cache):
    """The decoder's state after the tokens that it has read: all that generation has to keep, whatever the length."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.hidden: torch.Tensor | None = None
        self.cell: torch.Tensor | None = None
        self.keys: torch.Tensor | None = None
        self.length = 0

    def get_seq_length(self, *args: Any, **kwargs: Any) -> int:
        """How many tokens have been read."""
        return self.length

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Continues with the rows `beam_idx` (rows,) in place of those that there were."""
        for name in ("hidden", "cell", "keys"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, value.index_select(0, beam_idx.to(value.device)))

    def crop(self, *args: Any, **kwargs: Any) -> None:
        """Refused: a recurrent state cannot forget its last tokens.

        Raises:
            ValueError: always.
        """
        raise ValueError("a recurrent state cannot forget the tokens that it has read last; decode without drafts")


class RecurrentEncoder(nn.Module):
    """Reads the source, from both sides if the config says so; padding is skipped, wherever it stands.

    Args:
        config: the model's config.
    """

    main_input_name = "input_ids"  # generate() asks

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.pad_token_id = config.pad_token_id
        self.embed_tokens = TokenEmbedding(config.vocab_size, config.d_model)
        self.dropout = Dropout(config.dropout)
        self.is_residual = config.stack == "gnmt"
        self.layers = nn.ModuleList()
        for index in range(config.num_layers):
            both = config.bidirectional and (index == 0 or config.stack == "plain")
            width = config.d_model // 2 if both else config.d_model
            self.layers.append(LAYERS[config.cell](config.d_model, width, batch_first=True, bidirectional=both))

    @strict_forward
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> RecurrentEncoderOutput:
        """Encodes a batch of source sentences.

        Args:
            input_ids: (B, S) source tokens; or `inputs_embeds`.
            attention_mask: (B, S), non-zero for tokens and 0 for padding, on either side. By default it is derived
                from the `<pad>` tokens in `input_ids`.
            inputs_embeds: (B, S, D) in place of `input_ids`.
            **kwargs: `output_attentions` and `return_dict`, which have no effect here; `output_hidden_states` is
                refused.

        Returns:
            `last_hidden_state` (B, S, D), which is 0 at padding, and the final states.

        Raises:
            ValueError: neither or both of `input_ids` and `inputs_embeds` were given, the mask has another shape, or
                hidden states were requested.
        """
        if kwargs.get("output_hidden_states"):
            raise ValueError(
                "output_hidden_states=True: the layers of a recurrent model are not recorded; leave it out"
            )
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give the encoder either `input_ids` or `inputs_embeds`, and not both")
        if inputs_embeds is None:
            attention_mask = derive_attention_mask(input_ids, attention_mask, self.pad_token_id)
            inputs_embeds = self.embed_tokens(input_ids)
        batch_size, length, _ = inputs_embeds.shape
        if attention_mask is None:
            attention_mask = torch.ones(batch_size, length, dtype=torch.bool, device=inputs_embeds.device)
        refuse_other_shape("attention_mask", attention_mask, (batch_size, length), "the source")
        packed, places = _packed(self.dropout(inputs_embeds), attention_mask.ne(0))
        hidden, cell = [], []
        for index, layer in enumerate(self.layers):
            below = packed
            packed, final = layer(below)
            final = final if isinstance(final, tuple) else (final,)
            hidden.append(final[0].transpose(0, 1).flatten(1))
            cell += [each.transpose(0, 1).flatten(1) for each in final[1:]]
            data = packed.data + below.data if self.is_residual and index >= _FIRST_RESIDUAL else packed.data
            if index + 1 < len(self.layers):
                data = self.dropout(data)
            packed = packed._replace(data=data)
        states, _ = pad_packed_sequence(packed, batch_first=True, total_length=length)
        # Back to where the tokens stood: `places` says where each row of `states` comes from.
        unsorted = torch.zeros_like(states).scatter(1, places.unsqueeze(-1).expand_as(states), states)
        return RecurrentEncoderOutput(
            last_hidden_state=unsorted,
            final_hidden=torch.stack(hidden, dim=1),
            final_cell=torch.stack(cell, dim=1) if cell else None,
        )


def _packed(inputs: torch.Tensor, is_token: torch.Tensor) -> tuple[PackedSequence, torch.Tensor]:
    """Packs the tokens of (B, S, D), and says where in the source each of them (B, S) stood; padding comes last."""
    places = is_token.int().argsort(dim=1, descending=True, stable=True)
    in_order = inputs.take_along_dim(places.unsqueeze(-1), dim=1)
    lengths = is_token.sum(1).clamp(min=1).cpu()  # torch packs no empty row; its one state belongs to padding
    return pack_padded_sequence(in_order, lengths, batch_first=True, enforce_sorted=False), places


class RecurrentDecoder(nn.Module):
    """Writes the target, starting from the encoder's final states.

    Where attention feeds back into the lowest layer (`config.feeds_back`), that layer is a cell that goes step by step;
    all other layers read the whole target at once.

    Args:
        config: the model's config.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        width = config.d_model
        self.embed_tokens = TokenEmbedding(config.vocab_size, width)
        self.dropout = Dropout(config.dropout)
        self.is_gnmt = config.stack == "gnmt"
        self.attention = None if config.attention == "none" else ATTENTIONS[config.attention](config)
        self.lowest: nn.Module
        if config.feeds_back:
            self.lowest = CELLS[config.cell](2 * width, width)
        else:
            self.lowest = LAYERS[config.cell](width, width, batch_first=True)
        inputs = 2 * width if self.is_gnmt else width
        self.layers = nn.ModuleList(
            [LAYERS[config.cell](inputs, width, batch_first=True) for _ in range(config.num_layers - 1)]
        )
        has_readout = self.attention is not None and not self.is_gnmt
        self.readout = nn.Linear(2 * width, width, bias=False) if has_readout else None

    def forward(
        self,
        input_ids: torch.Tensor,
        encoder_states: torch.Tensor,
        encoder_mask: torch.Tensor | None,
        cache: RecurrentCache,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Decodes tokens, given all before them.

        Args:
            input_ids: (B, T) target tokens, shifted right; only the new ones.
            encoder_states: (B, S, D).
            encoder_mask: (B, S), non-zero for tokens, or None.
            cache: the state before these tokens; afterwards, that after them.

        Returns:
            Hidden states (B, T, D), and the weights (B, T, S) of the attention, or None.
        """
        assert cache.hidden is not None
        hidden, cell = list(cache.hidden.unbind(1)), None if cache.cell is None else list(cache.cell.unbind(1))
        if self.attention is not None and cache.keys is None:
            cache.keys = self.attention.key_proj(encoder_states)
        source = (cache.keys, encoder_states, encoder_mask)
        outputs = self.dropout(self.embed_tokens(input_ids))
        contexts = weights = None
        if isinstance(self.lowest, nn.RNNCellBase):
            outputs, contexts, weights = self._step_by_step(outputs, source, hidden, cell)
        else:
            outputs = _run(self.lowest, outputs, 0, hidden, cell)
        for index, layer in enumerate(self.layers, start=1):
            below = self.dropout(outputs)
            inputs = torch.cat([below, contexts], dim=-1) if self.is_gnmt and contexts is not None else below
            outputs = _run(layer, inputs, index, hidden, cell)
            if self.is_gnmt and index >= _FIRST_RESIDUAL:
                outputs = outputs + below
        if self.readout is not None and self.attention is not None:
            if contexts is None:
                contexts, weights = self.attention(outputs, *source)
            outputs = self.readout(torch.cat([contexts, outputs.to(contexts.dtype)], dim=-1)).tanh()
        cache.hidden = torch.stack(hidden, dim=1)
        cache.cell = None if cell is None else torch.stack(cell, dim=1)
        cache.length += input_ids.shape[1]
        return self.dropout(outputs), weights

    def _step_by_step(
        self, inputs: torch.Tensor, source: tuple[Any, ...], hidden: list[torch.Tensor], cell: list[torch.Tensor] | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Runs the lowest layer on (B, T, D), whose previous state decides what of the source it reads."""
        assert self.attention is not None
        outputs, contexts, weights = [], [], []
        state = hidden[0] if cell is None else (hidden[0], cell[0])
        for step in inputs.unbind(1):
            query = state if isinstance(state, torch.Tensor) else state[0]
            context, weight = self.attention(query.unsqueeze(1), *source)
            state = self.lowest(torch.cat([step, context.squeeze(1)], dim=-1), state)
            outputs.append(state if isinstance(state, torch.Tensor) else state[0])
            contexts.append(context)
            weights.append(weight)
        hidden[0] = outputs[-1]
        if cell is not None:
            cell[0] = state[1]
        return torch.stack(outputs, dim=1), torch.cat(contexts, dim=1), torch.cat(weights, dim=1)


def _run(
    layer: nn.Module, inputs: torch.Tensor, index: int, hidden: list[torch.Tensor], cell: list[torch.Tensor] | None
) -> torch.Tensor:
    """Runs a layer on (B, T, D) from its state, and puts its new state in the place of the old one."""
    state = hidden[index].unsqueeze(0).contiguous()
    if cell is None:
        outputs, final = layer(inputs, state)
        hidden[index] = final.squeeze(0)
    else:
        outputs, final = layer(inputs, (state, cell[index].unsqueeze(0).contiguous()))
        hidden[index], cell[index] = (each.squeeze(0) for each in final)
    return outputs
