"""Attention patterns: which keys they leave, by their papers' definitions, and what a graph of them is like."""

import itertools

import pytest
import torch

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerModel
from hf_vanilla_transformer.attention_patterns import PATTERNS

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


@pytest.mark.parametrize("implementation", ["flash_attention_2", "flex_attention"])
def test_an_attention_without_masks_of_numbers_is_refused(implementation):
    with pytest.raises(ValueError, match=r"cannot be had with `attention_pattern`='local'.*'eager' or 'sdpa'"):
        VanillaTransformerModel._from_config(config("local"), attn_implementation=implementation)
