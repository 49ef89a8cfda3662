"""Self-attention that knows positions, against its papers' formulas in float64 and transformers' own rotation."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from hf_vanilla_transformer import VanillaTransformerConfig, attention_relative
from hf_vanilla_transformer.attention import MultiHeadAttention
from hf_vanilla_transformer.attention_relative import RotaryAttention, ShawAttention, self_attention
from hf_vanilla_transformer.positions_relative import RotaryPositions, ShawPositions

SMALL = {"vocab_size": 20, "d_model": 8, "num_heads": 2, "d_ff": 8, "num_encoder_layers": 1, "num_decoder_layers": 1}


def config(**fields):
    made = VanillaTransformerConfig(**{**SMALL, **fields})
    made._attn_implementation = "eager"
    return made


def split(states, width):
    return states.unflatten(-1, (-1, width)).transpose(1, 2)


def test_shaw_adds_up_the_weights_of_all_far_keys_in_float32():
    """In bf16, a sum of many small weights stops growing where it is some 256 times as large as they are."""
    types = []

    class Types(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types_, args=(), kwargs=None):
            if "scatter_add" in str(operation):
                types.append(args[0].dtype)
            return operation(*args, **(kwargs or {}))

    attention = ShawAttention(config(position_encoding="shaw_relative")).bfloat16()
    weights = torch.full((1, 2, 1, 9), 1 / 9).bfloat16()
    with Types():
        added = attention._relative_values(torch.zeros(1, 1, 2, 4).bfloat16(), weights, torch.zeros(1, 1, 9).long())
    assert types == [torch.float32]
    assert added.dtype == torch.bfloat16


@pytest.mark.parametrize("layout", ["interleaved", "concatenated"])
def test_rotary_turns_each_pair_by_position_times_frequency(layout):
    made = config(position_encoding="rotary", sinusoid_layout=layout, d_k=6, rotary_base=50)
    module, x = self_attention(made).double(), torch.randn(1, 3, 8, dtype=torch.float64)
    assert type(module) is RotaryAttention
    _, positions = RotaryPositions(made, False)(None, torch.tensor([[4, 0, 17]]), None, torch.float64)
    query = split(module.q_proj(x), 6)
    turned, _ = module._place(query, query, positions)
    for head in range(2):
        for t, at in enumerate((4, 0, 17)):
            row, expected = query[0, head, t].tolist(), [0.0] * 6
            for i in range(3):
                first, second = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, i + 3)
                angle = at * 50 ** (-2 * i / 6)
                expected[first] = row[first] * math.cos(angle) - row[second] * math.sin(angle)
                expected[second] = row[first] * math.sin(angle) + row[second] * math.cos(angle)
            # cosines and sines are rounded to float32
            assert turned[0, head, t].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("positions", [torch.arange(7)[None], torch.stack((torch.arange(7), torch.arange(7) + 3))])
def test_pairs_turned_as_complex_numbers_are_those_of_the_formula_in_values_and_gradients(
    dtype, positions, monkeypatch
):
    made = config(position_encoding="rotary")
    attention = RotaryAttention(made)
    _, (cosines, sines) = RotaryPositions(made, is_causal=False)(None, positions, None, torch.float32)
    projected = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    wanted = torch.randn(2, 2, 7, 4, generator=torch.Generator().manual_seed(1)).to(dtype)
    results = []
    for is_eager in (True, False):
        monkeypatch.setattr(attention_relative, "is_eager_on_cpu", lambda _, is_eager=is_eager: is_eager)
        states = projected.clone().requires_grad_()
        turned = attention._rotated(split(states, 4), cosines, sines)
        (gradient,) = torch.autograd.grad((turned * wanted).sum(), states)
        results.append((turned.detach(), gradient))
    for as_complex, written_out in zip(*results, strict=True):
        assert as_complex.dtype == dtype
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 0.05}[dtype]
        torch.testing.assert_close(as_complex, written_out, rtol=0, atol=tolerance)


def test_rotary_halves_are_those_of_llama_in_transformers():
    made = config(position_encoding="rotary", sinusoid_layout="concatenated", d_k=8)
    places, query, key = torch.tensor([[3, 4, 90]]), torch.randn(1, 2, 3, 8), torch.randn(1, 2, 3, 8)
    _, positions = RotaryPositions(made, False)(None, places, None, torch.float32)
    angles = places[..., None].double() * 10000.0 ** (-torch.arange(0, 8, 2).double() / 8)
    twice = torch.cat([angles, angles], -1)
    theirs = apply_rotary_pos_emb(query, key, twice.cos().float(), twice.sin().float())
    for ours, expected in zip(self_attention(made)._place(query, key, positions), theirs, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_shaw_adds_vectors_of_distances_to_keys_and_values(groups, masked):
    """Equations 3 and 4 of Shaw et al., 2018, by loops; with fewer heads of keys, each serves a group."""
    made = config(position_encoding="shaw_relative", max_relative_distance=2, d_k=3, d_v=5, num_key_value_heads=groups)
    module = self_attention(made).double().eval()
    assert type(module) is ShawAttention
    torch.nn.init.normal_(module.relative_keys.weight)
    torch.nn.init.normal_(module.relative_values.weight)
    x, length = torch.randn(1, 6, 8, dtype=torch.float64), 6
    places = torch.arange(length)[None]
    mask = None
    if masked:
        mask = torch.zeros(length, length, dtype=torch.float64).masked_fill_(
            torch.ones(length, length, dtype=torch.bool).triu(1), torch.finfo(torch.float64).min
        )[None, None]
    _, positions = ShawPositions(made, True)(mask, places, places, torch.float64)
    actual, weights = module(x, mask, positions=positions)
    q, k, v = split(module.q_proj(x), 3)[0], split(module.k_proj(x), 3)[0], split(module.v_proj(x), 5)[0]
    outputs = torch.zeros(length, 2, 5, dtype=torch.float64)
    for head in range(2):
        of = head * groups // 2
        for i in range(length):
            row = range(i + 1 if masked else length)
            near = [max(-2, min(2, j - i)) + 2 for j in row]
            scores = torch.stack(
                [q[head, i] @ (k[of, j] + module.relative_keys.weight[near[j]]) / math.sqrt(3) for j in row]
            )
            alpha = scores.softmax(0)
            torch.testing.assert_close(weights[0, head, i, : len(alpha)], alpha, rtol=0, atol=1e-12)
            for j in row:
                outputs[i, head] += alpha[j] * (v[of, j] + module.relative_values.weight[near[j]])
    torch.testing.assert_close(actual[0], module.out_proj(outputs.flatten(1)), rtol=0, atol=1e-12)


def test_attention_over_the_source_and_other_positions_have_the_attention_of_the_paper():
    for encoding in ("sinusoidal", "none", "alibi", "t5_relative"):
        assert type(self_attention(config(position_encoding=encoding))) is MultiHeadAttention


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("num_key_value_heads", [1, 2, 4])
def test_grouped_keys_are_the_whole_attention_with_each_head_of_keys_repeated(implementation, num_key_value_heads):
    """Ainslie et al., 2023; with 1 it is multi-query attention, with h the paper's."""
    fields = {"num_heads": 4, "d_k": 3, "d_v": 5}
    few = MultiHeadAttention(config(**fields, num_key_value_heads=num_key_value_heads)).eval()
    whole = MultiHeadAttention(config(**fields)).eval()
    whole.load_state_dict({**whole.state_dict(), **{n: w for n, w in few.state_dict().items() if n[0] in "qo"}})
    for name, width in (("k_proj", 3), ("v_proj", 5)):
        heads = getattr(few, name).weight.view(num_key_value_heads, width, 8)
        getattr(whole, name).weight.data = heads.repeat_interleave(4 // num_key_value_heads, 0).flatten(0, 1)
    x, mask = torch.randn(2, 6, 8), torch.randn(2, 4, 6, 6)
    for given in (None, mask):
        actual, expected = (each(x, given, implementation=implementation)[0] for each in (few, whole))
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    assert few.k_proj.weight.shape == (3 * num_key_value_heads, 8)
