"""A whole BART of transformers as a configuration of our model with the same weights: a norm of the embeddings."""

import pytest
import torch
from parity import assert_near, randomise
from transformers import BartConfig, BartForConditionalGeneration

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.interop.checkpoints import their_name
from hf_vanilla_transformer.interop.marian import MARIAN_NAMES

V, START, PAD, EOS = 30, 0, 1, 2
BART_NAMES = {**MARIAN_NAMES, r"\.decoder\.embed_tokens\.": ".shared.", r"\.embedding_norm\.": ".layernorm_embedding."}
FIRST_POSITION = 2  # BART's table of positions begins with two rows that are never used


def model_pair():
    theirs = BartForConditionalGeneration(
        BartConfig(
            vocab_size=V, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=20,
            activation_function="gelu", dropout=0.0, pad_token_id=PAD, bos_token_id=START, eos_token_id=EOS,
            decoder_start_token_id=EOS, forced_eos_token_id=None,
        )
    ).eval()  # fmt: skip
    randomise(theirs, seed=3)
    ours = VanillaTransformerForConditionalGeneration(
        VanillaTransformerConfig(
            vocab_size=V, d_model=16, num_encoder_layers=2, num_decoder_layers=2, num_heads=4, d_ff=24,
            activation_function="gelu", embedding_norm=True, position_encoding="learned", num_learned_positions=20,
            attention_bias=True, scale_embeddings=False, layer_norm_eps=1e-5, decoder_start_token_id=EOS, dropout=0.0,
        )
    ).eval()  # fmt: skip
    tensors = theirs.state_dict()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            tensor = tensors[their_name(name, BART_NAMES)]
            parameter.copy_(tensor[FIRST_POSITION:] if "embed_positions" in name else tensor)
    return ours, theirs


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_bart_is_a_configuration_of_this_model(attention):
    ours, theirs = model_pair()
    ours.set_attn_implementation(attention)
    source = torch.tensor([[5, 9, 3, 17, 22, 8, 4, EOS], [7, 6, EOS, PAD, PAD, PAD, PAD, PAD]])
    target = torch.randint(3, V, (2, 7), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": source, "attention_mask": source.ne(PAD).long()}
    expected, actual = (model(**inputs, decoder_input_ids=target) for model in (theirs, ours))
    assert_near(actual.logits, expected.logits, 1e-5, "logits")
    limits = {"num_beams": 1, "max_new_tokens": 9, "min_new_tokens": 9}
    assert torch.equal(ours.generate(**inputs, **limits), theirs.generate(**inputs, **limits))
