"""Recurrent encoder and decoder: against torch's cells step by step, with padding anywhere, with residuals."""

import math

import pytest
import torch
from torch import nn

from hf_vanilla_transformer.lab.recurrent_configuration import RecurrentConfig
from hf_vanilla_transformer.lab.recurrent_stacks import (
    CELLS,
    RecurrentCache,
    RecurrentDecoder,
    RecurrentEncoder,
    with_forget_bias,
)

WIDTH = 8


def config(**fields):
    return RecurrentConfig(**{"vocab_size": 20, "d_model": WIDTH, "dropout": 0.0, **fields})


def cell_of(layer, kind, backwards=False):
    """The cell with the weights of a layer of torch."""
    cell = CELLS[kind](layer.input_size, layer.hidden_size)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(cell, name, nn.Parameter(getattr(layer, f"{name}_l0{'_reverse' if backwards else ''}").detach()))
    return cell.to(layer.weight_ih_l0.dtype)


def stepped(cell, inputs, state=None):
    """All outputs (S, D) of a cell on (S, D), one by one, and its last state."""
    outputs = []
    for step in inputs:
        state = cell(step.unsqueeze(0), state)
        outputs.append((state[0] if isinstance(state, tuple) else state)[0])
    return torch.stack(outputs), state


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_encoder_is_cells_step_by_step_from_both_sides(kind, bidirectional):
    encoder = RecurrentEncoder(config(cell=kind, bidirectional=bidirectional)).double()
    source = torch.randint(3, 20, (1, 5))
    output = encoder(source)
    below = encoder.embed_tokens(source)[0]
    for index, layer in enumerate(encoder.layers):
        above, final = stepped(cell_of(layer, kind), below)
        hidden = (final if isinstance(final, tuple) else (final,))[0]
        if bidirectional:
            reverse, last = stepped(cell_of(layer, kind, backwards=True), below.flip(0))
            above = torch.cat([above, reverse.flip(0)], dim=-1)
            hidden = torch.cat([hidden, (last if isinstance(last, tuple) else (last,))[0]], dim=-1)
        below = above
        torch.testing.assert_close(output.final_hidden[0, index], hidden[0])
    torch.testing.assert_close(output.last_hidden_state[0], below)
    assert (output.final_cell is None) == (kind != "lstm")


@pytest.mark.parametrize("stack", ["plain", "gnmt"])
def test_padding_on_any_side_or_in_the_middle_changes_nothing(stack):
    encoder = RecurrentEncoder(config(stack=stack, attention="additive", num_layers=3)).double().eval()
    source = torch.randint(3, 20, (1, 4))
    alone = encoder(source)
    for places in ([0, 1, 2, 3], [3, 4, 5, 6], [0, 2, 3, 6]):
        padded, mask = torch.full((2, 7), 1), torch.zeros(2, 7)
        padded[0, places], mask[0, places] = source[0], 1.0
        padded[1], mask[1] = torch.randint(3, 20, (7,)), 1.0
        output = encoder(padded, mask)
        torch.testing.assert_close(output.last_hidden_state[0, places], alone.last_hidden_state[0])
        torch.testing.assert_close(output.final_hidden[0], alone.final_hidden[0])
        torch.testing.assert_close(output.final_cell[0], alone.final_cell[0])
        others = [place for place in range(7) if place not in places]
        assert not output.last_hidden_state[0, others].any()
    assert encoder(torch.ones(1, 3, dtype=torch.long), torch.zeros(1, 3)).last_hidden_state.isfinite().all()


def test_gnmt_reads_both_ways_at_the_bottom_only_and_adds_residuals_from_the_third_layer_on():
    encoder = RecurrentEncoder(config(stack="gnmt", attention="additive", num_layers=4)).double()
    assert [layer.bidirectional for layer in encoder.layers] == [True, False, False, False]
    source = torch.randint(3, 20, (2, 6))
    below = encoder.embed_tokens(source)
    for index, layer in enumerate(encoder.layers):
        above, _ = layer(below)
        below = above + below if index >= 2 else above
    torch.testing.assert_close(encoder(source).last_hidden_state, below)


def decoded(fields, length=4):
    """A decoder, what it was given, and what came out, in float64."""
    own = config(**fields)
    decoder = RecurrentDecoder(own).double().eval()
    cache = RecurrentCache()
    cache.hidden = torch.randn(1, own.num_layers, WIDTH).double()
    cache.cell = torch.randn(1, own.num_layers, WIDTH).double() if own.cell == "lstm" else None
    before = (cache.hidden, cache.cell)
    target, states = torch.randint(3, 20, (1, length)), torch.randn(1, 5, WIDTH).double()
    return decoder, before, target, states, decoder(target, states, None, cache), cache


def initial(before, index):
    hidden, cell = before
    return hidden[:, index] if cell is None else (hidden[:, index], cell[:, index])


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_without_attention_the_decoder_is_cells_from_the_final_states(kind):
    decoder, before, target, _, (outputs, weights), cache = decoded({"cell": kind})
    below = decoder.embed_tokens(target)[0]
    for index, layer in enumerate([decoder.lowest, *decoder.layers]):
        below, state = stepped(cell_of(layer, kind), below, initial(before, index))
        torch.testing.assert_close(cache.hidden[:, index], (state if isinstance(state, tuple) else (state,))[0])
    torch.testing.assert_close(outputs[0], below)
    assert weights is None
    assert cache.get_seq_length() == 4


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize(
    "wiring", [{"attention": "additive"}, {"attention": "multiplicative", "attention_feeds_back": True}]
)
def test_attention_that_feeds_back_is_by_the_previous_state_and_input_of_the_next(kind, wiring):
    decoder, before, target, states, (outputs, weights), _ = decoded({"cell": kind, **wiring})
    state, keys, bottom, contexts = initial(before, 0), decoder.attention.key_proj(states), [], []
    for position, step in enumerate(decoder.embed_tokens(target)[0]):
        query = state[0] if isinstance(state, tuple) else state
        context, weight = decoder.attention(query.unsqueeze(1), keys, states, None)
        torch.testing.assert_close(weights[0, position], weight[0, 0])
        state = decoder.lowest(torch.cat([step.unsqueeze(0), context[:, 0]], dim=-1), state)
        bottom.append((state[0] if isinstance(state, tuple) else state)[0])
        contexts.append(context[0, 0])
    above, _ = stepped(cell_of(decoder.layers[0], kind), torch.stack(bottom), initial(before, 1))
    expected = decoder.readout(torch.cat([torch.stack(contexts), above], dim=-1)).tanh()
    torch.testing.assert_close(outputs[0], expected)


@pytest.mark.parametrize(
    "wiring", [{"attention": "multiplicative"}, {"attention": "additive", "attention_feeds_back": False}]
)
def test_attention_that_does_not_feed_back_is_by_the_current_top_state(wiring):
    decoder, before, target, states, (outputs, weights), _ = decoded({"cell": "gru", **wiring})
    below = decoder.embed_tokens(target)[0]
    for index, layer in enumerate([decoder.lowest, *decoder.layers]):
        below, _ = stepped(cell_of(layer, "gru"), below, initial(before, index))
    keys = decoder.attention.key_proj(states)
    expected = decoder.attention.scores(below.unsqueeze(0), keys)[0].softmax(-1)
    torch.testing.assert_close(weights[0], expected)
    torch.testing.assert_close(outputs[0], decoder.readout(torch.cat([expected @ states[0], below], dim=-1)).tanh())


@pytest.mark.parametrize("attention", ["additive", "multiplicative"])
def test_gnmt_gives_the_context_of_the_lowest_layer_to_every_layer(attention):
    fields = {"stack": "gnmt", "attention": attention, "num_layers": 4}
    decoder, before, target, states, (outputs, _), _ = decoded(fields)
    state, keys, bottom, contexts = initial(before, 0), decoder.attention.key_proj(states), [], []
    for step in decoder.embed_tokens(target)[0]:
        context, _ = decoder.attention(state[0].unsqueeze(1), keys, states, None)
        state = decoder.lowest(torch.cat([step.unsqueeze(0), context[:, 0]], dim=-1), state)
        bottom.append(state[0][0])
        contexts.append(context[0, 0])
    below, contexts = torch.stack(bottom), torch.stack(contexts)
    for index, layer in enumerate(decoder.layers, start=1):
        inputs = torch.cat([below, contexts], dim=-1)
        above, _ = stepped(cell_of(layer, "lstm"), inputs, initial(before, index))
        below = above + below if index >= 2 else above
    torch.testing.assert_close(outputs[0], below)
    assert decoder.readout is None


def test_the_bias_of_forget_gates_is_that_of_the_factor_of_the_cell():
    """With all else 0, a cell of 1 becomes sigmoid(forget bias) in one step, and again in the next."""
    cell = nn.LSTMCell(3, WIDTH).double()
    for weight in cell.parameters():
        weight.data.zero_()
    cell.bias_ih.data = with_forget_bias(cell.bias_ih, 1.5)
    state = (torch.zeros(1, WIDTH).double(), torch.ones(1, WIDTH).double())
    for steps in (1, 2):
        state = cell(torch.randn(1, 3).double(), state)
        torch.testing.assert_close(state[1], torch.full((1, WIDTH), (1 / (1 + math.exp(-1.5))) ** steps).double())


def test_a_state_is_reordered_with_its_beams_and_forgets_nothing():
    cache = RecurrentCache()
    cache.hidden, cache.cell = torch.arange(6.0).view(3, 1, 2), None
    cache.reorder_cache(torch.tensor([2, 2, 0]))
    assert cache.hidden[:, 0].tolist() == [[4, 5], [4, 5], [0, 1]]
    with pytest.raises(ValueError, match="cannot forget the tokens that it has read last"):
        cache.crop(1)


def test_the_encoder_refuses_what_it_does_not_have():
    encoder = RecurrentEncoder(config())
    source = torch.randint(3, 20, (1, 4))
    with pytest.raises(ValueError, match="either `input_ids` or `inputs_embeds`"):
        encoder()
    with pytest.raises(ValueError, match="are not recorded"):
        encoder(source, output_hidden_states=True)
    with pytest.raises(ValueError, match=r"`attention_mask` has the shape \(1, 3\)"):
        encoder(source, torch.ones(1, 3))
