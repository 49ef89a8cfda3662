"""Attention patterns: which keys they leave, by their papers' definitions, and what a graph of them is like."""

import itertools
import warnings

import pytest
import torch
import transformers
from parity import randomise
from test_attention import flex_attention_runs_here
from torch.nn.attention import flex_attention
from transformers.cache_utils import DynamicCache, EncoderDecoderCache, StaticCache

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerDecoderConfig,
    VanillaTransformerDecoderModel,
    VanillaTransformerForCausalLM,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerModel,
)
from hf_vanilla_transformer.attention_patterns import PATTERNS, dense_mask
from hf_vanilla_transformer.modeling_compatibility import parsed_version

SMALL = {"vocab_size": 20, "d_model": 8, "num_heads": 2, "d_ff": 8, "num_encoder_layers": 1, "num_decoder_layers": 1}
FIELDS = {
    "local": {"attention_window": 2},
    "strided": {"attention_window": 1, "attention_stride": 4},
    "local_global": {"attention_window": 1, "attention_stride": 5},
    "random": {"attention_window": 1, "num_random_keys": 2, "attention_seed": 3},
}


def config(pattern, **fields):
    return VanillaTransformerConfig(**{**SMALL, "attention_pattern": pattern, **FIELDS.get(pattern, {}), **fields})


def allowed(pattern, length, **fields):
    module, places = PATTERNS[pattern](config(pattern, **fields)), torch.arange(length)
    return module.may_attend(places[:, None], places[None, :])


def by_definition(pattern, i, j):
    near = abs(i - j) <= FIELDS[pattern]["attention_window"]
    stride = FIELDS[pattern].get("attention_stride")
    return (
        near
        or {
            "local": lambda: False,
            "strided": lambda: abs(i - j) % stride == 0,
            "local_global": lambda: i % stride == 0 or j % stride == 0,
        }[pattern]()
    )


@pytest.mark.parametrize("pattern", ["local", "strided", "local_global"])
def test_each_pattern_is_its_definition(pattern):
    expected = [[by_definition(pattern, i, j) for j in range(17)] for i in range(17)]
    assert allowed(pattern, 17).tolist() == expected


@pytest.mark.parametrize("pattern", FIELDS)
def test_every_position_sees_itself_and_links_hold_both_ways(pattern):
    graph = allowed(pattern, 40)
    assert bool(graph.diagonal().all())
    assert torch.equal(graph, graph.T)
    assert not bool(graph.all())


def test_a_seed_of_any_size_makes_a_graph():
    assert not torch.equal(allowed("random", 60, attention_seed=2**62), allowed("random", 60))


def distances(graph):
    """Steps between all positions, by breadth-first search; None where there is no way."""
    neighbours = [row.nonzero().flatten().tolist() for row in graph]
    found = []
    for start in range(len(graph)):
        steps, edge = {start: 0}, [start]
        while edge:
            edge = [there for here in edge for there in neighbours[here] if there not in steps]
            steps |= dict.fromkeys(edge, max(steps.values()) + 1)
        found += [steps.get(end) for end in range(start)]
    return found


def test_a_random_graph_grows_linearly_and_makes_a_small_world():
    """Watts and Strogatz, 1998: a few random links among neighbours bring any two near to each other."""
    links = {length: (int(allowed("random", length).sum()) - length) // 2 for length in (100, 200, 400)}
    for length, count in links.items():
        assert length <= count <= 3 * length  # one neighbour before each, and up to two links
    assert links[400] < 2.1 * links[200] < 2.1 * 2.1 * links[100]
    ring, small_world = distances(allowed("local", 200, attention_window=1)), distances(allowed("random", 200))
    assert None not in small_world
    assert sum(ring) / len(ring) > 60
    assert sum(small_world) / len(small_world) < 6


def test_a_longer_text_has_the_graph_of_a_shorter_one_and_a_seed_makes_another():
    assert torch.equal(allowed("random", 60)[:30, :30], allowed("random", 30))
    assert not torch.equal(allowed("random", 60), allowed("random", 60, attention_seed=4))
    far = allowed("random", 2000, num_random_keys=1)
    firsts = [int(row.nonzero()[0]) / at for at, row in enumerate(far) if at]
    # The first is the link, since that with the neighbour and those of later positions are later. It is uniform over
    # what is earlier: mean 1/2, within six standard errors.
    assert abs(sum(firsts) / len(firsts) - 0.5) < 6 * (1 / 12 / len(firsts)) ** 0.5


@pytest.mark.parametrize("pattern", FIELDS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_query_is_moved_by_the_keys_it_may_see_and_by_no_others(pattern, attention):
    model = VanillaTransformerModel._from_config(config(pattern), attn_implementation=attention).double().eval()
    source, target = torch.randint(4, 20, (1, 12)), torch.randint(4, 20, (1, 12))
    graph = allowed(pattern, 12)
    for stack in ("encoder", "decoder"):
        outputs = []
        for changed in (None, *range(12)):
            ids = [source.clone(), target.clone()]
            if changed is not None:
                ids[stack == "decoder"][0, changed] = 3
            if stack == "encoder":
                outputs.append(model.encoder(ids[0]).last_hidden_state[0])
            else:
                outputs.append(model(input_ids=ids[0], decoder_input_ids=ids[1]).last_hidden_state[0])
        for changed, query in itertools.product(range(12), range(12)):
            sees = bool(graph[query, changed]) and (stack == "encoder" or changed <= query)
            assert torch.equal(outputs[changed + 1][query], outputs[0][query]) != sees, (stack, changed, query)


def test_layers_widen_what_a_pattern_leaves():
    """With N layers a query sees what is N links away, so a window of w reaches N * w positions."""
    model = VanillaTransformerModel(config("local", num_encoder_layers=3)).double().eval()
    source = torch.randint(4, 20, (1, 20))
    before = model.encoder(source).last_hidden_state[0]
    source[0, 0] = 3
    moved = (model.encoder(source).last_hidden_state[0] != before).any(-1)
    assert moved.nonzero().flatten().tolist() == list(range(7))


def test_an_attention_without_masks_is_refused_by_name():
    says = r"'flash_attention_2' does not work with `attention_pattern`='local': .*which key.*'flex_attention'"
    with pytest.raises(ValueError, match=says):
        VanillaTransformerModel._from_config(config("local"), attn_implementation="flash_attention_2")
    model = VanillaTransformerModel(config("local"))
    with pytest.raises(ValueError, match="does not work with `attention_pattern`='local'"):
        model.set_attn_implementation("flash_attention_2")


# Flex attention

SHAPE = {"vocab_size": 20, "d_model": 16, "num_heads": 2, "d_ff": 8}
IS_NEW = parsed_version(transformers.__version__) >= (5, 24)
STATIC = [{"cache_implementation": "static", "disable_compile": True}] * IS_NEW
SOURCE_MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]])
TARGET_MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])


@pytest.fixture
def nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True, raising=False)
    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        warnings.filterwarnings("ignore", "_compile flag on create_block_mask")  # transformers sets it
        yield


def by_eager_and_flex(model):
    for name in ("eager", "flex_attention"):
        model.set_attn_implementation(name)
        yield model


def assert_flex_agrees_with_eager(pattern):
    """With padding on both sides: encoder and decoder at once, and the decoder in parts, from both kinds of cache."""
    model = VanillaTransformerModel(config(pattern, d_model=32)).eval()
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randint(4, 20, mask.shape, generator=generator) for mask in (SOURCE_MASK, TARGET_MASK))
    outputs, is_token = [], TARGET_MASK.bool()
    for each in by_eager_and_flex(model):
        whole = each(source, SOURCE_MASK, target, TARGET_MASK)
        outputs.append((whole.encoder_last_hidden_state[SOURCE_MASK.bool()], whole.last_hidden_state[is_token]))
        given = {"attention_mask": SOURCE_MASK, "encoder_outputs": (whole.encoder_last_hidden_state,)}
        for cache in (DynamicCache(), StaticCache(config=model.config, max_cache_len=9)):
            both, parts = EncoderDecoderCache(cache, DynamicCache()), []
            for start, end in ((0, 4), (4, 6)):
                ids = {"decoder_input_ids": target[:, start:end], "decoder_attention_mask": TARGET_MASK[:, :end]}
                parts.append(each(**given, **ids, cache=both).last_hidden_state)
            torch.testing.assert_close(torch.cat(parts, dim=1)[is_token], outputs[-1][1], rtol=0, atol=1e-5)
    for eager, flex in zip(*outputs, strict=True):
        torch.testing.assert_close(flex, eager, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pattern", FIELDS)
@pytest.mark.usefixtures("nothing_is_compiled")
@torch.no_grad()
def test_flex_attention_agrees_with_eager(pattern):
    assert_flex_agrees_with_eager(pattern)


@pytest.mark.slow
@torch.no_grad()
def test_compiled_flex_attention_agrees_with_eager():
    """Compiles kernels, a minute or two on a quiet machine; the random pattern has the longest code."""
    if reason := flex_attention_runs_here():
        pytest.skip(reason)
    model = VanillaTransformerModel(config("random", d_model=32)).eval()
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randint(4, 20, mask.shape, generator=generator) for mask in (SOURCE_MASK, TARGET_MASK))
    # Not in parts: torch 2.13 then compiles for any length, and writes wrong C++ for a CPU, which does not compile.
    outputs = [each(source, SOURCE_MASK, target, TARGET_MASK) for each in by_eager_and_flex(model)]
    for name, mask in (("encoder_last_hidden_state", SOURCE_MASK), ("last_hidden_state", TARGET_MASK)):
        eager, flex = (output[name][mask.bool()] for output in outputs)
        torch.testing.assert_close(flex, eager, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("nothing_is_compiled")
@torch.no_grad()
def test_flex_attention_generates_what_eager_does():
    fields = {**FIELDS["random"], "attention_pattern": "random", "num_decoder_layers": 1}
    model = VanillaTransformerForCausalLM(VanillaTransformerDecoderConfig(**SHAPE, **fields)).eval()
    randomise(model, seed=0)
    prompts = {
        "input_ids": torch.tensor([[5, 9, 4], [1, 8, 7]]),
        "attention_mask": torch.tensor([[1, 1, 1], [0, 1, 1]]),
    }
    for options in ({}, {"num_beams": 2}, *STATIC):
        eager, flex = (each.generate(**prompts, max_new_tokens=3, **options) for each in by_eager_and_flex(model))
        assert torch.equal(flex, eager)


@pytest.mark.skipif(not STATIC, reason="transformers before 5.24 cannot expand masks of flex attention")
@pytest.mark.usefixtures("nothing_is_compiled")
@torch.no_grad()
def test_flex_attention_with_a_static_cache_sees_no_key_that_is_not_there_yet():
    """transformers' mask reads the length of the cache after it has grown; without a target mask nothing else does."""
    fields = {**SHAPE, "num_encoder_layers": 1, "num_decoder_layers": 2}
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**fields)).eval()
    randomise(model, seed=0)
    options = {"max_new_tokens": 4, "num_beams": 1, "output_logits": True, "return_dict_in_generate": True, **STATIC[0]}
    logits = [each.generate(torch.tensor([[5, 9, 4, 2]]), **options).logits for each in by_eager_and_flex(model)]
    for eager, flex in zip(*logits, strict=True):
        torch.testing.assert_close(flex, eager, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("nothing_is_compiled")
@torch.no_grad()
def test_flex_attention_keeps_packed_texts_and_prefixes_and_the_pattern():
    fields = {**FIELDS["local"], "attention_pattern": "local", "num_decoder_layers": 1}
    decoder = VanillaTransformerDecoderConfig(**SHAPE, **fields, prefix_visibility="bidirectional")
    model = VanillaTransformerDecoderModel(decoder).eval()
    ids, positions = torch.randint(4, 20, (2, 6)), torch.tensor([[0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 4, 5]])
    for options in ({"position_ids": positions}, {"prefix_length": torch.tensor([3, 4])}, {"output_attentions": True}):
        eager, flex = (each(ids, **options).last_hidden_state for each in by_eager_and_flex(model))
        torch.testing.assert_close(flex, eager, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("nothing_is_compiled")
def test_a_block_mask_has_the_pattern_in_its_blocks():
    """What no query of a block sees is left out whole, so that its scores cost nothing."""
    module, places = PATTERNS["local"](config("local")), torch.arange(512)[None]
    everything = flex_attention.create_block_mask(lambda b, h, q, k: q >= 0, 1, None, 512, 512, device="cpu")
    blocks = module(everything, places, places, torch.float32)
    assert blocks.to_dense()[0, 0].tolist() == torch.ones(4, 4).tril(1).triu(-1).tolist()
    expected = allowed("local", 512)
    assert torch.equal(dense_mask(blocks, torch.device("cpu"))[0], expected)
    numbers = torch.zeros(1, 1, 512, 512).masked_fill(~expected, torch.finfo(torch.float32).min)
    for mask in (expected[None, None], numbers):
        assert torch.equal(dense_mask(mask, torch.device("cpu"))[0], expected)
