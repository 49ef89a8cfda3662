"""Decoding position by position: against the whole model on whole prefixes."""

import gc
import weakref

import pytest
import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from variants import VARIANTS

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.decoding_cache import DECODING_STATES
from hf_vanilla_transformer.decoding_incremental import IncrementalDecoder


def build(**fields):
    torch.manual_seed(4)
    shape = {"d_model": 16, "num_heads": 4, "d_ff": 32, "num_encoder_layers": 1, "num_decoder_layers": 2}
    config = VanillaTransformerConfig(vocab_size=50, **shape, **fields)
    return VanillaTransformerForConditionalGeneration(config).eval()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"norm_position": "pre"},
        {"d_k": 6, "d_v": 10, "attention_bias": True},
        {"activation_function": "swish", "final_logits_bias": True, "position_encoding": "none"},
        {"position_encoding": "learned", "max_position_embeddings": 40, "scale_embeddings": False},
        *VARIANTS.values(),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_step_by_step_logits_are_those_of_the_whole_prefix(fields, dtype):
    model = build(**fields).to(dtype)
    torch.manual_seed(0)
    for parameter in model.parameters():  # biases are zero at first
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    source = torch.randint(4, 50, (2, 6))
    inputs = {"input_ids": source, "attention_mask": torch.tensor([[1] * 6, [1] * 3 + [0] * 3])}
    with torch.no_grad():
        states = model.get_encoder()(**inputs).last_hidden_state
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        state = DECODING_STATES[model.config.attention]
        cache.self_attention_cache.layers = [state() for _ in model.get_decoder().layers]
        steps = model._make_steps(states, inputs["attention_mask"], cache)
        prefix = torch.tensor([[0, 7], [0, 9]])
        beams = prefix.unsqueeze(1).expand(-1, 3, -1)
        logits = steps.start(prefix).expand(-1, 3, -1)
        for step in range(5):
            repeated = {name: tensor.repeat_interleave(3, 0) for name, tensor in inputs.items()}
            expected = model(**repeated, decoder_input_ids=beams.flatten(0, 1)).logits[:, -1]
            tolerance = 1e-5 if dtype == torch.float32 else 0.1
            torch.testing.assert_close(logits.flatten(0, 1), expected, rtol=0, atol=tolerance)
            tokens, parents = torch.randint(4, 50, (2, 3)), torch.randint(0, 3 if step else 1, (2, 3))
            beams = torch.cat([beams.gather(1, parents.unsqueeze(-1).expand_as(beams)), tokens.unsqueeze(-1)], dim=-1)
            logits = steps.advance(tokens, parents)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_keys_and_values_are_gone_with_their_last_use(num_beams, monkeypatch):
    """Without waiting for the garbage collector, which would let the caches of many calls pile up."""
    model, made, build_steps = build(), [], IncrementalDecoder.__init__

    def watched(self, *args):
        build_steps(self, *args)
        made.append(weakref.ref(self))

    monkeypatch.setattr(IncrementalDecoder, "__init__", watched)
    gc.disable()
    try:
        model.generate(torch.randint(4, 50, (2, 6)), num_beams=num_beams, max_new_tokens=4)
        assert [steps() for steps in made] == [None]
    finally:
        gc.enable()
