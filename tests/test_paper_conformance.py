"""The model is the paper: each equation of "Attention Is All You Need" written naively, with loops, beside the module.

Everything naive below works on one sentence at a time, on lists of Python numbers (float64), without padding. It
shares no code with the package; it only reads the weights.
"""

import copy
import math
import struct
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForSeq2SeqLM

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerModel,
)
from hf_vanilla_transformer.attention import MultiHeadAttention, scaled_dot_product_attention
from hf_vanilla_transformer.decoder import DecoderLayer
from hf_vanilla_transformer.embeddings import TokenEmbedding
from hf_vanilla_transformer.encoder import EncoderLayer
from hf_vanilla_transformer.feed_forward import FeedForward
from hf_vanilla_transformer.loss import label_smoothed_cross_entropy
from hf_vanilla_transformer.positions import SinusoidalPositions, sinusoids

# Both sides compute in float64 on numbers near 1; a few hundred roundings apart.
EXACT = {"rtol": 0, "atol": 1e-12}

# Every size is another number, and d_k h, d_v h and d_model are three different widths: nothing fits by chance.
ODD_SHAPE = {
    "vocab_size": 23,
    "d_model": 8,
    "num_encoder_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 3,
    "d_k": 4,
    "d_v": 5,
    "d_ff": 11,
}


def build(cls=VanillaTransformerForConditionalGeneration, attention="eager", **fields):
    """A float64 model whose norms and biases are random as well, so that leaving one out shows."""
    model = cls(VanillaTransformerConfig(**{**ODD_SHAPE, **fields})).double().eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            nn.init.uniform_(parameter, 0.5, 1.5)
    model.set_attn_implementation(attention)
    return model


def built_part(cls, *arguments, **fields):
    """One float64 part of the model, all weights random."""
    config = VanillaTransformerConfig(**{**ODD_SHAPE, **fields})
    config._attn_implementation = "eager"
    part = cls(config, *arguments).double().eval()
    for parameter in part.parameters():
        nn.init.uniform_(parameter, -1.0, 1.0)
    return part


def random_rows(length, width=ODD_SHAPE["d_model"]):
    return torch.randn(length, width, dtype=torch.float64)


# --- The paper, naively ---------------------------------------------------------------------------------------------


def times(rows, matrix):
    """The matrix product, `rows` (n, k) times `matrix` (k, m)."""
    return [[sum(row[i] * matrix[i][j] for i in range(len(matrix))) for j in range(len(matrix[0]))] for row in rows]


def transposed(matrix):
    return [list(column) for column in zip(*matrix, strict=True)]


def plus(rows, others):
    return [[x + y for x, y in zip(row, other, strict=True)] for row, other in zip(rows, others, strict=True)]


def softmax(scores):
    highest = max(scores)
    powers = [math.exp(score - highest) for score in scores]
    return [power / sum(powers) for power in powers]


def attention_weights(queries, keys, allowed):
    """softmax(Q K^T / sqrt(d_k)), illegal connections set to minus infinity; `allowed[t][s]` says which are legal."""
    weights = []
    for t, query in enumerate(queries):
        scores = []
        for s, key in enumerate(keys):
            score = sum(q * k for q, k in zip(query, key, strict=True)) / math.sqrt(len(key))
            scores.append(score if allowed[t][s] else -math.inf)
        weights.append(softmax(scores))
    return weights


def attention(queries, keys, values, allowed):
    """Equation 1."""
    return times(attention_weights(queries, keys, allowed), values)


def per_head(weight, width):
    """The matrices W_i of a stacked projection (h * width, d_model), each transposed to (d_model, width)."""
    return [transposed(weight[start : start + width]) for start in range(0, len(weight), width)]


def multi_head(module, queries_from, keys_from, values_from, allowed):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O, head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V)."""
    w_q = per_head(module.q_proj.weight.tolist(), module.d_k)
    w_k = per_head(module.k_proj.weight.tolist(), module.d_k)
    w_v = per_head(module.v_proj.weight.tolist(), module.d_v)
    heads = [
        attention(times(queries_from, w_q[i]), times(keys_from, w_k[i]), times(values_from, w_v[i]), allowed)
        for i in range(len(w_q))
    ]
    concatenated = [[x for head in heads for x in head[t]] for t in range(len(queries_from))]
    return times(concatenated, transposed(module.out_proj.weight.tolist()))


def feed_forward(module, rows):
    """Equation 2: FFN(x) = max(0, x W_1 + b_1) W_2 + b_2."""
    (w_1, b_1), (w_2, b_2) = ((m.weight.tolist(), m.bias.tolist()) for m in (module.fc1, module.fc2))
    inner = [[max(0.0, x) for x in row] for row in plus(times(rows, transposed(w_1)), [b_1] * len(rows))]
    return plus(times(inner, transposed(w_2)), [b_2] * len(rows))


def layer_norm(module, rows):
    """Ba et al. 2016, equations 3 and 4: the mean and the (biased) variance over one position's features."""
    gain, bias = module.weight.tolist(), module.bias.tolist()
    normed = []
    for row in rows:
        mean = sum(row) / len(row)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in row) / len(row) + 1e-6)
        normed.append([(x - mean) / deviation * g + b for x, g, b in zip(row, gain, bias, strict=True)])
    return normed


def add_and_norm(norm, rows, sub_layer, pre=False):
    """3.1: LayerNorm(x + Sublayer(x)); or the variant x + Sublayer(LayerNorm(x))."""
    if pre:
        return plus(rows, sub_layer(layer_norm(norm, rows)))
    return layer_norm(norm, plus(rows, sub_layer(rows)))


def everything(queries, keys):
    return [[True] * keys for _ in range(queries)]


def leftward(length):
    return [[s <= t for s in range(length)] for t in range(length)]


def encoder_layer(layer, rows, pre=False):
    allowed = everything(len(rows), len(rows))
    rows = add_and_norm(
        layer.self_attention_norm, rows, lambda x: multi_head(layer.self_attention, x, x, x, allowed), pre
    )
    return add_and_norm(layer.feed_forward_norm, rows, lambda x: feed_forward(layer.feed_forward, x), pre)


def decoder_layer(layer, rows, memory, pre=False):
    past, source = leftward(len(rows)), everything(len(rows), len(memory))
    rows = add_and_norm(layer.self_attention_norm, rows, lambda x: multi_head(layer.self_attention, x, x, x, past), pre)
    rows = add_and_norm(
        layer.cross_attention_norm, rows, lambda x: multi_head(layer.cross_attention, x, memory, memory, source), pre
    )
    return add_and_norm(layer.feed_forward_norm, rows, lambda x: feed_forward(layer.feed_forward, x), pre)


def position_encoding(position, d_model):
    """3.5: PE(pos, 2i) = sin(pos / 10000^(2i/d_model)), PE(pos, 2i+1) = cos(pos / 10000^(2i/d_model))."""
    row = []
    for dimension in range(d_model):
        angle = position / 10000 ** (2 * (dimension // 2) / d_model)
        row.append(math.sin(angle) if dimension % 2 == 0 else math.cos(angle))
    return row


def to_float32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def embed(matrix, tokens):
    """3.4 and 3.5: embeddings times sqrt(d_model), plus the positions, which the package gives in float32."""
    d_model = len(matrix[0])
    scaled = [[x * math.sqrt(d_model) for x in matrix[token]] for token in tokens]
    return plus(scaled, [[to_float32(x) for x in position_encoding(t, d_model)] for t in range(len(tokens))])


def transformer(model, source, target):
    """Figure 1 up to the softmax: the logits (T, V) of each next token of one pair of sentences, and both outputs."""
    pre = model.config.norm_position == "pre"
    matrix = model.model.encoder.embed_tokens.weight.tolist()
    memory = embed(matrix, source)
    for layer in model.model.encoder.layers:
        memory = encoder_layer(layer, memory, pre)
    memory = layer_norm(model.model.encoder.final_norm, memory) if pre else memory
    rows = embed(matrix, target)
    for layer in model.model.decoder.layers:
        rows = decoder_layer(layer, rows, memory, pre)
    rows = layer_norm(model.model.decoder.final_norm, rows) if pre else rows
    return memory, rows, times(rows, transposed(matrix))


def padded(sentences, side, pad):
    longest = max(map(len, sentences))
    ids, mask = [], []
    for sentence in sentences:
        fill = longest - len(sentence)
        left = fill if side == "left" else 0
        ids.append([pad] * left + sentence + [pad] * (fill - left))
        mask.append([0] * left + [1] * len(sentence) + [0] * (fill - left))
    return torch.tensor(ids), torch.tensor(mask)


def assert_equal_to_naive(actual, naive):
    torch.testing.assert_close(actual, torch.tensor(naive, dtype=torch.float64), **EXACT)


# --- 3.1 Encoder and decoder stacks ---------------------------------------------------------------------------------


def test_section_3_1_encoder_layer_is_layer_norm_of_x_plus_sublayer():
    layer, x = built_part(EncoderLayer), random_rows(5)
    assert_equal_to_naive(layer(x.unsqueeze(0))[0], encoder_layer(layer, x.tolist()))


def test_section_3_1_decoder_layer_has_a_third_sublayer_over_the_output_of_the_encoder():
    layer, x, memory = built_part(DecoderLayer, 0), random_rows(4), random_rows(6)
    lowest = torch.finfo(torch.float64).min
    mask = torch.full((4, 4), lowest, dtype=torch.float64).triu(1)[None, None]
    assert_equal_to_naive(
        layer(x.unsqueeze(0), mask, memory.unsqueeze(0))[0], decoder_layer(layer, x.tolist(), memory.tolist())
    )


SOURCES = [[5, 6, 7, 8, 2], [9, 10, 2], [4, 11, 12, 2]]
TARGETS = [[0, 13, 14], [0, 15, 16, 17], [0]]


@pytest.mark.parametrize("target_side", ["left", "right"])
@pytest.mark.parametrize("source_side", ["left", "right"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_section_3_1_encoder_and_decoder_as_a_whole_with_padding_on_either_side(
    norm_position, attention, source_side, target_side
):
    """The naive model never sees padding, so equality also says that padding, wherever it stands, has no effect."""
    model = build(attention=attention, norm_position=norm_position)
    source, source_mask = padded(SOURCES, source_side, pad=1)
    target, target_mask = padded(TARGETS, target_side, pad=1)
    with torch.no_grad():
        outputs = model(
            input_ids=source,
            attention_mask=source_mask,
            decoder_input_ids=target,
            decoder_attention_mask=target_mask,
            output_hidden_states=True,
        )
    for i in range(len(SOURCES)):
        memory, rows, logits = transformer(model, SOURCES[i], TARGETS[i])
        assert_equal_to_naive(outputs.encoder_last_hidden_state[i][source_mask[i].bool()], memory)
        assert_equal_to_naive(outputs.decoder_hidden_states[-1][i][target_mask[i].bool()], rows)
        assert_equal_to_naive(outputs.logits[i][target_mask[i].bool()], logits)


def test_section_3_1_all_sublayers_and_the_embeddings_produce_outputs_of_dimension_d_model():
    model = build()
    shapes = {}
    for name, module in model.model.named_modules():
        if isinstance(module, MultiHeadAttention | FeedForward | TokenEmbedding):
            module.register_forward_hook(
                lambda _, __, output, name=name: shapes.update(
                    {name: (output[0] if isinstance(output, tuple) else output).shape[-1]}
                )
            )
    model(input_ids=torch.tensor([[5, 6, 2]]), decoder_input_ids=torch.tensor([[0, 7]]))
    assert len(shapes) == 2 * 2 + 3 * 3 + 2  # two sub-layers, three sub-layers, two embeddings
    assert set(shapes.values()) == {8}


def test_section_3_1_the_layers_of_a_stack_are_identical_in_form_and_share_no_weights():
    model = build()
    for layers in (model.model.encoder.layers, model.model.decoder.layers):
        first = {name: weight.shape for name, weight in layers[0].named_parameters()}
        for layer in layers[1:]:
            assert {name: weight.shape for name, weight in layer.named_parameters()} == first
        pointers = [weight.data_ptr() for weight in layers.parameters()]
        assert len(set(pointers)) == len(pointers) == len(first) * len(layers)


def test_section_3_1_outputs_are_shifted_right_so_that_position_i_depends_only_on_positions_before_i():
    model = build()
    source = torch.tensor([[5, 6, 7, 2]])
    labels = torch.tensor([[8, 9, 10, 2]])
    with torch.no_grad():
        before = model(input_ids=source, labels=labels).logits
        shifted = model(input_ids=source, decoder_input_ids=torch.tensor([[0, 8, 9, 10]])).logits
        assert torch.equal(before, shifted)
        for i in range(4):
            changed = labels.clone()
            changed[0, i] = 11
            after = model(input_ids=source, labels=changed).logits
            assert torch.equal(after[0, : i + 1], before[0, : i + 1])
            if i + 1 < 4:
                assert not torch.allclose(after[0, i + 1], before[0, i + 1])


# --- 3.2 Attention --------------------------------------------------------------------------------------------------


def test_section_3_2_1_scaled_dot_product_attention_is_equation_1():
    queries, keys, values = random_rows(3, 4), random_rows(5, 4), random_rows(5, 6)
    allowed = [[True, False, True, True, False], [True] * 5, [False, False, False, True, False]]
    mask = torch.tensor(allowed).logical_not().double() * torch.finfo(torch.float64).min
    module = nn.Identity().eval()
    for legal, additive in ((everything(3, 5), None), (allowed, mask[None, None])):
        output, weights = scaled_dot_product_attention(
            module, queries[None, None], keys[None, None], values[None, None], additive, scaling=4**-0.5
        )
        assert_equal_to_naive(output[0, :, 0], attention(queries.tolist(), keys.tolist(), values.tolist(), legal))
        assert_equal_to_naive(weights[0, 0], attention_weights(queries.tolist(), keys.tolist(), legal))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_section_3_2_2_multi_head_attention_concatenates_heads_of_their_own_projections(implementation):
    module, x, memory = built_part(MultiHeadAttention), random_rows(3), random_rows(5)
    module.config._attn_implementation = implementation
    assert_equal_to_naive(
        module(x[None])[0][0], multi_head(module, x.tolist(), x.tolist(), x.tolist(), everything(3, 3))
    )
    rows, others = x.tolist(), memory.tolist()
    assert_equal_to_naive(
        module(x[None], key_value_states=memory[None])[0][0],
        multi_head(module, rows, others, others, everything(3, 5)),
    )


def test_section_3_2_2_the_projections_are_matrices_of_the_stated_shapes_without_biases():
    module = built_part(MultiHeadAttention)
    shapes = {name: tuple(weight.shape) for name, weight in module.named_parameters()}
    # h matrices of d_model x d_k (or d_v) side by side, stored transposed, and one of h d_v x d_model.
    assert shapes == {
        "q_proj.weight": (3 * 4, 8),
        "k_proj.weight": (3 * 4, 8),
        "v_proj.weight": (3 * 5, 8),
        "out_proj.weight": (8, 3 * 5),
    }


def test_section_3_2_3_the_three_uses_of_attention_take_queries_keys_and_values_from_where_the_paper_says():
    model = build(VanillaTransformerModel)
    inputs, projected, memory = {}, {}, []
    for name, module in model.named_modules():
        if isinstance(module, DecoderLayer | EncoderLayer):
            module.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]}))
        if isinstance(module, nn.Linear) and name.endswith(("q_proj", "k_proj", "v_proj")):
            module.register_forward_pre_hook(lambda _, args, name=name: projected.update({name: args[0]}))
        if name.endswith("self_attention_norm") and name.startswith("decoder"):
            module.register_forward_hook(lambda _, __, output, name=name: inputs.update({name: output}))
    model.encoder.register_forward_hook(lambda _, __, output: memory.append(output.last_hidden_state))
    model(input_ids=torch.tensor([[5, 6, 7, 2]]), decoder_input_ids=torch.tensor([[0, 8, 9]]))

    assert len(projected) == 3 * (2 + 3 + 3)
    for name, value in projected.items():
        layer, use, projection = name.rsplit(".", 2)
        if use == "self_attention":  # "all of the keys, values and queries come from the same place"
            assert torch.equal(value, inputs[layer])
        elif projection == "q_proj":  # "the queries come from the previous decoder layer"
            assert torch.equal(value, inputs[f"{layer}.self_attention_norm"])
        else:  # "and the memory keys and values come from the output of the encoder", of all of it
            assert torch.equal(value, memory[0])


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_section_3_2_3_the_three_uses_of_attention_see_what_the_paper_lets_them_see(norm_position, implementation):
    """Whole stacks, by derivatives: which output position depends on which input position."""
    model = build(VanillaTransformerModel, implementation, norm_position=norm_position)
    source = random_rows(4)[None].requires_grad_()
    target = random_rows(5)[None].requires_grad_()
    outputs = model(inputs_embeds=source, decoder_inputs_embeds=target)
    memory, decoded = outputs.encoder_last_hidden_state, outputs.last_hidden_state

    def depends(row, given):
        # A random direction: the plain sum of a normalised row would not depend on anything.
        (gradient,) = torch.autograd.grad((row * random_rows(1)[0]).sum(), given, retain_graph=True)
        return gradient[0].abs().sum(-1).ne(0).tolist()

    for i in range(4):
        assert depends(memory[0, i], source) == [True] * 4  # encoder: all positions
    for i in range(5):
        assert depends(decoded[0, i], source) == [True] * 4  # decoder over encoder: all positions
        assert depends(decoded[0, i], target) == [j <= i for j in range(5)]  # decoder: leftward only


# --- 3.3 Feed-forward -----------------------------------------------------------------------------------------------


def test_section_3_3_feed_forward_is_equation_2():
    module, x = built_part(FeedForward), random_rows(6)
    hidden = module.fc1(x)
    assert hidden.min() < 0 < hidden.max()  # otherwise max(0, .) would not be tested
    assert_equal_to_naive(module(x[None])[0], feed_forward(module, x.tolist()))


# --- 3.4 Embeddings and softmax -------------------------------------------------------------------------------------


def test_section_3_4_embeddings_are_scaled_by_sqrt_d_model_and_the_projection_is_not():
    model = build(d_model=16, position_encoding="none")
    matrix = model.lm_head.weight
    ids = torch.tensor([[5, 6, 7, 5]])
    for stack in (model.model.encoder, model.model.decoder):
        assert_equal_to_naive(stack.embed_tokens(ids)[0], [[4.0 * x for x in matrix[i].tolist()] for i in ids[0]])
    outputs = model(input_ids=ids, decoder_input_ids=ids, output_hidden_states=True)
    # What enters the first layer is nothing but the scaled embedding, and scaled once.
    assert_equal_to_naive(outputs.encoder_hidden_states[0][0], (4.0 * matrix[ids[0]]).tolist())
    assert_equal_to_naive(outputs.decoder_hidden_states[0][0], (4.0 * matrix[ids[0]]).tolist())
    rows = outputs.decoder_hidden_states[-1][0].tolist()
    assert_equal_to_naive(outputs.logits[0], times(rows, transposed(matrix.tolist())))


def test_section_3_4_three_uses_share_one_matrix_which_is_counted_and_stored_once(tmp_path):
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**ODD_SHAPE))
    matrix = model.model.encoder.embed_tokens.weight
    assert model.model.decoder.embed_tokens.weight is matrix
    assert model.lm_head.weight is matrix
    assert [name for name, weight in model.named_parameters() if weight.shape == (23, 8)] == [
        "model.encoder.embed_tokens.weight"
    ]
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert [name for name, weight in stored.items() if weight.shape == (23, 8)] == ["model.encoder.embed_tokens.weight"]
    loaded = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.model.encoder.embed_tokens.weight
    assert loaded.model.decoder.embed_tokens.weight is loaded.lm_head.weight
    assert torch.equal(loaded.lm_head.weight, matrix)


@pytest.mark.parametrize("through", ["the fused loss", "the logits"])
def test_section_3_4_a_gradient_reaches_the_shared_matrix_from_all_three_uses(through):
    tied = build(dropout=0.0)
    untied = build(dropout=0.0, tie_word_embeddings=False)
    # The tied model's state names the matrix under all three names.
    untied.load_state_dict(tied.state_dict())
    batch = {"input_ids": torch.tensor([[5, 6, 7, 2]]), "labels": torch.tensor([[8, 9, 5, 2]])}
    for model in (tied, untied):
        model.train()
        outputs = model(**batch, return_logits=through == "the logits")
        if through == "the fused loss":
            assert outputs.logits is None
            outputs.loss.backward()
        else:
            nn.functional.cross_entropy(outputs.logits[0], batch["labels"][0]).backward()
    three = [
        untied.model.encoder.embed_tokens.weight.grad,
        untied.model.decoder.embed_tokens.weight.grad,
        untied.lm_head.weight.grad,
    ]
    assert len({gradient.data_ptr() for gradient in three}) == 3
    for gradient in three:
        assert gradient.abs().sum() > 0
    # Which rows each use reaches: the source's words, the target's words shifted right, every word.
    assert three[0].abs().sum(-1).nonzero().flatten().tolist() == [2, 5, 6, 7]
    assert three[1].abs().sum(-1).nonzero().flatten().tolist() == [0, 5, 8, 9]
    assert three[2].abs().sum(-1).ne(0).all()
    torch.testing.assert_close(tied.lm_head.weight.grad, sum(three), **EXACT)


# --- 3.5 Positional encoding ----------------------------------------------------------------------------------------

# Values are float32, of at most 1: rounding to it costs 2^-25 at most. Nothing else may be lost, not even at position
# 10^7, where an angle in float32 would be off by a half.
HALF_A_FLOAT32_STEP = 2**-25 * 1.001


@pytest.mark.parametrize("d_model", [2, 8, 512])
@pytest.mark.parametrize("position", [0, 1, 2, 63, 1023, 100_000, 9_999_999])
def test_section_3_5_sinusoids_are_the_formula_at_small_and_very_large_positions(position, d_model):
    encoding = sinusoids(torch.tensor([position]), d_model)
    expected = torch.tensor([position_encoding(position, d_model)], dtype=torch.float64)
    tolerance = HALF_A_FLOAT32_STEP + position * 1e-14  # an angle's own rounding in float64
    torch.testing.assert_close(encoding.double(), expected, rtol=0, atol=tolerance)


def test_section_3_5_the_sinusoids_are_added_to_the_embeddings_in_both_stacks():
    model = build()
    ids = torch.tensor([[5, 6, 7, 8, 9, 2]])
    outputs = model(input_ids=ids, decoder_input_ids=ids[:, :4], output_hidden_states=True)
    naive = embed(model.lm_head.weight.tolist(), ids[0].tolist())
    assert_equal_to_naive(outputs.encoder_hidden_states[0][0], naive)
    assert_equal_to_naive(outputs.decoder_hidden_states[0][0], naive[:4])


@pytest.mark.parametrize("k", [1, 7, 1000, -3])
def test_section_3_5_the_encoding_of_pos_plus_k_is_one_linear_function_of_the_encoding_of_pos(k):
    """For each k there is one matrix for all positions: it turns every pair (sin, cos) by the angle of k."""
    d_model = 16
    matrix = torch.zeros(d_model, d_model, dtype=torch.float64)
    for i in range(0, d_model, 2):
        turn = k / 10000 ** (i / d_model)
        matrix[i, i], matrix[i, i + 1] = math.cos(turn), math.sin(turn)
        matrix[i + 1, i], matrix[i + 1, i + 1] = -math.sin(turn), math.cos(turn)
    positions = torch.arange(10, 3000, 13)
    encoded, moved = sinusoids(positions, d_model).double(), sinusoids(positions + k, d_model).double()
    # Each entry is a sum of two rounded numbers, compared with a third.
    torch.testing.assert_close(encoded @ matrix.T, moved, rtol=0, atol=3 * HALF_A_FLOAT32_STEP)


def test_section_3_5_wavelengths_form_a_geometric_progression_from_2_pi_to_10000_times_2_pi():
    """Read off the encodings: at position 1 the pair (sin, cos) stands at the angle 2 pi / wavelength.

    By the paper's own formula the last exponent is (d_model - 2) / d_model, so the progression ends one step before
    10000 * 2 pi, which only the layout of the authors' code reaches.
    """
    for d_model in (64, 512):
        first = sinusoids(torch.tensor([1]), d_model)[0].double()
        wavelengths = 2 * math.pi / torch.atan2(first[0::2], first[1::2])
        ratio = 10000 ** (2 / d_model)
        # Relative: a float32 sine is exact to 2^-24 of itself, and so is, near enough, the angle.
        torch.testing.assert_close(wavelengths[0].item(), 2 * math.pi, rtol=1e-6, atol=0)
        ratios = wavelengths[1:] / wavelengths[:-1]
        torch.testing.assert_close(ratios, torch.full_like(ratios, ratio), rtol=1e-6, atol=0)
        torch.testing.assert_close(wavelengths[-1].item() * ratio, 10000 * 2 * math.pi, rtol=1e-6, atol=0)

        first = sinusoids(torch.tensor([1]), d_model, "concatenated_tensor2tensor")[0].double()
        longest = 2 * math.pi / torch.atan2(first[d_model // 2 - 1], first[-1])
        torch.testing.assert_close(longest.item(), 10000 * 2 * math.pi, rtol=1e-6, atol=0)


def test_section_3_5_a_sequence_may_be_longer_than_any_before():
    """No table: nothing to outgrow, to store or to lose; a far position is as good as a near one."""
    model = build(num_encoder_layers=1, num_decoder_layers=1)
    assert list(model.buffers()) == []
    assert not [name for name in model.state_dict() if "position" in name]
    source = torch.randint(3, 23, (1, 700))
    with torch.no_grad():
        outputs = model(input_ids=source, decoder_input_ids=torch.tensor([[0]]), output_hidden_states=True)
        entered = outputs.encoder_hidden_states[0][0] - model.model.encoder.embed_tokens(source)[0]
        naive = [[to_float32(x) for x in position_encoding(t, 8)] for t in range(700)]
        assert_equal_to_naive(entered, naive)
        far = model.model.decoder(
            input_ids=torch.tensor([[0]]),
            encoder_hidden_states=outputs.encoder_last_hidden_state,
            position_ids=torch.tensor([[10**9]]),
        )
    assert far.last_hidden_state.isfinite().all()


# --- 5.4 Regularization ---------------------------------------------------------------------------------------------


class Dropouts:
    """Records every dropout that would drop something, and does to the input what a test wants.

    Dropout may happen in a function of torch, in its module or one derived from it, and inside fused attention.
    """

    def __init__(self, monkeypatch, action):
        self.calls: list[tuple[torch.Tensor, float]] = []

        def dropout(input, p=0.5, training=True, inplace=False):
            if p == 0 or not training:
                return input
            self.calls.append((input, p))
            return action(input)

        original = nn.functional.scaled_dot_product_attention

        def sdpa(*args, dropout_p=0.0, **kwargs):
            if dropout_p:
                self.calls.append((args[0], dropout_p))
            return original(*args, **kwargs)

        monkeypatch.setattr(nn.functional, "dropout", dropout)
        monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", sdpa)
        for cls in (nn.Dropout, *nn.Dropout.__subclasses__()):
            monkeypatch.setattr(cls, "forward", lambda module, input: dropout(input, module.p, module.training))


def sums_and_sub_layer_outputs(model):
    """Hooks that collect what dropout shall act on, by the object: 5.4's two places."""
    wanted = []
    for name, module in model.named_modules():
        if name.endswith(("embed_positions", "feed_forward")):
            module.register_forward_hook(lambda _, __, output: wanted.append(output))
        elif isinstance(module, MultiHeadAttention):
            module.register_forward_hook(lambda _, __, output: wanted.append(output[0]))
    return wanted


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_section_5_4_dropout_is_on_each_sub_layer_output_and_on_the_sums_in_both_stacks_and_nowhere_else(
    monkeypatch, norm_position, implementation
):
    model = build(attention=implementation, norm_position=norm_position, dropout=0.37).train()
    wanted = sums_and_sub_layer_outputs(model)
    batch = {"input_ids": torch.tensor([[5, 6, 7, 2]]), "labels": torch.tensor([[8, 9, 2]])}
    dropouts = Dropouts(monkeypatch, action=lambda x: x)
    random_state = torch.get_rng_state()
    trained = model(**batch).nll_loss

    # 2 + 3 sub-layers in 2 + 3 layers, and the sums of both stacks.
    assert len(dropouts.calls) == 2 * 2 + 3 * 3 + 2
    assert [id(x) for x, _ in dropouts.calls] == [id(x) for x in wanted]
    assert {p for _, p in dropouts.calls} == {0.37}
    # With those calls made harmless there is no other randomness, and training is evaluation.
    assert torch.equal(torch.get_rng_state(), random_state)
    # (Equation 1 is written out in training, and fused in evaluation.)
    torch.testing.assert_close(trained, model.eval()(**batch, return_logits=False).loss, rtol=1e-12, atol=0)


def test_section_5_4_there_is_no_dropout_in_evaluation(monkeypatch):
    model = build(dropout=0.37, attention_dropout=0.2, activation_dropout=0.2).eval()
    dropouts = Dropouts(monkeypatch, action=lambda x: x)
    model(input_ids=torch.tensor([[5, 6, 7, 2]]), labels=torch.tensor([[8, 9, 2]]))
    assert dropouts.calls == []


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_section_5_4_dropout_elsewhere_is_there_only_when_asked_for(monkeypatch, implementation):
    model = build(attention=implementation, dropout=0.0, attention_dropout=0.25, activation_dropout=0.125).train()
    dropouts = Dropouts(monkeypatch, action=lambda x: x)
    model(input_ids=torch.tensor([[5, 6, 7, 2]]), labels=torch.tensor([[8, 9, 2]]))
    # One attention in an encoder layer, two in a decoder layer, one feed-forward network in each.
    assert Counter(p for _, p in dropouts.calls) == {0.25: 2 + 2 * 3, 0.125: 2 + 3}


def test_section_5_4_dropout_is_before_the_output_is_added_and_normalised(monkeypatch):
    """Where dropout drops everything, the sub-layer is gone and x goes on: through both norms, or untouched."""
    Dropouts(monkeypatch, action=torch.zeros_like)
    x, memory = random_rows(5)[None], random_rows(4)[None]
    model = build(dropout=0.5).train()
    encoder, decoder = model.model.encoder.layers[0], model.model.decoder.layers[0]
    rows = layer_norm(encoder.feed_forward_norm, layer_norm(encoder.self_attention_norm, x[0].tolist()))
    assert_equal_to_naive(encoder(x)[0], rows)
    rows = layer_norm(decoder.cross_attention_norm, layer_norm(decoder.self_attention_norm, x[0].tolist()))
    assert_equal_to_naive(decoder(x, None, memory)[0], layer_norm(decoder.feed_forward_norm, rows))

    model = build(dropout=0.5, norm_position="pre").train()
    assert torch.equal(model.model.encoder.layers[0](x), x)
    assert torch.equal(model.model.decoder.layers[0](x, None, memory), x)


def test_section_5_4_dropout_on_the_sums_takes_both_embedding_and_position(monkeypatch):
    Dropouts(monkeypatch, action=torch.zeros_like)
    model = build(dropout=0.5).train()
    ids = torch.tensor([[5, 6, 7, 2]])
    outputs = model.model(input_ids=ids, decoder_input_ids=ids, output_hidden_states=True)
    assert torch.equal(outputs.encoder_hidden_states[0], torch.zeros(1, 4, 8, dtype=torch.float64))
    assert torch.equal(outputs.decoder_hidden_states[0], torch.zeros(1, 4, 8, dtype=torch.float64))


def test_section_5_4_dropout_drops_p_drop_of_the_numbers_and_scales_the_rest():
    model = build(VanillaTransformerModel, num_encoder_layers=1, d_model=64, dropout=0.3, position_encoding="none")
    ones = torch.ones(1, 500, 64, dtype=torch.float64)
    (entered,) = model.train().encoder(inputs_embeds=ones, output_hidden_states=True).hidden_states[:1]
    kept = entered.ne(0)
    # The package rounds P_drop to a multiple of 2^-16, so by 2^-17 at most.
    torch.testing.assert_close(entered[kept], torch.full_like(entered[kept], 1 / 0.7), rtol=2**-17 / 0.7, atol=0)
    # A binomial share of 32,000: six standard deviations.
    assert abs(kept.double().mean().item() - 0.7) < 6 * math.sqrt(0.3 * 0.7 / 32_000)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("training", [True, False])
def test_section_5_4_label_smoothing_is_the_cross_entropy_with_the_smoothed_distribution(training, epsilon):
    """q(v) = (1 - eps) [v is the label] + eps / V over the whole vocabulary (Szegedy et al. 2016, section 7).

    "During training", as the paper says: the loss of an evaluation is -log p of the label.
    """
    model = build(dropout=0.0, label_smoothing=epsilon).train(training)
    source, labels = [5, 6, 7, 2], [8, 9, 8, 2]
    outputs = model(input_ids=torch.tensor([source]), labels=torch.tensor([labels]))
    assert (outputs.logits is None) == training  # whether they are kept is all the same to the loss

    _, _, logits = transformer(model, source, [0] + labels[:-1])
    V = len(logits[0])
    cross_entropy = divergence = negative_log_likelihood = 0.0
    for row, label in zip(logits, labels, strict=True):
        p = softmax(row)
        q = [(1 - epsilon) * (v == label) + epsilon / V for v in range(V)]
        assert sum(q) == pytest.approx(1)
        cross_entropy -= sum(q[v] * math.log(p[v]) for v in range(V))
        divergence += sum(q[v] * math.log(q[v] / p[v]) for v in range(V) if q[v] > 0)
        negative_log_likelihood -= math.log(p[label])
    entropy = -len(labels) * sum(x * math.log(x) for x in q if x > 0)
    assert cross_entropy == pytest.approx(divergence + entropy, abs=1e-12, rel=0)
    expected = cross_entropy if training else negative_log_likelihood
    assert outputs.loss.item() == pytest.approx(expected / len(labels), abs=1e-12, rel=0)
    assert outputs.nll_loss.item() == pytest.approx(negative_log_likelihood / len(labels), abs=1e-12, rel=0)
    # And the sums of the loss that is not fused with the projection, for projections that are no plain matrix.
    sums = label_smoothed_cross_entropy(torch.tensor(logits, dtype=torch.float64), torch.tensor(labels), epsilon)
    assert sums[0].item() == pytest.approx(cross_entropy, abs=1e-11, rel=0)
    assert sums[1].item() == pytest.approx(negative_log_likelihood, abs=1e-11, rel=0)


# --- The numbers of sections 3 and 5, and Table 3's last row ---------------------------------------------------------


def test_section_3_and_5_4_the_base_model_built_by_default_has_the_hyper_parameters_of_the_paper():
    """Read from the modules, not from the configuration: N, d_model, d_ff, h, d_k, d_v, P_drop, epsilon_ls."""
    with torch.device("meta"):
        base = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig())
        big = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig.from_preset("big"))
    for model, d_model, d_ff, h, p_drop in ((base, 512, 2048, 8, 0.1), (big, 1024, 4096, 16, 0.3)):
        assert len(model.model.encoder.layers) == len(model.model.decoder.layers) == 6
        assert model.model.encoder.embed_tokens.weight.shape == (37000, d_model)
        for layer in [*model.model.encoder.layers, *model.model.decoder.layers]:
            assert layer.feed_forward.fc1.weight.shape == (d_ff, d_model)
            assert layer.feed_forward.fc2.weight.shape == (d_model, d_ff)
            attentions = [module for module in layer.modules() if isinstance(module, MultiHeadAttention)]
            assert len(attentions) == (2 if isinstance(layer, DecoderLayer) else 1)
            for module in attentions:
                assert (module.d_k, module.d_v) == (64, 64)  # 3.2.2: d_k = d_v = d_model / h = 64
                assert module.q_proj.out_features == module.v_proj.out_features == h * 64
        # 5.4: P_drop = 0.1, and 0.3 for the big model; label smoothing 0.1.
        dropouts = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
        assert dropouts == {p_drop, 0.0}
        assert model.config.label_smoothing == 0.1


# --- The initial weights, about which the paper says nothing; these are the package's own words ----------------------


WIDE = {
    "vocab_size": 300,
    "d_model": 64,
    "num_heads": 4,
    "d_k": 8,
    "d_v": 24,
    "d_ff": 96,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
}


def assert_xavier_uniform(weight):
    n, bound = weight.numel(), math.sqrt(6 / sum(weight.shape))
    weight = weight.double()
    # The bound is rounded to float32 before it is used; and among n >= 2,048 one comes close to it.
    assert 0.99 * bound < weight.abs().max() <= bound * (1 + 1e-6)
    # Six standard deviations of the mean and of the mean square of n uniform numbers.
    assert abs(weight.mean()) < 6 * bound / math.sqrt(3 * n)
    assert abs(weight.square().mean() - bound**2 / 3) < 6 * bound**2 * math.sqrt(4 / 45 / n)


def assert_normal(weight, std):
    n = weight.numel()
    z = weight.double() / std
    assert abs(z.mean()) < 6 / math.sqrt(n)
    assert abs(z.square().mean() - 1) < 6 * math.sqrt(2 / n)
    assert abs(z.pow(4).mean() - 3) < 6 * math.sqrt(96 / n)  # 3 tells a normal from any other distribution


def assert_initial_weights_are_as_stated(model):
    checked = set()
    for name, module in model.named_modules():
        tied_head = module is model.lm_head and model.config.tie_word_embeddings
        if isinstance(module, nn.Embedding) or tied_head:  # learned positions are an embedding too
            assert_normal(module.weight, model.config.d_model**-0.5)
        elif isinstance(module, nn.Linear):
            assert_xavier_uniform(module.weight)
            assert module.bias is None or torch.equal(module.bias, torch.zeros_like(module.bias))
        elif isinstance(module, nn.LayerNorm):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.bias, torch.zeros_like(module.bias))
        else:
            assert not list(module.parameters(recurse=False)), f"{name} has weights that no rule speaks of"
            continue
        checked |= {id(parameter) for parameter in module.parameters()}
    assert checked == {id(parameter) for parameter in model.parameters()}


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"norm_position": "pre", "attention_bias": True, "tie_word_embeddings": False},
        {"position_encoding": "learned", "max_position_embeddings": 100},
    ],
    ids=str,
)
def test_initial_weights_are_xavier_uniform_projections_scaled_normal_embeddings_zero_biases_and_unit_norms(variant):
    config = VanillaTransformerConfig(**WIDE, **variant)
    assert_initial_weights_are_as_stated(VanillaTransformerForConditionalGeneration(config))
    assert_initial_weights_are_as_stated(AutoModelForSeq2SeqLM.from_config(config))


@pytest.mark.parametrize(
    "variant",
    [
        {"norm_position": "pre", "attention_bias": True, "tie_word_embeddings": False},
        {"position_encoding": "learned", "max_position_embeddings": 100},
    ],
    ids=str,
)
def test_initial_weights_fill_what_a_checkpoint_lacks_though_loading_builds_on_the_meta_device(tmp_path, variant):
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**WIDE, **variant))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    model.save_pretrained(tmp_path)
    kept = {"model.encoder.layers.0.feed_forward.fc1.weight", "model.decoder.layers.0.cross_attention.q_proj.weight"}
    stored = {name: weight for name, weight in load_file(tmp_path / "model.safetensors").items() if name in kept}
    assert len(stored) == 2
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path)
    for name in kept:
        weight = loaded.get_parameter(name)
        assert torch.equal(weight, torch.full_like(weight, 7.0))
        nn.init.xavier_uniform_(weight)  # so that the rules below hold of it as of the others
    assert_initial_weights_are_as_stated(loaded)


@pytest.mark.parametrize("position_encoding", ["sinusoidal", "learned"])
def test_a_model_built_on_the_meta_device_and_then_loaded_is_the_model(tmp_path, position_encoding):
    fields = {"position_encoding": position_encoding}
    if position_encoding == "learned":
        fields["max_position_embeddings"] = 9
    model = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**ODD_SHAPE, **fields)).eval()
    batch = {"input_ids": torch.tensor([[5, 6, 7, 2]]), "decoder_input_ids": torch.tensor([[0, 8, 9]])}
    expected = model(**batch).logits

    with torch.device("meta"):
        empty = VanillaTransformerForConditionalGeneration(copy.deepcopy(model.config)).eval()
    assert {weight.device.type for weight in [*empty.parameters(), *empty.buffers()]} == {"meta"}
    # Memory that holds anything but the right numbers, so that a buffer left unloaded would show.
    empty = empty.to_empty(device="cpu")
    with torch.no_grad():
        for weight in [*empty.parameters(), *empty.buffers()]:
            weight.fill_(math.nan)
    empty.load_state_dict(model.state_dict())
    assert torch.equal(empty(**batch).logits, expected)

    model.save_pretrained(tmp_path)
    loaded = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded(**batch).logits, expected)
    assert isinstance(loaded.model.encoder.embed_positions, SinusoidalPositions) == (position_encoding == "sinusoidal")
