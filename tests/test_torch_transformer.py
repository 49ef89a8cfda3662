"""Modules around torch.nn.Transformer in: logits of the original and of what was made of it, at random weights."""

import math

import pytest
import torch
from parity import assert_near
from torch import nn

from hf_vanilla_transformer.interop import load_torch_transformer
from hf_vanilla_transformer.positions import sinusoids

V, SOURCE_V = 23, 29
B, S, T = 3, 9, 7


class Translator(nn.Module):
    """As tutorials build it: embeddings times sqrt(D), a table of positions, nn.Transformer, a projection."""

    def __init__(self, norm_first, bias=True, separate=True, activation="relu", custom_norms=True):
        super().__init__()
        options = {"d_model": 16, "nhead": 4, "dim_feedforward": 24, "dropout": 0.1, "activation": activation}
        options |= {"norm_first": norm_first, "batch_first": True}
        if not custom_norms:
            encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**options), 2, enable_nested_tensor=False)
            decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**options), 3)
            self.transformer = nn.Transformer(custom_encoder=encoder, custom_decoder=decoder, **options)
        else:
            self.transformer = nn.Transformer(num_encoder_layers=2, num_decoder_layers=3, **options)
        self.source = nn.Embedding(SOURCE_V if separate else V, 16)
        self.target = nn.Embedding(V, 16) if separate else self.source
        self.generator = nn.Linear(16, V, bias=bias)
        if not separate:
            self.generator.weight = self.source.weight
        self.register_buffer("positions", sinusoids(torch.arange(64), 16))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, source, source_mask, target):
        def embed(embedding, ids):
            return embedding(ids) * math.sqrt(16) + self.positions[: ids.shape[1]]

        states = self.transformer(
            embed(self.source, source),
            embed(self.target, target),
            tgt_mask=torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1),
            src_key_padding_mask=~source_mask,
            memory_key_padding_mask=~source_mask,
        )
        return self.generator(states)


def inputs():
    generator = torch.Generator().manual_seed(3)
    source, target = torch.randint(V, (B, S), generator=generator), torch.randint(V, (B, T), generator=generator)
    mask = torch.ones(B, S, dtype=torch.bool)
    mask[1, 5:] = mask[2, 1:] = False
    return source, mask, target


NAMES = {"num_heads": 4, "source_embedding": "source.weight", "ignored": "^positions$"}


@pytest.mark.parametrize("norm_position", ["post", "pre"])
@pytest.mark.parametrize("custom_norms", [True, False], ids=["norms at the ends", "no norms at the ends"])
@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize(("bias", "activation"), [(True, "gelu"), (False, "relu")])
def test_logits_are_those_of_the_module(norm_position, custom_norms, separate, bias, activation):
    theirs = Translator(norm_position == "pre", bias, separate, activation, custom_norms).eval()
    ours = load_torch_transformer(
        theirs.state_dict(),
        **NAMES,
        target_embedding="target.weight",
        projection="generator.weight",
        norm_position=norm_position,
        activation_function=activation,
    )
    assert ours.config.source_vocab_size == (SOURCE_V if separate else None)
    assert ours.config.final_logits_bias is bias
    assert ours.config.tie_word_embeddings is not separate
    source, mask, target = inputs()
    # With gradients torch stays off its inference path, whose arithmetic is another.
    assert_near(
        ours(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits,
        theirs(source, mask, target),
        1e-5,
        "logits",
    )


def test_one_embedding_may_be_everything():
    theirs = Translator(True, bias=False, separate=False).eval()
    state = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith(("target", "gen"))}
    ours = load_torch_transformer(state, **NAMES, norm_position="pre")
    assert ours.config.tie_word_embeddings
    source, mask, target = inputs()
    logits = ours(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits
    assert_near(logits, theirs(source, mask, target), 1e-5, "logits")


def test_a_transformer_by_itself_has_no_prefix():
    theirs = Translator(True, bias=False, separate=False)
    state = {**theirs.transformer.state_dict(), "source.weight": theirs.source.weight.detach()}
    ours = load_torch_transformer(state, **NAMES, prefix="", norm_position="pre")
    assert torch.equal(ours.model.decoder.layers[2].cross_attention.v_proj.weight,
                       theirs.transformer.decoder.layers[2].multihead_attn.in_proj_weight[32:])  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"transformer.decoder.layers.1.multihead_attn.in_proj_weight": torch.zeros(48, 15)},
            r"in_proj_weight\[q\] is \(16, 15\)",
        ),
        ({"transformer.encoder.layers.1.norm2.weight": None}, "missing: transformer.encoder.layers.1.norm2.weight"),
        ({"extra.weight": torch.zeros(2)}, r"no place for: extra.weight \(2,\)"),
        ({"source.weight": None}, "no embedding of the source: looked for source.weight"),
        ({"transformer.decoder.norm.bias": None}, "missing: transformer.decoder.norm.bias"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    state = {**Translator(False, separate=False).state_dict(), **change}
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    with pytest.raises(ValueError, match=message):
        load_torch_transformer(state, **NAMES, target_embedding="target.weight", projection="generator.weight")
