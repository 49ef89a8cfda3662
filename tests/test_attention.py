"""Attention by itself: the implementations against each other and against brute force, masks, and the cache."""

import functools
import math
import shutil
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import PreTrainedModel, modeling_flash_attention_utils
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerModel,
)
from hf_vanilla_transformer import attention as attention_file
from hf_vanilla_transformer.attention import MultiHeadAttention, scaled_dot_product_attention

SMALL = {
    "vocab_size": 40,
    "d_model": 12,
    "num_heads": 3,
    "d_ff": 16,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "dropout": 0.0,
}
# d_k and d_v: as the paper has them, and each larger than the other, with d_k h and d_v h beside d_model.
WIDTHS = pytest.mark.parametrize(("d_k", "d_v"), [(4, 4), (3, 7), (6, 2)])
ON_CPU = pytest.mark.parametrize("implementation", ["eager", "sdpa"])
# float64 on numbers near 1, some hundred roundings apart.
EXACT = {"rtol": 0, "atol": 1e-13}


def attention_module(implementation="eager", is_causal=False, layer_idx=None, **fields):
    config = VanillaTransformerConfig(**{**SMALL, **fields})
    config._attn_implementation = implementation
    return MultiHeadAttention(config, layer_idx, is_causal).double().eval()


def whole_model(implementation, cls=VanillaTransformerModel, **fields):
    model = cls(VanillaTransformerConfig(**{**SMALL, **fields})).double().eval()
    model.set_attn_implementation(implementation)
    return model


def random_states(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def mask_for(implementation, allowed):
    """A (B, 1, T, S) mask, True = may attend, in the form that transformers gives the implementation."""
    if implementation == "sdpa":
        return allowed
    return torch.zeros(allowed.shape, dtype=torch.float64).masked_fill(~allowed, torch.finfo(torch.float64).min)


def brute_force(query, key, value, allowed):
    """One number at a time: (B, H, T, d_k), (B, H, S, d_k), (B, H, S, d_v), `allowed` (B, T, S) -> (B, H, T, d_v)."""
    B, H, T, d_k = query.shape
    output = torch.zeros(B, H, T, value.shape[-1], dtype=torch.float64)
    q, k, v = query.tolist(), key.tolist(), value.tolist()
    for b in range(B):
        for h in range(H):
            for t in range(T):
                legal = [s for s in range(len(k[b][h])) if allowed[b][t][s]]
                scores = [sum(q[b][h][t][i] * k[b][h][s][i] for i in range(d_k)) / math.sqrt(d_k) for s in legal]
                powers = [math.exp(score) for score in scores]
                for j in range(value.shape[-1]):
                    output[b, h, t, j] = sum(
                        power / sum(powers) * v[b][h][s][j] for power, s in zip(powers, legal, strict=True)
                    )
    return output


@st.composite
def masks(draw, queries=4, keys=5):
    """(2, T, S) masks, arbitrary but for one key a query at least."""
    rows = st.lists(st.booleans(), min_size=keys, max_size=keys).filter(any)
    return torch.tensor(
        draw(st.lists(st.lists(rows, min_size=queries, max_size=queries), min_size=2, max_size=2)), dtype=torch.bool
    )


# --- Equation 1 and its implementations -----------------------------------------------------------------------------


@given(masks(), st.sampled_from([(4, 4), (3, 7), (6, 2)]))
@settings(max_examples=25)
def test_every_implementation_is_brute_force_under_any_mask(allowed, widths):
    d_k, d_v = widths
    x, memory = random_states(2, 4, 12), random_states(2, 5, 12)
    eager = attention_module(d_k=d_k, d_v=d_v)
    heads = [
        projection(states).unflatten(-1, (3, -1)).transpose(1, 2)
        for projection, states in ((eager.q_proj, x), (eager.k_proj, memory), (eager.v_proj, memory))
    ]
    expected = eager.out_proj(brute_force(*heads, allowed.tolist()).transpose(1, 2).flatten(2))
    for implementation in ("eager", "sdpa"):
        module = attention_module(implementation, d_k=d_k, d_v=d_v)
        module.load_state_dict(eager.state_dict())
        output, _ = module(x, mask_for(implementation, allowed.unsqueeze(1)), key_value_states=memory)
        torch.testing.assert_close(output, expected, **EXACT)


@given(masks())
@settings(max_examples=25)
def test_weights_sum_to_1_and_are_0_where_masked(allowed):
    x, memory = 5 * random_states(2, 4, 12), 5 * random_states(2, 5, 12)
    _, weights = attention_module()(x, mask_for("eager", allowed.unsqueeze(1)), key_value_states=memory)
    assert weights.shape == (2, 3, 4, 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 4, dtype=torch.float64), **EXACT)
    assert torch.equal(weights.gt(0), allowed.unsqueeze(1).expand(2, 3, 4, 5))


def test_scores_are_divided_by_the_root_of_d_k_not_of_d_model_over_h():
    """Identical rows but for their length: only the factor in the softmax tells them apart."""
    module = attention_module(d_k=9, d_v=2)
    assert module.scaling == pytest.approx(1 / 3, abs=1e-15)
    x = random_states(1, 3, 12)
    _, weights = module(x)
    query, key = (p(x).unflatten(-1, (3, 9)).transpose(1, 2) for p in (module.q_proj, module.k_proj))
    torch.testing.assert_close(weights.log(), ((query @ key.mT) / 3.0).log_softmax(-1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("padding_side", ["left", "right"])
@WIDTHS
def test_eager_and_sdpa_agree_in_a_whole_padded_model_in_values_and_gradients(d_k, d_v, padding_side):
    outputs, gradients = {}, {}
    lengths = torch.tensor([6, 2, 4])
    places = torch.arange(6).flip(0) if padding_side == "left" else torch.arange(6)
    mask = places.unsqueeze(0) < lengths.unsqueeze(1)
    source = torch.randint(3, 40, (3, 6)).masked_fill(~mask, 1)
    target, direction = torch.randint(3, 40, (3, 5)), random_states(3, 5, 12)
    state = None
    for implementation in ("eager", "sdpa"):
        model = whole_model(implementation, d_k=d_k, d_v=d_v)
        state = model.state_dict() if state is None else state
        model.load_state_dict(state)
        assert model.config._attn_implementation == implementation
        result = model(input_ids=source, attention_mask=mask, decoder_input_ids=target)
        (result.last_hidden_state * direction).sum().backward()
        outputs[implementation] = result
        gradients[implementation] = {name: weight.grad for name, weight in model.named_parameters()}
    memory = [outputs[name].encoder_last_hidden_state[mask] for name in ("eager", "sdpa")]
    torch.testing.assert_close(*memory, **EXACT)
    torch.testing.assert_close(outputs["eager"].last_hidden_state, outputs["sdpa"].last_hidden_state, **EXACT)
    assert gradients["eager"].keys() == gradients["sdpa"].keys()
    for name, gradient in gradients["eager"].items():
        # Gradients are sums over all tokens, of numbers up to some tens.
        torch.testing.assert_close(gradients["sdpa"][name], gradient, rtol=1e-11, atol=1e-11)


def flex_attention_runs_here():
    if not any(shutil.which(compiler) for compiler in ("g++", "clang++", "c++", "cl")):
        return "flex_attention on a CPU is compiled, and there is no C++ compiler"
    try:
        from torch.nn.attention.flex_attention import flex_attention

        small = torch.ones(1, 1, 4, 16)
        torch.compile(flex_attention)(small, small, small)
    except Exception as error:  # whatever it is, it happened before our code was involved
        return f"torch cannot run flex_attention here: {type(error).__name__}"
    return None


@pytest.mark.slow
def test_flex_attention_agrees_with_eager():
    """Takes about two minutes, which are compilation."""
    if reason := flex_attention_runs_here():
        pytest.skip(reason)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1]]).bool()
    source = torch.randint(3, 40, (3, 6)).masked_fill(~mask, 1)
    target = torch.randint(3, 40, (3, 5))
    model = VanillaTransformerModel(VanillaTransformerConfig(**{**SMALL, "d_model": 48, "d_v": 32})).eval()
    outputs = {}
    for implementation in ("eager", "flex_attention"):
        model.set_attn_implementation(implementation)
        with torch.no_grad():
            outputs[implementation] = model(input_ids=source, attention_mask=mask, decoder_input_ids=target)
    for name in ("encoder_last_hidden_state", "last_hidden_state"):
        eager, flex = (outputs[implementation][name] for implementation in ("eager", "flex_attention"))
        kept = mask if name.startswith("encoder") else slice(None)
        # float32: a dozen normalised sub-layers apart.
        torch.testing.assert_close(flex[kept], eager[kept], rtol=0, atol=1e-5)


@ON_CPU
def test_a_query_that_may_attend_to_nothing_makes_no_nan_in_values_or_gradients(implementation):
    """Padding on the left of a causal target: its first rows see only what is masked."""
    model = whole_model(implementation)
    target_mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    result = model(
        input_ids=torch.full((2, 3), 5), decoder_input_ids=torch.full((2, 4), 6), decoder_attention_mask=target_mask
    )
    assert result.last_hidden_state.isfinite().all()
    result.last_hidden_state[target_mask.bool()].pow(3).sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is None or weight.grad.isfinite().all(), name


def test_in_float16_a_query_that_may_attend_to_nothing_makes_no_nan_however_low_its_scores():
    """The lowest number of float16 becomes an infinity with 16 less: of a whole row of those, softmax makes NaN."""
    query, key = torch.full((1, 1, 2, 4), 8.0).half(), torch.full((1, 1, 3, 4), -8.0).half()
    mask = torch.zeros(1, 1, 2, 3).half()
    mask[0, 0, 0] = torch.finfo(torch.float16).min
    module = MultiHeadAttention(VanillaTransformerConfig(d_model=4, num_heads=1))
    output, weights = scaled_dot_product_attention(module, query, key, key, mask, scaling=0.5)
    assert output.isfinite().all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 1, 2).half(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "fields", [{"position_encoding": "alibi"}, {"attention_pattern": "local", "attention_window": 2}]
)
@pytest.mark.parametrize("is_training", [False, True])
def test_weights_in_bf16_work_under_autocast_too_with_masks_of_numbers(fields, is_training):
    shape = {"vocab_size": 20, "d_model": 16, "num_heads": 2, "d_ff": 16, "num_encoder_layers": 1}
    torch.manual_seed(0)
    model = VanillaTransformerForConditionalGeneration(
        VanillaTransformerConfig(**shape, num_decoder_layers=1, **fields)
    )
    ids = torch.randint(4, 20, (2, 80))  # more than are written out in training
    batch = {"input_ids": ids, "attention_mask": torch.arange(80)[None] < torch.tensor([[80], [70]]), "labels": ids}
    expected = model.eval()(**batch).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.bfloat16().train(is_training)(**batch).loss
    if is_training:
        loss.backward()
        assert all(weight.grad.isfinite().all() for weight in model.parameters())
    else:
        torch.testing.assert_close(loss.float(), expected, rtol=0.02, atol=0)


@WIDTHS
def test_the_weights_of_all_three_uses_come_out_of_the_whole_model(d_k, d_v):
    model = whole_model("eager", d_k=d_k, d_v=d_v)
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    result = model(
        input_ids=torch.full((2, 4), 5),
        attention_mask=mask,
        decoder_input_ids=torch.full((2, 3), 6),
        output_attentions=True,
    )
    everywhere = mask.bool()[:, None, None, :]
    for weights in result.encoder_attentions:
        assert torch.equal(weights.gt(0), everywhere.expand(2, 3, 4, 4))
    for weights in result.cross_attentions:
        assert torch.equal(weights.gt(0), everywhere.expand(2, 3, 3, 4))
    for weights in result.decoder_attentions:
        assert torch.equal(weights.gt(0), torch.ones(3, 3).tril().bool().expand(2, 3, 3, 3))
    all_weights = (*result.encoder_attentions, *result.cross_attentions, *result.decoder_attentions)
    assert len(all_weights) == 6
    for weights in all_weights:
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), **EXACT)


def test_only_the_decoders_self_attention_is_causal():
    """transformers takes a module that does not say so for a causal one."""
    causal = {
        name: module.is_causal
        for name, module in whole_model("eager").named_modules()
        if isinstance(module, MultiHeadAttention)
    }
    assert len(causal) == 2 + 2 * 2
    for name, is_causal in causal.items():
        assert is_causal == (name.startswith("decoder") and name.endswith("self_attention"))


def test_attention_dropout_acts_on_the_weights_after_the_softmax(monkeypatch):
    query, key, value = random_states(1, 2, 3, 4), random_states(1, 2, 5, 4), random_states(1, 2, 5, 6)
    module = nn.Identity().train()
    _, weights = scaled_dot_product_attention(module, query, key, value, None, scaling=0.5)
    monkeypatch.setattr(nn.functional, "dropout", lambda x, p, training: x * p if training else x)
    output, _ = scaled_dot_product_attention(module, query, key, value, None, scaling=0.5, dropout=0.25)
    torch.testing.assert_close(output, (0.25 * weights @ value).transpose(1, 2), **EXACT)
    output, _ = scaled_dot_product_attention(module.eval(), query, key, value, None, scaling=0.5, dropout=0.25)
    torch.testing.assert_close(output, (weights @ value).transpose(1, 2), **EXACT)


# --- The cache --------------------------------------------------------------------------------------------------------


def cached(cache_class):
    return DynamicCache() if cache_class is DynamicCache else EncoderDecoderCache(DynamicCache(), DynamicCache())


@pytest.mark.parametrize("steps", [(1, 1, 1, 1, 1, 1), (3, 1, 2), (6,)], ids=str)
@pytest.mark.parametrize("cache_class", [DynamicCache, EncoderDecoderCache])
@ON_CPU
@WIDTHS
def test_self_attention_in_steps_with_a_cache_is_self_attention_at_once(d_k, d_v, implementation, cache_class, steps):
    module = attention_module(implementation, is_causal=True, layer_idx=0, d_k=d_k, d_v=d_v)
    x = random_states(2, 6, 12)
    allowed = torch.ones(6, 6, dtype=torch.bool).tril().expand(2, 1, 6, 6)
    at_once, _ = module(x, mask_for(implementation, allowed))

    cache, start, outputs = cached(cache_class), 0, []
    for length in steps:
        end = start + length
        mask = mask_for(implementation, allowed[:, :, start:end, :end])
        outputs.append(module(x[:, start:end], mask, cache=cache)[0])
        start = end
        assert cache.get_seq_length() == end
    torch.testing.assert_close(torch.cat(outputs, dim=1), at_once, **EXACT)
    layer = (cache if cache_class is DynamicCache else cache.self_attention_cache).layers[0]
    assert layer.keys.shape == (2, 3, 6, d_k)
    assert layer.values.shape == (2, 3, 6, d_v)


@pytest.mark.parametrize("steps", [(1, 1, 1, 1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("padded_target", [False, True])
@ON_CPU
def test_the_decoder_in_steps_with_a_cache_is_the_decoder_at_once(implementation, padded_target, steps):
    """Here the decoder makes the masks: without any, with padding of the source, and of the target on its left."""
    model = whole_model(implementation, d_k=3, d_v=7)
    source_mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    target_mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]) if padded_target else None
    target = torch.randint(3, 40, (2, 5))
    memory = model.encoder(torch.randint(3, 40, (2, 4)), source_mask).last_hidden_state
    source = {"encoder_hidden_states": memory, "encoder_attention_mask": source_mask}
    at_once = model.decoder(target, target_mask, use_cache=False, **source).last_hidden_state

    cache, start, outputs = None, 0, []
    for length in steps:
        end = start + length
        mask = target_mask[:, :end] if padded_target else None
        step = model.decoder(target[:, start:end], mask, cache=cache, use_cache=True, **source)
        cache, start = step.past_key_values, end
        outputs.append(step.last_hidden_state)
    in_steps = torch.cat(outputs, dim=1)
    kept = target_mask.bool() if padded_target else torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(in_steps[kept], at_once[kept], **EXACT)


def count_calls(module):
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_cross_attention_projects_the_output_of_the_encoder_once_and_then_reads_the_cache():
    module = attention_module(layer_idx=0, d_k=3, d_v=7)
    counts = {name: count_calls(getattr(module, name)) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
    memory, cache = random_states(2, 5, 12), cached(EncoderDecoderCache)
    for step in range(4):
        x = random_states(2, 1, 12)
        output, _ = module(x, key_value_states=memory, cache=cache)
        assert {name: len(calls) for name, calls in counts.items()} == {
            "q_proj": step + 1,
            "k_proj": 1,
            "v_proj": 1,
            "out_proj": step + 1,
        }
        twin = attention_module(d_k=3, d_v=7)
        twin.load_state_dict(module.state_dict())
        torch.testing.assert_close(output, twin(x, key_value_states=memory)[0], **EXACT)
    assert cache.cross_attention_cache.layers[0].keys.shape == (2, 3, 5, 3)
    assert cache.cross_attention_cache.layers[0].values.shape == (2, 3, 5, 7)
    assert cache.get_seq_length() == 0  # nothing of this went into the other half


@pytest.mark.parametrize("num_beams", [1, 2])
def test_while_generating_each_layer_projects_its_cross_keys_once_and_one_new_position_a_step(num_beams, monkeypatch):
    model = whole_model("sdpa", VanillaTransformerForConditionalGeneration)
    shapes, linear = defaultdict(list), nn.functional.linear

    def watched(states, weight, bias=None):  # not a hook: where there is one, another path is taken
        shapes[id(weight)].append(tuple(states.shape[:2]))
        return linear(states, weight, bias)

    monkeypatch.setattr(nn.functional, "linear", watched)
    model.generate(torch.tensor([[5, 6, 7, 2]]), min_new_tokens=6, max_new_tokens=6, num_beams=num_beams)
    for layer in model.model.decoder.layers:
        for name in ("k_proj", "v_proj"):
            assert shapes[id(getattr(layer.cross_attention, name).weight)] == [(1, 4)]
            # The beams of a sentence are so many queries of one row; the start token is the same for all of them.
            assert shapes[id(getattr(layer.self_attention, name).weight)] == [(1, 1)] + [(1, num_beams)] * 5


def test_each_decoder_layer_has_its_own_place_in_the_cache():
    model = whole_model("eager")
    assert [layer.self_attention.layer_idx for layer in model.decoder.layers] == [0, 1]
    assert [layer.cross_attention.layer_idx for layer in model.decoder.layers] == [0, 1]
    assert [layer.self_attention.layer_idx for layer in model.encoder.layers] == [None, None]
    result = model(input_ids=torch.full((1, 3), 5), decoder_input_ids=torch.full((1, 2), 6), use_cache=True)
    keys = [layer.keys for layer in result.past_key_values.self_attention_cache.layers]
    assert len(keys) == 2
    assert not torch.equal(keys[0], keys[1])


# Flash attention, whose kernels need a GPU: stand-ins for them, so that what is handed over can be looked at here.


def standing_in_for_flash(query, key, value, dropout_p=0.0, softmax_scale=None, causal=False):
    """What the kernel computes: (B, T, H, d) each; causal is aligned at the end."""
    scores = torch.einsum("bthd,bshd->bhts", query.double(), key.double()) * softmax_scale
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1 + scores.shape[-1] - scores.shape[-2])
        scores = scores.masked_fill(later, -torch.inf)
    return torch.einsum("bhts,bshd->bthd", scores.softmax(-1), value.double()).to(query.dtype)


def standing_in_for_varlen(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False
):
    """Sentences behind one another without padding, each by itself."""
    edges = [torch.stack([edge[:-1], edge[1:]], 1).tolist() for edge in (cu_seqlens_q, cu_seqlens_k)]
    parts = []
    for (q_start, q_end), (k_start, k_end) in zip(*edges, strict=True):
        tensors = (q[None, q_start:q_end], k[None, k_start:k_end], v[None, k_start:k_end])
        parts.append(standing_in_for_flash(*tensors, softmax_scale=softmax_scale, causal=causal)[0])
    return torch.cat(parts)


@pytest.fixture
def flash(monkeypatch):
    """Calls of the kernels: their name, and how long queries and keys were."""
    calls = []

    def watched(name, kernel):
        @functools.wraps(kernel)  # transformers reads the signature
        def call(q, k, *args, **kwargs):
            calls.append((name, q.shape[:-2], k.shape[:-2]))
            return kernel(q, k, *args, **kwargs)

        return call

    kernels = (
        watched("flash", standing_in_for_flash),
        watched("varlen", standing_in_for_varlen),
        None,
        modeling_flash_attention_utils._pad_input,
        modeling_flash_attention_utils._unpad_input,
    )
    monkeypatch.setattr(modeling_flash_attention_utils, "_lazy_imports", lambda *args, **kwargs: kernels)
    monkeypatch.setattr(modeling_flash_attention_utils, "_loaded_implementation", None)
    return calls


def model_with(implementation):
    torch.manual_seed(3)
    config = VanillaTransformerConfig(
        vocab_size=40, d_model=16, num_heads=2, d_ff=32, num_encoder_layers=2, num_decoder_layers=2, d_v=4
    )
    model = VanillaTransformerForConditionalGeneration(config).eval()
    for part in model.modules():
        if isinstance(part, PreTrainedModel):
            part.config._attn_implementation = implementation
    return model


@pytest.mark.parametrize("target_length", [1, 3, 5, 8])
@pytest.mark.parametrize("side", ["right", "left"])
def test_flash_attention_is_right_with_padding_on_either_side(flash, target_length, side):
    """As many target tokens as source tokens too, where the source's mask would fit the queries."""
    source = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 1, 1], [11, 2, 1, 1, 1]])
    source = source if side == "right" else source.flip(1)
    target = torch.randint(4, 40, (3, target_length), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": source, "attention_mask": source.ne(1).long(), "decoder_input_ids": target}
    expected = model_with("sdpa")(**inputs).logits
    torch.testing.assert_close(model_with("flash_attention_2")(**inputs).logits, expected, rtol=0, atol=1e-5)
    assert {name for name, *_ in flash} == {"varlen", "flash"}  # encoder without padding; the target has none
    assert ("varlen", torch.Size([10]), torch.Size([10])) in flash  # 5 + 3 + 2 tokens


def test_flash_attention_without_padding_is_used_everywhere(flash):
    source, target = torch.tensor([[5, 6, 7, 2]]), torch.tensor([[0, 9, 10]])
    expected = model_with("sdpa")(input_ids=source, decoder_input_ids=target).logits
    logits = model_with("flash_attention_2")(input_ids=source, decoder_input_ids=target).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    queries_and_keys = [(queries[1], keys[1]) for _, queries, keys in flash]
    assert queries_and_keys == [(4, 4)] * 2 + [(3, 3), (3, 4)] * 2


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3}])
def test_flash_attention_generates_what_sdpa_generates(flash, options):
    source = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 1, 1]])
    inputs = {"input_ids": source, "attention_mask": source.ne(1).long(), "max_new_tokens": 6, **options}
    expected = model_with("sdpa").generate(**inputs)
    assert torch.equal(model_with("flash_attention_2").generate(**inputs), expected)
    assert flash


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_arguments_without_effect_are_refused(implementation):
    module = attention_module(implementation)
    states = torch.randn(1, 3, 12)
    with pytest.raises(TypeError, match="does not know `past_key_values`"):
        module(states, past_key_values=None)
    with pytest.raises(TypeError, match=f"for flex attention, and have no effect with '{implementation}'"):
        module(states, kernel_options={"BLOCK_M": 16})


def test_equation_1_takes_boolean_masks_as_well():
    query, key, value = (torch.randn(2, 2, 3, 4) for _ in range(3))
    may_attend = torch.ones(3, 3, dtype=torch.bool).tril()[None, None]
    added = torch.zeros(1, 1, 3, 3).masked_fill(~may_attend, torch.finfo(torch.float32).min)
    module = nn.Identity().eval()
    results = [scaled_dot_product_attention(module, query, key, value, mask, 0.5)[1] for mask in (may_attend, added)]
    assert torch.equal(*results)


# In training on a CPU


@WIDTHS
@pytest.mark.parametrize("use", ["padded", "causal", "padded and causal", "cross", "no mask"])
def test_in_training_attention_is_written_out_and_equals_the_kernel_in_values_and_gradients(use, d_k, d_v):
    module = attention_module("sdpa", is_causal="causal" in use, d_k=d_k, d_v=d_v)
    states, source = random_states(3, 7, 12), random_states(3, 5, 12) if use == "cross" else None
    lengths = torch.tensor([7, 4, 1])
    allowed = (torch.arange(7) < lengths[:, None])[:, None, None, :].expand(-1, 1, 7, -1)
    if use == "padded and causal":
        allowed = allowed & torch.ones(7, 7, dtype=torch.bool).tril()
    if use == "cross":
        allowed = (torch.arange(5) < torch.tensor([5, 2, 1])[:, None])[:, None, None, :].expand(-1, 1, 7, -1)
    mask = None if use in ("causal", "no mask") else allowed
    found = []
    for training in (False, True):
        module.train(training).zero_grad()
        inputs = states.clone().requires_grad_()
        output, weights = module(inputs, mask, source)
        assert weights is None
        output.square().sum().backward()
        found.append([output.detach(), inputs.grad, *(parameter.grad.clone() for parameter in module.parameters())])
    for kernel, written_out in zip(*found, strict=True):
        torch.testing.assert_close(kernel, written_out, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("vector", [1, 16])
@pytest.mark.parametrize("num_keys", [1, 7, 15, 16, 17])
def test_the_softmax_over_few_keys_is_torchs_in_float64_in_values_and_gradients(num_keys, vector, monkeypatch):
    monkeypatch.setattr(attention_file, "_VECTOR", vector)
    scores = torch.randn(3, 2, 5, num_keys, generator=torch.Generator().manual_seed(num_keys)) * 4
    scores[0, :, 1] = torch.finfo(torch.float32).min  # a query that may attend to nothing
    scores[1, :, :, num_keys // 2 + 1 :] = torch.finfo(torch.float32).min
    wanted = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1))
    results = []
    for softmax, dtype in (
        (attention_file._softmax, torch.float32),
        (functools.partial(torch.softmax, dim=-1), torch.double),
    ):
        given = scores.to(dtype).requires_grad_()
        weights = softmax(given)
        (gradient,) = torch.autograd.grad((weights * wanted).sum(), given)
        results.append((weights.detach(), gradient))
    for ours, exact in zip(*results, strict=True):
        assert ours.shape == scores.shape
        torch.testing.assert_close(ours, exact.float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(results[0][0][0, :, 1], torch.full((2, num_keys), 1 / num_keys))


def test_the_kernel_is_used_for_long_texts_in_evaluation_and_where_it_is_the_users_own(monkeypatch):
    module = attention_module("sdpa")
    calls = []
    own = torch.nn.functional.scaled_dot_product_attention

    def counting(*args, **kwargs):
        calls.append(1)
        return own(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counting)

    def kernel_is_used(length, training=True):
        calls.clear()
        module.train(training)(random_states(1, length, 12))
        return bool(calls)

    assert not kernel_is_used(64)
    assert kernel_is_used(65)
    assert kernel_is_used(5, training=False)

    def users(module, query, key, value, *args, **kwargs):
        return value.transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", users)
    states = random_states(1, 5, 12)
    torch.testing.assert_close(module.train()(states)[0], module.out_proj(module.v_proj(states)), **EXACT)


def test_under_autocast_what_three_projections_read_is_converted_once():
    module = attention_module("sdpa").float().train()
    converted = []

    def note(projection, inputs):
        converted.append(inputs[0])

    for name in ("q_proj", "k_proj", "v_proj"):
        getattr(module, name).register_forward_pre_hook(note)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(random_states(2, 5, 12).float())
    assert {each.dtype for each in converted} == {torch.bfloat16}
    assert len({each.data_ptr() for each in converted}) == 1
