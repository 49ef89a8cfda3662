"""A whole T5 v1.1 of transformers, and a layer of its LLaMA, as configurations of our model with the same weights."""

import math

import pytest
import torch
from parity import assert_near, randomise
from transformers import LlamaConfig, T5Config, T5ForConditionalGeneration
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.encoder import PreNormEncoderLayer
from hf_vanilla_transformer.positions_relative import RotaryPositions

V, PAD, EOS = 30, 0, 1

# Ours, and where it is in a block of T5; {ff} is 1 in the encoder, 2 in the decoder.
T5_NAMES = {
    "self_attention.q_proj": "layer.0.SelfAttention.q",
    "self_attention.k_proj": "layer.0.SelfAttention.k",
    "self_attention.v_proj": "layer.0.SelfAttention.v",
    "self_attention.out_proj": "layer.0.SelfAttention.o",
    "self_attention_norm": "layer.0.layer_norm",
    "cross_attention.q_proj": "layer.1.EncDecAttention.q",
    "cross_attention.k_proj": "layer.1.EncDecAttention.k",
    "cross_attention.v_proj": "layer.1.EncDecAttention.v",
    "cross_attention.out_proj": "layer.1.EncDecAttention.o",
    "cross_attention_norm": "layer.1.layer_norm",
    "feed_forward.gate": "layer.{ff}.DenseReluDense.wi_0",
    "feed_forward.fc1": "layer.{ff}.DenseReluDense.wi_1",
    "feed_forward.fc2": "layer.{ff}.DenseReluDense.wo",
    "feed_forward_norm": "layer.{ff}.layer_norm",
}


def their_model():
    config = T5Config(
        vocab_size=V, d_model=16, d_kv=6, d_ff=20, num_layers=2, num_decoder_layers=2, num_heads=4,
        relative_attention_num_buckets=8, relative_attention_max_distance=12, feed_forward_proj="gated-gelu",
        tie_word_embeddings=False, pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=PAD, dropout_rate=0.0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config).eval()
    randomise(model, seed=3)
    return model


def as_ours(theirs):
    """The same function: T5 does not divide by sqrt(d_k), so its queries are that much longer here."""
    config = VanillaTransformerConfig(
        vocab_size=V, d_model=16, d_k=6, d_v=6, d_ff=20, num_encoder_layers=2, num_decoder_layers=2, num_heads=4,
        norm="rms_norm", norm_position="pre", feed_forward="gated", activation_function="gelu_new",
        position_encoding="t5_relative", num_relative_buckets=8, max_relative_distance=12, scale_embeddings=False,
        tie_word_embeddings=False, pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=PAD, bos_token_id=PAD,
        dropout=0.0, label_smoothing=0.0,
    )  # fmt: skip
    source, target = theirs.state_dict(), {}
    target["lm_head.weight"] = source["lm_head.weight"]
    for stack, ff in (("encoder", 1), ("decoder", 2)):
        target[f"model.{stack}.embed_tokens.weight"] = source["shared.weight"]
        target[f"model.{stack}.final_norm.weight"] = source[f"{stack}.final_layer_norm.weight"]
        bias = source[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        target[f"model.{stack}.relate_positions.biases.weight"] = bias
        for index in range(config.num_encoder_layers if stack == "encoder" else config.num_decoder_layers):
            for ours, name in T5_NAMES.items():
                if stack == "encoder" and "cross" in ours:
                    continue
                weight = source[f"{stack}.block.{index}.{name.format(ff=ff)}.weight"]
                scale = math.sqrt(6) if "q_proj" in ours else 1.0
                target[f"model.{stack}.layers.{index}.{ours}.weight"] = weight * scale
    model = VanillaTransformerForConditionalGeneration(config).eval()
    model.load_state_dict(target)  # strict: each name is used
    return model


def batch():
    source = torch.tensor([[5, 9, 3, 17, 22, 8, 4, EOS], [7, 6, EOS, PAD, PAD, PAD, PAD, PAD]])
    target = torch.randint(2, V, (2, 15), generator=torch.Generator().manual_seed(0))
    return {"input_ids": source, "attention_mask": source.ne(PAD).long(), "decoder_input_ids": target}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_t5_v1_1_is_a_configuration_of_this_model(attention):
    theirs, inputs = their_model(), batch()
    ours = as_ours(theirs)
    ours.set_attn_implementation(attention)
    with torch.no_grad():
        assert_near(ours(**inputs).logits, theirs(**inputs).logits, 1e-5, "logits")


def test_greedy_search_and_beams_of_t5_v1_1_are_the_same():
    theirs, inputs = their_model(), batch()
    ours = as_ours(theirs)
    del inputs["decoder_input_ids"]
    for options in ({"num_beams": 1}, {"num_beams": 4, "length_penalty": 1.0}):
        limits = {"max_new_tokens": 20, "min_new_tokens": 20}
        assert torch.equal(ours.generate(**inputs, **options, **limits), theirs.generate(**inputs, **options, **limits))


def test_a_layer_of_llama_is_a_pre_norm_layer_with_rotary_positions_grouped_keys_and_swiglu():
    theirs_config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6,
        vocab_size=V, num_hidden_layers=1,
    )  # fmt: skip
    theirs_config._attn_implementation = "eager"
    theirs = LlamaDecoderLayer(theirs_config, 0).eval()
    config = VanillaTransformerConfig(
        vocab_size=V, d_model=16, d_ff=24, num_heads=4, num_key_value_heads=2, norm="rms_norm", norm_position="pre",
        feed_forward="gated", activation_function="silu", position_encoding="rotary", sinusoid_layout="concatenated",
        num_encoder_layers=1, num_decoder_layers=1,
    )  # fmt: skip
    config._attn_implementation = "eager"
    ours = PreNormEncoderLayer(config).eval()
    names = {
        "self_attention.q_proj": "self_attn.q_proj", "self_attention.k_proj": "self_attn.k_proj",
        "self_attention.v_proj": "self_attn.v_proj", "self_attention.out_proj": "self_attn.o_proj",
        "self_attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm",
        "feed_forward.gate": "mlp.gate_proj", "feed_forward.fc1": "mlp.up_proj", "feed_forward.fc2": "mlp.down_proj",
    }  # fmt: skip
    randomise(theirs, seed=7)
    state = theirs.state_dict()
    ours.load_state_dict({f"{mine}.weight": state[f"{name}.weight"] for mine, name in names.items()})
    x, places = torch.randn(2, 7, 16), torch.arange(7)[None]
    mask = torch.full((7, 7), torch.finfo(torch.float32).min).triu(1)[None, None]
    _, positions = RotaryPositions(config, True)(mask, places, None, torch.float32)
    with torch.no_grad():
        expected = theirs(
            x,
            attention_mask=mask,
            position_ids=places,
            position_embeddings=LlamaRotaryEmbedding(theirs_config)(x, places),
        )
        expected = expected[0] if isinstance(expected, tuple) else expected
        assert_near(ours(x, mask, positions=positions), expected, 1e-5, "the layer")
