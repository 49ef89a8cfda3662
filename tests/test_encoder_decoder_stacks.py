"""Encoder and decoder by themselves: inputs, masks, recorded outputs, saving."""

import pytest
import test_paper_conformance as naive
import torch
from test_decoder_stack import RELATIVE

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerModel
from hf_vanilla_transformer.decoder import Decoder, SandwichDecoderLayer
from hf_vanilla_transformer.encoder import Encoder, SandwichEncoderLayer


def small(**fields):
    shape = {"vocab_size": 40, "d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 3}
    return VanillaTransformerConfig(**{**shape, "num_decoder_layers": 2, **fields})


@pytest.fixture(params=["post", "pre", "sandwich"])
def model(request):
    model = VanillaTransformerModel(small(norm_position=request.param))
    model.set_attn_implementation("eager")
    return model.eval()


SOURCE = torch.tensor([[5, 6, 7, 2], [8, 2, 1, 1]])
TARGET = torch.tensor([[0, 9, 10], [0, 11, 12]])


def test_stacks_called_one_after_the_other_are_the_model(model):
    mask = SOURCE.ne(1)
    encoded = model.encoder(input_ids=SOURCE, attention_mask=mask).last_hidden_state
    decoded = model.decoder(input_ids=TARGET, encoder_hidden_states=encoded, encoder_attention_mask=mask)
    whole = model(input_ids=SOURCE, attention_mask=mask, decoder_input_ids=TARGET)
    assert torch.equal(decoded.last_hidden_state, whole.last_hidden_state)
    assert torch.equal(encoded, whole.encoder_last_hidden_state)
    # A tuple, as older callers pass it, will do.
    again = model(encoder_outputs=(encoded,), attention_mask=mask, decoder_input_ids=TARGET)
    assert torch.equal(again.last_hidden_state, whole.last_hidden_state)


@pytest.mark.parametrize("fields", RELATIVE.values(), ids=RELATIVE)
@torch.no_grad()
def test_an_expanded_mask_over_padding_and_packed_sources_gives_each_alone(fields):
    """Positions are those of all places then, and only distances count here."""
    encoder = Encoder(small(num_encoder_layers=1, **fields)).eval()
    first, second = torch.tensor([[5, 6, 2]]), torch.tensor([[9, 4, 17, 8, 2]])
    alone = [encoder(each).last_hidden_state for each in (first, second)]
    ids = torch.cat([torch.full((1, 2), 1), first, second], dim=1)
    of_text = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2, 2])
    mask = (of_text[:, None] == of_text)[None, None]
    for each in (mask, torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)):
        found = encoder(ids, attention_mask=each).last_hidden_state
        torch.testing.assert_close(found[:, 2:], torch.cat(alone, dim=1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [Encoder, Decoder])
@torch.no_grad()
def test_word_dropout_hides_whole_embeddings_in_training_and_leaves_their_positions(kind):
    """Gal and Ghahramani, 2016, section 4.2: words are dropped at random, each with the probability p, as a whole."""
    stack = kind(small(word_dropout=0.25, dropout=0.0)).train()
    inputs = []
    stack.layers[0].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    ids = torch.randint(3, 40, (40, 50))
    positions = stack.embed_positions(torch.zeros(1, 50, 16), torch.arange(50)[None])
    embedded = stack.embed_tokens(ids)
    source = {} if kind is Encoder else {"encoder_hidden_states": torch.randn(40, 3, 16)}
    stack(input_ids=ids, **source)
    stack.eval()(input_ids=ids, **source)
    words = inputs[0] - positions
    is_hidden = words.abs().amax(-1) < 1e-5
    torch.testing.assert_close(words[~is_hidden], embedded[~is_hidden] / 0.75, rtol=0, atol=1e-5)
    # 2,000 independent draws: four standard deviations are 0.039, for the share and for its parts.
    assert abs(is_hidden.float().mean() - 0.25) < 0.039
    assert abs((is_hidden[:, 1:] & is_hidden[:, :-1]).float().mean() - 0.25**2) < 0.039
    assert is_hidden.any(0).all()  # no position is spared
    torch.testing.assert_close(inputs[1], embedded + positions, rtol=0, atol=1e-6)


@torch.no_grad()
def test_without_word_dropout_no_random_number_is_drawn_for_it():
    model = VanillaTransformerModel(small(dropout=0.0)).train()
    before = torch.get_rng_state()
    model(input_ids=SOURCE, decoder_input_ids=TARGET)
    assert torch.equal(before, torch.get_rng_state())


def test_recorded_outputs_of_stacks_of_unequal_depth(model):
    mask = SOURCE.ne(1)
    options = {"output_hidden_states": True, "output_attentions": True}
    encoded = model.encoder(input_ids=SOURCE, attention_mask=mask, **options)
    decoded = model.decoder(
        input_ids=TARGET, encoder_hidden_states=encoded.last_hidden_state, encoder_attention_mask=mask, **options
    )
    assert (len(encoded.hidden_states), len(encoded.attentions)) == (4, 3)
    assert (len(decoded.hidden_states), len(decoded.attentions), len(decoded.cross_attentions)) == (3, 2, 2)
    for stack, output in ((model.encoder, encoded), (model.decoder, decoded)):
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
        # Each recorded state is what the next layer starts from.
        first = stack.layers[0]
        assert output.hidden_states[0].shape == output.hidden_states[1].shape
        assert first.self_attention.config is stack.config
    embedded = model.encoder.embed_positions(model.encoder.embed_tokens(SOURCE[:1]), torch.arange(4)[None])
    assert torch.equal(encoded.hidden_states[0][:1], embedded)
    assert encoded.attentions[0].shape == (2, 2, 4, 4)
    assert decoded.attentions[0].shape == (2, 2, 3, 3)
    assert decoded.cross_attentions[0].shape == (2, 2, 3, 4)
    assert (encoded.attentions[0][1, :, :, 2:] == 0).all()  # padding of the second source
    assert (decoded.cross_attentions[1][1, :, :, 2:] == 0).all()
    assert (decoded.attentions[0].triu(1) == 0).all()  # the future


def test_the_final_norm_is_the_pre_norm_stacks_only(model):
    for stack in (model.encoder, model.decoder):
        is_norm = isinstance(stack.final_norm, torch.nn.LayerNorm)
        assert is_norm == (model.config.norm_position != "post")
        assert [name for name, _ in stack.named_parameters() if "final_norm" in name] == (
            ["final_norm.weight", "final_norm.bias"] if is_norm else []
        )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "either `input_ids` or `inputs_embeds`"),
        ({"input_ids": SOURCE, "inputs_embeds": torch.zeros(2, 4, 16)}, "not both"),
    ],
)
def test_inputs_missing_or_given_twice_are_refused(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        model.encoder(**inputs)
    with pytest.raises(ValueError, match=message):
        model.decoder(**inputs, encoder_hidden_states=torch.zeros(2, 4, 16))


def test_a_decoder_without_a_source_is_refused(model):
    with pytest.raises(ValueError, match="give it `encoder_hidden_states`"):
        model.decoder(input_ids=TARGET)


def test_four_dimensional_masks_are_taken_as_they_are(model):
    """A mask that also hides the first source token equals leaving that token's key out for every query."""
    allowed = SOURCE.ne(1)[:, None, None, :].expand(2, 1, 4, 4)
    additive = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    by_padding = model.encoder(input_ids=SOURCE, attention_mask=SOURCE.ne(1)).last_hidden_state
    by_mask = model.encoder(input_ids=SOURCE, attention_mask=additive).last_hidden_state
    torch.testing.assert_close(by_mask[0], by_padding[0])
    torch.testing.assert_close(by_mask[1, :2], by_padding[1, :2])

    causal = torch.ones(3, 3, dtype=torch.bool).tril().expand(2, 1, 3, 3)
    additive = torch.zeros(causal.shape).masked_fill(~causal, torch.finfo(torch.float32).min)
    encoded = model.encoder(input_ids=SOURCE[:, :2]).last_hidden_state
    plain = model.decoder(input_ids=TARGET, encoder_hidden_states=encoded).last_hidden_state
    masked = model.decoder(input_ids=TARGET, encoder_hidden_states=encoded, attention_mask=additive).last_hidden_state
    torch.testing.assert_close(masked, plain)
    seeing_all = torch.zeros_like(additive)
    unmasked = model.decoder(input_ids=TARGET, encoder_hidden_states=encoded, attention_mask=seeing_all)
    assert not torch.allclose(unmasked.last_hidden_state[:, 0], plain[:, 0])


def test_a_padding_mask_covers_the_cache_too(model):
    encoded = model.encoder(input_ids=SOURCE[:, :2]).last_hidden_state
    padded = torch.tensor([[1, 1, 0, 9, 10], [0, 9, 10, 11, 12]])
    mask = padded.ne(1).long()
    whole = model.decoder(input_ids=padded, attention_mask=mask, encoder_hidden_states=encoded).last_hidden_state
    cache = None
    for position in range(5):
        output = model.decoder(
            input_ids=padded[:, position : position + 1],
            attention_mask=mask[:, : position + 1],
            encoder_hidden_states=encoded,
            cache=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        visible = mask[:, position].bool()
        torch.testing.assert_close(output.last_hidden_state[visible, 0], whole[visible, position])
    # The first sentence, whose two first tokens are padding, counts its positions from the third.
    alone = model.decoder(input_ids=padded[:1, 2:], encoder_hidden_states=encoded[:1]).last_hidden_state
    torch.testing.assert_close(whole[:1, 2:], alone)


@pytest.mark.parametrize("stack_class", [Encoder, Decoder])
def test_a_stack_saves_and_loads_alone(tmp_path, model, stack_class):
    stack = model.encoder if stack_class is Encoder else model.decoder
    stack.save_pretrained(tmp_path / "alone")
    loaded = stack_class.from_pretrained(tmp_path / "alone")
    for name, weight in stack.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def sandwiched(layer, name, rows, sub_layer):
    """Ding et al., 2021: x + LayerNorm(Sublayer(LayerNorm(x)))."""
    inner = naive.layer_norm(getattr(layer, f"{name}_norm"), rows)
    return naive.plus(rows, naive.layer_norm(getattr(layer, f"{name}_output_norm"), sub_layer(inner)))


def test_sandwich_layers_norm_what_goes_into_a_sub_layer_and_what_comes_out():
    encoder, decoder = naive.built_part(SandwichEncoderLayer), naive.built_part(SandwichDecoderLayer, 0)
    x, memory = naive.random_rows(4), naive.random_rows(3)
    everything, source, past = naive.everything(4, 4), naive.everything(4, 3), naive.leftward(4)
    rows = sandwiched(
        encoder, "self_attention", x.tolist(), lambda y: naive.multi_head(encoder.self_attention, y, y, y, everything)
    )
    rows = sandwiched(encoder, "feed_forward", rows, lambda y: naive.feed_forward(encoder.feed_forward, y))
    naive.assert_equal_to_naive(encoder(x[None])[0], rows)

    rows = sandwiched(
        decoder, "self_attention", x.tolist(), lambda y: naive.multi_head(decoder.self_attention, y, y, y, past)
    )
    keys = memory.tolist()
    rows = sandwiched(
        decoder, "cross_attention", rows, lambda y: naive.multi_head(decoder.cross_attention, y, keys, keys, source)
    )
    rows = sandwiched(decoder, "feed_forward", rows, lambda y: naive.feed_forward(decoder.feed_forward, y))
    mask = torch.full((4, 4), torch.finfo(torch.float64).min, dtype=torch.float64).triu(1)[None, None]
    naive.assert_equal_to_naive(decoder(x[None], mask, memory[None])[0], rows)
