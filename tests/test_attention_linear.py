"""Linear attention: against its quotient of sums written out in float64, against softmax, and its memory and masks."""

import pytest
import torch
from feature_formulas import phi
from transformers.cache_utils import DynamicCache, EncoderDecoderCache, StaticCache

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.attention import MultiHeadAttention
from hf_vanilla_transformer.attention_features import FEATURE_MAPS
from hf_vanilla_transformer.attention_linear import LinearAttention, causal_sums
from hf_vanilla_transformer.attention_relative import LinearRotaryAttention, RotaryAttention, self_attention
from hf_vanilla_transformer.positions_relative import RotaryPositions

SMALL = {"vocab_size": 20, "d_model": 16, "num_heads": 4, "d_ff": 16, "num_encoder_layers": 1, "num_decoder_layers": 1}


def config(**fields):
    return VanillaTransformerConfig(**{**SMALL, "attention": "linear", **fields})


def build(**fields):
    torch.manual_seed(3)
    return VanillaTransformerForConditionalGeneration(config(**fields)).eval()


@torch.no_grad()
def by_definition(attention, states, mask, is_causal):
    """sum_j phi(q_i) . phi(k_j) v_j / sum_j phi(q_i) . phi(k_j), query by query, and those weights."""
    name = attention.config.feature_map
    directions = getattr(attention.feature_map, "directions", torch.empty(0)).double()
    heads, groups = attention.config.num_heads, attention.config.num_key_value_heads
    rows, length, _ = states.shape
    outputs, weights = [], torch.zeros(rows, heads, length, length, dtype=states.dtype)
    for row in range(rows):
        q, k, v = ((proj(states[row])) for proj in (attention.q_proj, attention.k_proj, attention.v_proj))
        q, k, v = q.view(length, heads, -1), k.view(length, groups, -1), v.view(length, groups, -1)
        joined = torch.zeros(length, heads, attention.d_v, dtype=states.dtype)
        for head in range(heads):
            group = head // (heads // groups)
            for i in range(length):
                seen = [j for j in range(length) if mask[row, j] and (j <= i or not is_causal)]
                query = phi(name, q[i, head], False, directions)
                products = [float(query @ phi(name, k[j, group], True, directions)) for j in seen]
                if seen and sum(products) > 0:
                    for j, product in zip(seen, products):
                        weights[row, head, i, j] = product / sum(products)
                        joined[i, head] += weights[row, head, i, j] * v[j, group]
        outputs.append(attention.out_proj(joined.flatten(1)))
    return torch.stack(outputs), weights


@pytest.mark.parametrize("name", FEATURE_MAPS)
@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_is_its_quotient_of_sums_with_padding_on_either_side(name, is_causal):
    fields = {"num_random_features": 9, "feature_seed": 2} if name in ("random", "cosine_sine") else {}
    torch.manual_seed(0)
    attention = LinearAttention(
        config(feature_map=name, num_key_value_heads=2, d_k=3, d_v=5, **fields), is_causal=is_causal
    ).double()
    attention.q_proj.weight.data.mul_(0.3)  # so that sums of waves stay above their noise
    attention.k_proj.weight.data.mul_(0.3)
    states = torch.randn(2, 7, 16, dtype=torch.float64)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0]], dtype=torch.bool)
    expected, expected_weights = by_definition(attention, states, mask, is_causal)
    output, none = attention(states, mask)
    again, weights = attention(states, mask, output_attentions=True)
    assert none is None
    # The first row's first queries attend to nothing if they see no later keys; they are padding.
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(weights, expected_weights, rtol=0, atol=1e-12)
    assert torch.equal(again, output)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 150])
def test_chunks_give_the_sums_of_every_position(length):
    generator = torch.Generator().manual_seed(length)
    q, k, v = (
        torch.rand(*shape, dtype=torch.float64, generator=generator)
        for shape in ((2, 2, 3, length, 4), (2, 2, length, 4), (2, 2, length, 5))
    )
    earlier = torch.rand(2, 2, 4, generator=generator).double(), torch.rand(2, 2, 4, 5, generator=generator).double()
    for before in (None, earlier):
        numerators, denominators = causal_sums(q, k, v, before)
        keys = k.cumsum(2) + (0 if before is None else before[0][:, :, None])
        products = (k.unsqueeze(-1) * v.unsqueeze(-2)).cumsum(2) + (0 if before is None else before[1][:, :, None])
        torch.testing.assert_close(numerators, torch.einsum("bgrtf,bgtfd->bgrtd", q, products))
        torch.testing.assert_close(denominators[..., 0], torch.einsum("bgrtf,bgtf->bgrt", q, keys))


def test_memory_grows_with_the_length_and_not_with_its_square():
    """A forward and backward pass at 2,048 positions keeps less than one matrix of weights would take."""
    torch.manual_seed(0)
    attention, length = LinearAttention(config(d_model=8, num_heads=1), is_causal=True), 2048
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        attention(torch.randn(1, length, 8))
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    assert sum(storages.values()) < 4 * length**2 / 4


def relative_error(name, count, seeds, is_causal):
    """The root mean square error of random features' outputs beside softmax's, over that of the outputs."""
    errors, sizes = 0.0, 0.0
    for seed in range(seeds):
        torch.manual_seed(seed)
        fields = {"feature_map": name, "num_random_features": count, "feature_seed": seed}
        estimate = LinearAttention(config(**fields), is_causal=is_causal).double()
        exact = MultiHeadAttention(VanillaTransformerConfig(**SMALL), is_causal=is_causal).double()
        for projection in (estimate.q_proj, estimate.k_proj):
            projection.weight.data.mul_(0.5)  # the variance of an estimate grows exponentially with the scores
        exact.load_state_dict(estimate.state_dict(), strict=False)
        states = torch.randn(1, 30, 16, dtype=torch.float64)
        with torch.no_grad():
            expected = exact(states, implementation="sdpa")[0]
            errors += float((estimate(states)[0] - expected).square().sum())
            sizes += float(expected.square().sum())
    return (errors / sizes) ** 0.5


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("name", ["random", "cosine_sine"])
def test_more_random_features_come_nearer_to_softmax(name, is_causal):
    """The error falls as the inverse square root of their number: by 4 from 64 to 1,024."""
    few, many = (relative_error(name, count, 8, is_causal) for count in (64, 1024))
    assert many < 0.1
    assert 2.5 < few / many < 6.5


def test_rotation_before_random_features_estimates_rotary_attention():
    torch.manual_seed(0)
    fields = {"position_encoding": "rotary", "feature_map": "random", "num_random_features": 20000}
    attention, exact_config = (
        self_attention(config(**fields)).double(),
        VanillaTransformerConfig(**SMALL, position_encoding="rotary"),
    )
    assert type(attention) is LinearRotaryAttention
    exact = RotaryAttention(exact_config).double()
    exact.load_state_dict(attention.state_dict(), strict=False)
    states, places = torch.randn(1, 20, 16, dtype=torch.float64), torch.arange(20)[None]
    positions = RotaryPositions(exact_config, is_causal=False)(None, places, None, torch.float64)[1]
    with torch.no_grad():
        output, expected = attention(states, positions=positions)[0], exact(states, positions=positions)[0]
        moved = exact(states)[0]
    assert (output - expected).norm() < 0.1 * expected.norm() < 0.5 * (moved - expected).norm()


@pytest.mark.parametrize("name", FEATURE_MAPS)
def test_large_inputs_give_finite_outputs_and_gradients(name):
    torch.manual_seed(0)
    attention = LinearAttention(config(feature_map=name), is_causal=True)
    states = (100 * torch.randn(2, 70, 16)).requires_grad_()
    output = attention(states, torch.rand(2, 70) < 0.5)[0]
    output.sum().backward()
    assert bool(output.isfinite().all())
    assert bool(states.grad.isfinite().all())


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_masks_of_four_axes_are_read_if_they_hide_padding_and_the_future_and_refused_otherwise(stack):
    model, ids = build().model, torch.randint(4, 20, (2, 5))
    padding = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
    allowed = padding.bool()[:, None, None].expand(-1, 1, 5, -1)
    source = model.encoder(ids).last_hidden_state
    if stack == "decoder":
        allowed = allowed & torch.ones(5, 5, dtype=torch.bool).tril()

    def run(mask):
        if stack == "encoder":
            return model.encoder(ids, attention_mask=mask).last_hidden_state
        places = torch.tensor([[0, 0, 1, 2, 3], [0, 1, 2, 3, 4]])
        return model.decoder(ids, mask, source, position_ids=places).last_hidden_state

    with torch.no_grad():
        wide = run(allowed)
        assert torch.equal(wide, run(torch.zeros(2, 1, 5, 5).masked_fill(~allowed, torch.finfo(torch.float32).min)))
        if stack == "decoder":
            assert torch.equal(wide[padding.bool()], run(padding)[padding.bool()])
        local = allowed.clone()
        local[:, :, 4, 2] = False
        with pytest.raises(
            ValueError, match=r"`attention_mask` hides more than padding.*`attention`='linear'.*\(B, 5\)"
        ):
            run(local)


def test_what_only_softmax_has_is_refused_by_both_names():
    for implementation in ("flash_attention_2", "flex_attention"):
        with pytest.raises(ValueError, match=rf"'{implementation}' does not work with `attention`='linear'"):
            VanillaTransformerForConditionalGeneration._from_config(config(), attn_implementation=implementation)
    model, ids = build(), torch.randint(4, 20, (1, 4))
    with pytest.raises(ValueError, match=r"`cache_implementation`='static'.*`attention`='linear'"):
        model.generate(ids, cache_implementation="static")
    given = StaticCache(config=model.config, max_cache_len=9), DynamicCache(config=model.config)
    with pytest.raises(ValueError, match=r"`attention`='linear'.*StaticLayer"):
        model(input_ids=ids, decoder_input_ids=ids, cache=EncoderDecoderCache(*given))
    with pytest.raises(TypeError, match="kernel_options"):
        model(input_ids=ids, decoder_input_ids=ids, kernel_options={})


def test_weights_are_given_on_request_but_not_of_positions_that_are_only_sums():
    model, ids = build(), torch.randint(4, 20, (2, 6))
    outputs = model(input_ids=ids, decoder_input_ids=ids, output_attentions=True)
    for weights in (*outputs.encoder_attentions, *outputs.decoder_attentions):
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 6))
    assert not bool(outputs.decoder_attentions[0].triu(1).any())
    options = {"output_attentions": True, "return_dict_in_generate": True, "num_beams": 1, "eos_token_id": None}
    with pytest.raises(ValueError, match=r"`output_attentions`.*`attention`='linear'.*use_cache=False"):
        model.generate(ids, max_new_tokens=3, **options)
    free = model.generate(ids, max_new_tokens=3, use_cache=False, **options)
    assert [weights[0].shape for weights in free.decoder_attentions] == [(2, 4, t, t) for t in (1, 2, 3)]


@pytest.mark.parametrize("use", ["sampling", "groups of rows that leave", "assisted", "lookup", "prompt"])
def test_cached_decoding_is_uncached_decoding(use):
    model, ids = build(d_model=32, num_encoder_layers=2, num_decoder_layers=2), torch.randint(4, 20, (5, 7))
    model.get_input_embeddings().weight.data.mul_(3)
    options = {"max_new_tokens": 9, "num_beams": 1}
    if use == "sampling":
        options |= {"do_sample": True, "top_k": 0, "num_return_sequences": 2}
    if use == "groups of rows that leave":
        options |= {"num_beams": 3, "num_return_sequences": 3, "max_new_tokens": None, "max_extra_tokens": 2}
        ids = torch.where(torch.arange(7) < torch.tensor([7, 5, 4, 2, 1])[:, None], ids, 1)
    if use == "prompt":
        options["decoder_input_ids"] = torch.cat([torch.zeros(5, 1, dtype=torch.long), ids[:, :3]], dim=1)
    outputs = []
    for cached in (True, False):
        torch.manual_seed(1)
        helped = {}
        if cached and use in ("assisted", "lookup"):
            helped = {"assistant_model": build()} if use == "assisted" else {"prompt_lookup_num_tokens": 2}
            rows = [model.generate(ids[row : row + 1], **options, **helped, min_new_tokens=9) for row in range(5)]
            outputs.append(torch.cat(rows))
            continue
        least = {"min_new_tokens": 9} if use in ("assisted", "lookup") else {}
        outputs.append(model.generate(ids, attention_mask=ids.ne(1), use_cache=cached, **options, **least))
    assert torch.equal(*outputs)


def test_the_cache_that_greedy_search_returns_goes_on_and_its_size_is_that_of_the_sums():
    model, ids = build(), torch.randint(4, 20, (2, 6))
    options = {"num_beams": 1, "return_dict_in_generate": True, "eos_token_id": None}
    short = model.generate(ids, max_new_tokens=4, **options)
    sizes = [layer.keys.numel() + layer.values.numel() for layer in short.cache.self_attention_cache.layers]
    assert sizes == [2 * 4 * (4 + 4 * 4)]
    longer = model.generate(
        ids, decoder_input_ids=short.sequences, cache=short.cache, max_new_tokens=5, **options
    ).sequences
    assert torch.equal(longer, model.generate(ids, max_new_tokens=9, **options).sequences)


def test_features_and_sums_stay_in_float32_under_autocast():
    """The output is that of exact sums of 300 positions, rounded once; those in bf16, with 8 bits, are off by more."""
    torch.manual_seed(0)
    attention, states = LinearAttention(config(), 0, is_causal=True), torch.randn(1, 300, 16)
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    with torch.no_grad():
        attention.out_proj.weight.copy_(torch.eye(16))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            query, key, value = (
                getattr(attention, f"{name}_proj")(states).double().unflatten(-1, (4, 4)).transpose(1, 2)
                for name in "qkv"
            )
            outputs = [attention(states)[0], attention(states, cache=cache)[0]]
        features = [torch.where(each > 0, each + 1, each.exp()) for each in (query, key)]
        weights = (features[0] @ features[1].mT).tril()
        expected = (weights @ value / weights.sum(-1, keepdim=True)).transpose(1, 2).flatten(2)
    for output in outputs:
        assert output.dtype == torch.bfloat16
        torch.testing.assert_close(output.double(), expected, rtol=2**-8, atol=1e-6)
    layer = cache.self_attention_cache.layers[0]
    assert layer.keys.dtype == layer.values.dtype == torch.float32


@pytest.mark.slow  # ten seconds
def test_a_graph_for_any_length_gives_the_same_logits():
    model = build(feature_map="random", num_random_features=6, cross_attention="linear")

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, source, mask, target):
            return self.model(input_ids=source, attention_mask=mask, decoder_input_ids=target, use_cache=False).logits

    batch, source, target = (torch.export.Dim(name, min=2, max=300) for name in ("batch", "source", "target"))
    example = torch.randint(4, 20, (3, 8)), torch.ones(3, 8, dtype=torch.long), torch.randint(4, 20, (3, 5))
    shapes = ({0: batch, 1: source}, {0: batch, 1: source}, {0: batch, 1: target})
    graph = torch.export.export(Logits(), example, dynamic_shapes=shapes).module()
    for rows, lengths in ((2, (3, 4)), (4, (90, 130))):
        ids, mask = torch.randint(4, 20, (rows, lengths[0])), torch.ones(rows, lengths[0], dtype=torch.long)
        mask[0, 2:] = 0
        given = ids, mask, torch.randint(4, 20, (rows, lengths[1]))
        torch.testing.assert_close(graph(*given), Logits()(*given), rtol=0, atol=1e-5)
