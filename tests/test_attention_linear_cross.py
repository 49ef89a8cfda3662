"""Linear attention over the source: against its quotient of sums in float64, against softmax, and cached decoding."""

import pytest
import torch
from feature_formulas import phi
from transformers.cache_utils import DynamicCache, EncoderDecoderCache, StaticCache

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.attention import MultiHeadAttention
from hf_vanilla_transformer.attention_features import FEATURE_MAPS
from hf_vanilla_transformer.attention_linear import LinearAttention
from hf_vanilla_transformer.attention_linear_cross import LinearCrossAttention

SMALL = {"vocab_size": 20, "d_model": 16, "num_heads": 4, "d_ff": 16, "num_encoder_layers": 1, "num_decoder_layers": 1}


def config(**fields):
    return VanillaTransformerConfig(**{**SMALL, "cross_attention": "linear", **fields})


def build(**fields):
    torch.manual_seed(3)
    model = VanillaTransformerForConditionalGeneration(config(**fields)).eval()
    model.get_input_embeddings().weight.data.mul_(3)
    return model


def empty_cache():
    return EncoderDecoderCache(DynamicCache(), DynamicCache())


@torch.no_grad()
def by_definition(attention, targets, sources, mask):
    """sum_j phi(q_i) . phi(k_j) v_j / sum_j phi(q_i) . phi(k_j), query by query, and those weights."""
    name = attention.config.feature_map
    directions = getattr(attention.feature_map, "directions", torch.empty(0)).double()
    heads, groups = attention.config.num_heads, attention.config.num_key_value_heads
    rows, length, _ = targets.shape
    outputs, weights = [], torch.zeros(rows, heads, length, sources.shape[1], dtype=targets.dtype)
    for row in range(rows):
        q = attention.q_proj(targets[row]).view(length, heads, -1)
        k, v = (proj(sources[row]).unflatten(-1, (groups, -1)) for proj in (attention.k_proj, attention.v_proj))
        joined = torch.zeros(length, heads, attention.d_v, dtype=targets.dtype)
        for head in range(heads):
            group = head // (heads // groups)
            for i in range(length):
                seen = mask[row].nonzero().flatten().tolist()
                query = phi(name, q[i, head], False, directions)
                products = [float(query @ phi(name, k[j, group], True, directions)) for j in seen]
                for j, product in zip(seen, products):
                    weights[row, head, i, j] = product / max(sum(products), 1e-30)  # 0 where nothing is alike
                    joined[i, head] += weights[row, head, i, j] * v[j, group]
        outputs.append(attention.out_proj(joined.flatten(1)))
    return torch.stack(outputs), weights


@pytest.mark.parametrize("name", FEATURE_MAPS)
def test_attention_is_its_quotient_of_sums_with_and_without_a_cache(name):
    fields = {"num_random_features": 9, "feature_seed": 2} if name in ("random", "cosine_sine") else {}
    torch.manual_seed(0)
    attention = LinearCrossAttention(config(feature_map=name, num_key_value_heads=2, d_k=3, d_v=5, **fields), 0)
    attention = attention.double()
    attention.q_proj.weight.data.mul_(0.3)  # so that sums of waves stay above their noise
    attention.k_proj.weight.data.mul_(0.3)
    targets, sources = torch.randn(2, 3, 16, dtype=torch.float64), torch.randn(2, 5, 16, dtype=torch.float64)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]], dtype=torch.bool)
    expected, expected_weights = by_definition(attention, targets, sources, mask)
    output, none = attention(targets, mask, sources)
    assert none is None
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    cache = empty_cache()
    attention(targets[:, :1], mask, sources, cache)
    for step in range(3):
        found = attention(targets[:, step : step + 1], mask, sources, cache)[0]
        torch.testing.assert_close(found[:, 0], expected[:, step], rtol=0, atol=1e-12)
    for kept in (None, cache, empty_cache()):
        again, weights = attention(targets, mask, sources, kept, output_attentions=True)
        torch.testing.assert_close(again, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(weights, expected_weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["random", "cosine_sine"])
def test_more_random_features_come_nearer_to_softmax(name):
    """The error falls as the inverse square root of their number: by 4 from 64 to 1,024."""

    def relative_error(count, seeds=8):
        errors, sizes = 0.0, 0.0
        for seed in range(seeds):
            torch.manual_seed(seed)
            fields = {"feature_map": name, "num_random_features": count, "feature_seed": seed}
            estimate = LinearCrossAttention(config(**fields)).double()
            exact = MultiHeadAttention(VanillaTransformerConfig(**SMALL)).double()
            for projection in (estimate.q_proj, estimate.k_proj):
                projection.weight.data.mul_(0.5)  # the variance of an estimate grows exponentially with the scores
            exact.load_state_dict(estimate.state_dict(), strict=False)
            targets, sources = torch.randn(1, 20, 16, dtype=torch.float64), torch.randn(1, 30, 16, dtype=torch.float64)
            with torch.no_grad():
                expected = exact(targets, None, sources, implementation="sdpa")[0]
                errors += float((estimate(targets, None, sources)[0] - expected).square().sum())
                sizes += float(expected.square().sum())
        return (errors / sizes) ** 0.5

    few, many = relative_error(64), relative_error(1024)
    assert many < 0.1
    assert 2.5 < few / many < 6.5


def test_each_choice_builds_its_own_class_and_the_default_is_softmax():
    for of_self in ("softmax", "linear"):
        for across in ("softmax", "linear", None):
            fields = {} if across is None else {"cross_attention": across}
            model = VanillaTransformerForConditionalGeneration(
                VanillaTransformerConfig(**SMALL, attention=of_self, **fields)
            ).model
            (layer,) = model.decoder.layers
            assert isinstance(layer.self_attention, LinearAttention) == (of_self == "linear")
            assert type(layer.cross_attention) is (LinearCrossAttention if across == "linear" else MultiHeadAttention)


@torch.no_grad()
def test_what_decoding_keeps_of_a_source_is_made_once_and_has_the_size_of_any_other():
    model = build(num_decoder_layers=2, num_key_value_heads=2, d_v=5)
    projected = []
    for layer in model.model.decoder.layers:
        layer.cross_attention.k_proj.register_forward_hook(lambda module, inputs, output: projected.append(output))
    for length in (1, 7, 300):
        ids, projected[:] = torch.randint(4, 20, (2, length)), []
        options = {"max_new_tokens": 5, "num_beams": 1, "eos_token_id": None, "return_dict_in_generate": True}
        output = model.generate(ids, **options)
        assert len(projected) == 2  # one for each layer
        layers = output.cache.cross_attention_cache.layers
        assert [(layer.keys.shape, layer.values.shape) for layer in layers] == [((2, 1, 2, 4), (2, 1, 2, 4, 5))] * 2
        assert [layer.get_seq_length() for layer in layers] == [length] * 2


@pytest.mark.parametrize("attention", ["softmax", "linear"])
@pytest.mark.parametrize("use", ["static", "rows that leave", "sampled", "assisted", "lookup", "prompt", "cache"])
def test_cached_decoding_is_uncached_decoding(use, attention):
    if (use, attention) == ("static", "linear"):
        pytest.skip("sums have a constant size by themselves")
    model, ids = build(attention=attention, feature_map="relu"), torch.randint(4, 20, (4, 7))
    ids = torch.where(torch.arange(7) < torch.tensor([7, 5, 4, 2])[:, None], ids, 1)
    options = {"max_new_tokens": 7, "min_new_tokens": 7, "num_beams": 1, "attention_mask": ids.ne(1)}
    options["no_repeat_ngram_size"] = 1  # an untrained model would repeat itself, and say little
    helped = {}
    if use == "static":
        helped = {"cache_implementation": "static"}
    if use == "rows that leave":
        options |= {"num_beams": 3, "num_return_sequences": 3, "max_extra_tokens": 2}
        options = {name: value for name, value in options.items() if not name.endswith("new_tokens")}
    if use == "sampled":
        options |= {"do_sample": True, "top_k": 0, "num_return_sequences": 2}
    if use == "prompt":
        options["decoder_input_ids"] = torch.cat([torch.zeros(4, 1, dtype=torch.long), ids[:, :2]], dim=1)
    if use in ("assisted", "lookup"):
        ids, options["attention_mask"] = ids[:1], options["attention_mask"][:1]
        helped = {"assistant_model": build(d_ff=8)} if use == "assisted" else {"prompt_lookup_num_tokens": 2}
    if use == "cache":  # is handed on, with the beginning that it is of
        beginning = {**options, "max_new_tokens": 3, "min_new_tokens": 3, "return_dict_in_generate": True}
        short = model.generate(ids, **beginning)
        helped = {"cache": short.cache, "decoder_input_ids": short.sequences, "max_new_tokens": 4, "min_new_tokens": 4}
    outputs = []
    for given in ({**options, **helped}, {**options, "use_cache": False}):
        torch.manual_seed(1)
        outputs.append(model.generate(ids, **given))
    assert torch.equal(*outputs)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_of_the_source_changes_nothing(side):
    model = build(feature_map="random", num_random_features=5, position_encoding="none").double()
    alone, target = torch.randint(4, 20, (1, 4)), torch.randint(4, 20, (1, 5))
    expected = model(input_ids=alone, decoder_input_ids=target).logits
    padding = torch.full((1, 3), 1)
    ids = torch.cat([alone, padding] if side == "right" else [padding, alone], dim=1)
    for mask in (None, ids.ne(1)):
        found = model(input_ids=ids, attention_mask=mask, decoder_input_ids=target).logits
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_masks_of_four_axes_are_read_if_they_hide_padding_and_refused_otherwise():
    model = build().model
    source, ids = torch.randn(2, 5, 16), torch.randint(4, 20, (2, 3))
    padding = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])

    def run(mask):
        return model.decoder(ids, None, source, mask).last_hidden_state

    allowed = padding.bool()[:, None, None].expand(-1, 1, 3, -1)
    expected = run(padding)
    assert not torch.equal(expected, run(None))
    assert torch.equal(run(allowed), expected)
    numbers = torch.zeros(2, 1, 3, 5).masked_fill(~allowed, torch.finfo(torch.float32).min)
    assert torch.equal(run(numbers), expected)
    local = allowed.clone()
    local[:, :, 1, 2] = False
    said = r"`encoder_attention_mask` hides more than padding, .*`cross_attention`='linear'\); give a mask \(B, 5\)"
    for wrong in (local, torch.ones(2, 1, 3, 6, dtype=torch.bool), torch.ones(2, 3, 5, dtype=torch.bool)):
        with pytest.raises(ValueError, match=said):
            run(wrong)


@pytest.mark.parametrize("attention", ["softmax", "linear"])
def test_weights_are_given_on_request_also_beside_a_cache(attention):
    model, ids = build(attention=attention), torch.tensor([[4, 5, 6, 7, 2], [8, 9, 2, 1, 1]])
    options = {"output_attentions": True, "return_dict_in_generate": True, "num_beams": 1, "eos_token_id": None}
    free = model.generate(ids, attention_mask=ids.ne(1), max_new_tokens=3, use_cache=False, **options).cross_attentions
    assert [weights[0].shape for weights in free] == [(2, 4, length, 5) for length in (1, 2, 3)]
    for (weights,) in free:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
        assert not weights[1, :, :, 3:].any()
    if attention == "softmax":  # linear self-attention has no weights of earlier positions
        cached = model.generate(ids, attention_mask=ids.ne(1), max_new_tokens=3, **options).cross_attentions
        for (found,), (expected,) in zip(cached, free, strict=True):
            torch.testing.assert_close(found, expected[:, :, -1:], rtol=0, atol=1e-6)


def test_implementations_are_those_of_self_attention_and_caches_of_other_models_are_refused():
    for name in ("sdpa", "eager", "flex_attention"):
        model = VanillaTransformerForConditionalGeneration._from_config(config(), attn_implementation=name)
        assert model.config._attn_implementation == name
    with pytest.raises(ValueError, match="'flex_attention' does not work with `attention`='linear'"):
        model._from_config(config(attention="linear"), attn_implementation="flex_attention")
    attention, states = LinearCrossAttention(config(), 0), torch.randn(2, 3, 16)
    expected = attention(states, None, states, implementation="sdpa")[0]
    options = {"kernel_options": {"BLOCK_M": 16}}  # which are for the other attentions of the model
    assert torch.equal(attention(states, None, states, implementation="flex_attention", **options)[0], expected)
    with pytest.raises(TypeError, match="kernel_options"):
        attention(states, None, states, implementation="sdpa", **options)
    with pytest.raises(TypeError, match="`dropout`"):
        attention(states, None, states, dropout=0.1)
    cache = empty_cache()
    MultiHeadAttention(VanillaTransformerConfig(**SMALL), 0)(states, None, states, cache, implementation="sdpa")
    with pytest.raises(ValueError, match=r"`cross_attention`='linear' keeps sums of the source.*DynamicLayer.*3 pos"):
        attention(states, None, states, cache)
    static = EncoderDecoderCache(*(StaticCache(config=config(), max_cache_len=4) for _ in range(2)))
    for _ in range(2):
        assert torch.equal(attention(states, None, states, static)[0], expected)


@pytest.mark.parametrize("name", FEATURE_MAPS)
def test_large_inputs_give_finite_outputs_and_gradients_of_everything(name):
    torch.manual_seed(0)
    attention = LinearCrossAttention(config(feature_map=name))
    targets, sources = ((100 * torch.randn(2, length, 16)).requires_grad_() for length in (3, 70))
    mask = (torch.rand(2, 70) < 0.5).index_fill(0, torch.tensor([1]), False)  # a source of nothing but padding
    output = attention(targets, mask, sources)[0]
    output.sum().backward()
    for each in (output, targets.grad, sources.grad, *(weight.grad for weight in attention.parameters())):
        assert bool(each.isfinite().all())


def test_features_and_sums_stay_in_float32_under_autocast():
    """Sums of 300 positions in bf16, with 8 bits, would be off by more."""
    torch.manual_seed(0)
    attention, targets, sources = LinearCrossAttention(config(), 0), torch.randn(1, 4, 16), torch.randn(1, 300, 16)
    cache = empty_cache()
    with torch.no_grad():
        expected = attention(targets, None, sources)[0]
        for kept in (None, cache, cache):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = attention(targets, None, sources, kept)[0]
            assert output.dtype == torch.bfloat16
            torch.testing.assert_close(output.float(), expected, rtol=0, atol=0.02)
    assert cache.cross_attention_cache.layers[0].values.dtype == torch.float32
