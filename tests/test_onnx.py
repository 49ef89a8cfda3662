"""ONNX and torch.export out: the exported graphs, run by their own runtimes, against our model."""

import pytest
import torch
from parity import randomise
from variants import OF_ONE_STACK, VARIANTS

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.interop import export_onnx, export_torch
from hf_vanilla_transformer.interop.graphs import inference_graphs

V, PAD, EOS = 24, 1, 2
LAYERS, HEADS = 3, 4
SHAPES = {
    "paper": {"d_v": 6},
    "pre-norm, biases": {"norm_position": "pre", "attention_bias": True, "activation_function": "swish"},
    "two vocabularies": {"source_vocab_size": 30, "final_logits_bias": True, "sinusoid_layout": "concatenated"},
    "learned": {"position_encoding": "learned", "max_position_embeddings": 40, "final_norm": True},
    **{name: fields for name, fields in OF_ONE_STACK.items() if "attention" not in fields},
}


def random_model(shape):
    config = VanillaTransformerConfig(
        **{
            "vocab_size": V, "d_model": 16, "num_heads": HEADS, "d_ff": 24, "num_encoder_layers": 2,
            "num_decoder_layers": LAYERS, **SHAPES[shape],
        }
    )  # fmt: skip
    model = VanillaTransformerForConditionalGeneration(config).eval()
    randomise(model, seed=5)
    return model


class Eager:
    """The graphs as they are, before any export."""

    def __init__(self, folder, model):
        self.graphs = {name: graph.module for name, graph in inference_graphs(model).items()}

    def encode(self, ids, mask):
        return list(self.graphs["encoder"](ids, mask))

    def decode(self, ids, mask, cross, past):
        logits, *present = self.graphs["decoder"](ids, mask, tuple(cross), tuple(past))
        return logits, present


class TorchExport(Eager):
    def __init__(self, folder, model):
        export_torch(model, folder)
        self.graphs = {name: torch.export.load(folder / f"{name}.pt2").module() for name in ("encoder", "decoder")}


class Onnx:
    def __init__(self, folder, model):
        for name in ("onnx", "onnxscript"):
            pytest.importorskip(name)
        runtime = pytest.importorskip("onnxruntime")
        export_onnx(model, folder)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        self.encoder, self.decoder = (
            runtime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
            for name in ("encoder", "decoder")
        )

    @staticmethod
    def run(session, tensors):
        named = zip((given.name for given in session.get_inputs()), tensors, strict=True)
        return [torch.from_numpy(x) for x in session.run(None, {name: tensor.numpy() for name, tensor in named})]

    def encode(self, ids, mask):
        return self.run(self.encoder, [ids, mask])

    def decode(self, ids, mask, cross, past):
        logits, *present = self.run(self.decoder, [ids, mask, *cross, *past])
        return logits, present


def sources(rows, length, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, V, (rows, length), generator=generator)
    ids[:, -1] = EOS
    mask = torch.ones_like(ids)
    if rows > 1:
        ids[-1, :2], mask[-1, :2] = PAD, 0  # on the left
        ids[0, -2:], mask[0, -1] = torch.tensor([EOS, PAD]), 0
    return ids, mask


def no_past(cross):
    return [tensor[:, :, :0] for tensor in cross]


# An export takes seconds. "slow", all of them, takes a minute.
CASES = [
    pytest.param(shape, runtime, marks=[] if runtime is Eager else pytest.mark.slow)
    for shape in SHAPES
    for runtime in (Eager, TorchExport, Onnx)
]


@pytest.mark.parametrize(("shape", "runtime"), CASES)
@torch.no_grad()
def test_logits_of_any_sizes_and_greedy_search_are_ours(shape, runtime, tmp_path):
    model = random_model(shape)
    graphs = runtime(tmp_path, model)
    for rows, source_length, target_length in ((1, 3, 1), (3, 7, 6), (2, 11, 2)):
        ids, mask = sources(rows, source_length, rows)
        target = torch.randint(3, V, (rows, target_length), generator=torch.Generator().manual_seed(1))
        expected = model(input_ids=ids, attention_mask=mask, decoder_input_ids=target).logits
        cross = graphs.encode(ids, mask)
        whole, _ = graphs.decode(target, mask, cross, no_past(cross))
        torch.testing.assert_close(whole, expected, rtol=0, atol=1e-5)
        past, steps = no_past(cross), []
        for step in target.split(1, dim=1):
            logits, past = graphs.decode(step, mask, cross, past)
            steps.append(logits)
        torch.testing.assert_close(torch.cat(steps, dim=1), expected, rtol=0, atol=1e-5)

    ids, mask = sources(3, 7, 3)
    generated = model.generate(ids, attention_mask=mask, max_new_tokens=8, min_new_tokens=8, num_beams=1)
    cross = graphs.encode(ids, mask)
    past, tokens = no_past(cross), torch.zeros(3, 1, dtype=torch.long)
    while tokens.shape[1] < generated.shape[1]:
        logits, past = graphs.decode(tokens[:, -1:], mask, cross, past)
        logits[..., EOS] = -torch.inf
        tokens = torch.cat([tokens, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(tokens, generated)


@pytest.mark.parametrize("export", [export_torch, export_onnx])
@pytest.mark.parametrize(("variant", "field"), [("linear", "attention"), ("cross", "cross_attention")])
def test_sums_of_linear_attention_are_refused_by_name(export, variant, field, tmp_path):
    if export is export_onnx:
        pytest.importorskip("onnxscript")
    SHAPES[variant] = VARIANTS[variant]
    with pytest.raises(ValueError, match=f"`{field}`='linear'"):
        export(random_model(variant), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_exporting_leaves_the_model_as_it_was():
    model = random_model("paper")
    implementation = model.config._attn_implementation
    inference_graphs(model.train())
    assert model.training
    assert model.config._attn_implementation == implementation
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_graphs_of_a_half_precision_model_are_of_its_type(dtype):
    """Keys and values of earlier tokens have the type of the others, in the example for an exporter too."""
    model = random_model("paper").to(dtype)
    source = torch.tensor([[5, 6, 7, EOS], [8, EOS, PAD, PAD]])
    target, mask = torch.tensor([[0, 9, 10], [0, 11, 12]]), source.ne(PAD).long()
    expected = model(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits
    for graph in inference_graphs(model).values():
        flat = torch.utils._pytree.tree_leaves(graph.arguments)
        assert {tensor.dtype for tensor in flat if tensor.is_floating_point()} <= {dtype}
        graph.module(*graph.arguments)
    graphs = Eager(None, model)
    cross = graphs.encode(source, mask)
    nothing = [tensor[:, :, :0] for tensor in cross]
    logits, _ = graphs.decode(target, mask, cross, nothing)
    assert logits.dtype == dtype
    torch.testing.assert_close(logits, expected, rtol=0, atol=0.1)


@pytest.mark.slow  # half a minute
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("export", [export_torch, export_onnx])
def test_half_precision_models_are_exported(export, dtype, tmp_path):
    if export is export_onnx:
        pytest.importorskip("onnxscript")
    export(random_model("paper").to(dtype), tmp_path)
    assert len(list(tmp_path.iterdir())) >= 2
