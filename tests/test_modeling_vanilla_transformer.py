"""The contract of a transformers model: saving, tying, resizing, outputs, training, compiling, exporting.

What is checked follows transformers' own shared tests of its encoder-decoder models. Equality is bit for bit wherever
the same arithmetic runs twice.
"""

import copy
import io
import json
import math
import pickle
import warnings
from contextlib import contextmanager
from pathlib import Path

import checkpointing
import pytest
import torch
import torch.nn.functional as F
from accelerate.hooks import ModelHook, add_hook_to_module
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.export import Dim, export
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer
from transformers.cache_utils import Cache
from transformers.utils import is_flash_attn_2_available, output_capturing

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerModel,
)
from hf_vanilla_transformer.embeddings import TokenEmbedding
from hf_vanilla_transformer.encoder import derive_attention_mask
from hf_vanilla_transformer.loss_distillation import Teachers
from hf_vanilla_transformer.modeling_compatibility import CACHE

VOCAB_SIZE = 60
START, PAD, EOS = 0, 1, 2
ENCODER_LAYERS, DECODER_LAYERS, HEADS, WIDTH = 2, 3, 2, 16

both_classes = pytest.mark.parametrize("cls", [VanillaTransformerModel, VanillaTransformerForConditionalGeneration])
tied_and_untied = pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
both_norms = pytest.mark.parametrize("norm_position", ["post", "pre"])
slow_for_pre_norm = pytest.mark.parametrize("norm_position", ["post", pytest.param("pre", marks=pytest.mark.slow)])


def tiny_config(**overrides) -> VanillaTransformerConfig:
    shape = {
        "vocab_size": VOCAB_SIZE,
        "d_model": WIDTH,
        "num_encoder_layers": ENCODER_LAYERS,
        "num_decoder_layers": DECODER_LAYERS,
        "num_heads": HEADS,
        "d_v": 6,  # not d_k, so that a place that confuses the two shows
        "d_ff": 24,
    }
    return VanillaTransformerConfig(**{**shape, **overrides})


def tiny_model(cls=VanillaTransformerForConditionalGeneration, attn_implementation="sdpa", **overrides):
    torch.manual_seed(0)
    return cls._from_config(tiny_config(**overrides), attn_implementation=attn_implementation).eval()


def tokens(*shape: int, vocab_size: int = VOCAB_SIZE, seed: int = 1) -> torch.Tensor:
    return torch.randint(4, vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def batch(size: int = 3, source: int = 7, target: int = 5, vocab_size: int = VOCAB_SIZE) -> dict[str, torch.Tensor]:
    """Sources of two lengths, the second padded by two, and targets."""
    input_ids = tokens(size, source, vocab_size=vocab_size)
    input_ids[:, -1] = EOS
    if size > 1:
        input_ids[1, -3:] = torch.tensor([EOS, PAD, PAD])
    decoder_input_ids = tokens(size, target, vocab_size=vocab_size, seed=2)
    decoder_input_ids[:, 0] = START
    return {
        "input_ids": input_ids,
        "attention_mask": input_ids.ne(PAD).long(),
        "decoder_input_ids": decoder_input_ids,
    }


def training_batch(size: int = 3, source: int = 7, target: int = 5) -> dict[str, torch.Tensor]:
    """The same sources, with labels of two lengths in place of the decoder's input."""
    inputs = batch(size, source, target)
    del inputs["decoder_input_ids"]
    labels = tokens(size, target, seed=3)
    labels[:, -1] = EOS
    labels[0, -2:] = torch.tensor([EOS, -100])
    return {**inputs, "labels": labels}


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_weights(first: nn.Module, second: nn.Module) -> None:
    one, other = first.state_dict(), second.state_dict()
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def assert_same_logits(first: nn.Module, second: nn.Module, **options) -> None:
    with torch.no_grad():
        torch.testing.assert_close(first(**batch())[0], second(**batch())[0], **{"rtol": 0, "atol": 0, **options})


def embedding_matrices(model: VanillaTransformerForConditionalGeneration) -> list[torch.Tensor]:
    return [model.model.encoder.embed_tokens.weight, model.model.decoder.embed_tokens.weight, model.lm_head.weight]


def assert_tied(model: VanillaTransformerForConditionalGeneration) -> None:
    encoder, decoder, projection = embedding_matrices(model)
    assert decoder is encoder
    assert projection is encoder


# Saving and loading


@both_classes
@tied_and_untied
@both_norms
def test_saved_model_loads_bit_equal(cls, tie, norm_position, tmp_path):
    model = tiny_model(cls, tie_word_embeddings=tie, norm_position=norm_position)
    model.save_pretrained(tmp_path)
    loaded, report = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert_same_weights(model, loaded)
    assert not loaded.training
    assert_same_logits(model, loaded)
    assert loaded.config.to_dict() == {**model.config.to_dict(), "_name_or_path": str(tmp_path)}


@pytest.mark.parametrize("position_encoding", ["learned", "none"])
def test_other_position_encodings_load_bit_equal(position_encoding, tmp_path):
    longest = 16 if position_encoding == "learned" else None
    model = tiny_model(position_encoding=position_encoding, max_position_embeddings=longest)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert_same_weights(model, loaded)
    assert_same_logits(model, loaded)


@tied_and_untied
def test_base_model_loads_from_the_checkpoint_of_the_whole(tie, tmp_path):
    model = tiny_model(tie_word_embeddings=tie)
    model.save_pretrained(tmp_path)
    loaded, report = VanillaTransformerModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert set(report["unexpected_keys"]) == (set() if tie else {"lm_head.weight"})
    assert_same_weights(model.model, loaded)


@tied_and_untied
def test_whole_model_loads_from_the_checkpoint_of_the_base(tie, tmp_path):
    base = tiny_model(VanillaTransformerModel, tie_word_embeddings=tie)
    base.save_pretrained(tmp_path)
    loaded, report = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["unexpected_keys"]
    assert set(report["missing_keys"]) == (set() if tie else {"lm_head.weight"})
    assert_same_weights(base, loaded.model)
    if tie:
        assert_tied(loaded)
    assert torch.isfinite(loaded.lm_head.weight).all()


def test_auto_classes_build_and_load_our_classes(tmp_path):
    config = tiny_config()
    assert type(AutoConfig.for_model("vanilla_transformer", vocab_size=50)) is VanillaTransformerConfig
    assert type(AutoModel.from_config(config)) is VanillaTransformerModel
    model = AutoModelForSeq2SeqLM.from_config(config)
    assert type(model) is VanillaTransformerForConditionalGeneration
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is VanillaTransformerConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is VanillaTransformerModel
    assert type(AutoModelForSeq2SeqLM.from_pretrained(tmp_path)) is VanillaTransformerForConditionalGeneration


@tied_and_untied
def test_checkpoint_holds_every_matrix_once(tie, tmp_path):
    model = tiny_model(tie_word_embeddings=tie)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    embeddings = [name for name, tensor in saved.items() if tensor.shape == (VOCAB_SIZE, WIDTH)]
    assert len(embeddings) == (1 if tie else 3)
    assert sum(tensor.numel() for tensor in saved.values()) == model.num_parameters()
    matrices = [tensor for tensor in saved.values() if tensor.dim() == 2]
    for index, matrix in enumerate(matrices):
        assert not any(matrix.shape == other.shape and torch.equal(matrix, other) for other in matrices[:index])


def test_sharded_checkpoint_loads_bit_equal(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = type(model).from_pretrained(tmp_path)
    assert_same_weights(model, loaded)
    assert_tied(loaded)


def test_missing_weight_is_reported_and_initialised_as_ours(tmp_path):
    """Loading starts from memory that was never written, so a missed weight would be garbage or torch's default."""
    model = tiny_model(d_ff=2000)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.25)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    lost = {
        "model.encoder.layers.0.feed_forward.fc1.weight",
        "model.encoder.layers.0.feed_forward.fc1.bias",
        "model.decoder.layers.1.cross_attention_norm.weight",
        "model.decoder.layers.1.cross_attention_norm.bias",
    }
    save_file({name: tensor for name, tensor in saved.items() if name not in lost}, tmp_path / "model.safetensors")
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) == lost
    weights = loaded.state_dict()
    fc1 = weights["model.encoder.layers.0.feed_forward.fc1.weight"]
    bound = math.sqrt(6 / (WIDTH + 2000))  # Xavier-uniform; torch's own default would reach 1 / sqrt(16)
    assert 0.95 * bound < fc1.abs().max() <= bound
    assert fc1.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert weights["model.encoder.layers.0.feed_forward.fc1.bias"].eq(0).all()
    assert weights["model.decoder.layers.1.cross_attention_norm.weight"].eq(1).all()
    assert weights["model.decoder.layers.1.cross_attention_norm.bias"].eq(0).all()
    for name in weights.keys() - lost:
        assert weights[name].eq(0.25).all(), name


def test_unexpected_weight_is_reported_and_ignored(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    save_file({**saved, "model.encoder.surplus": torch.ones(2)}, tmp_path / "model.safetensors")
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["unexpected_keys"]) == {"model.encoder.surplus"}
    assert_same_weights(model, loaded)


def test_mismatched_vocabulary_is_refused_unless_allowed(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        type(model).from_pretrained(tmp_path, vocab_size=50)
    loaded = type(model).from_pretrained(tmp_path, vocab_size=50, ignore_mismatched_sizes=True)
    assert loaded.lm_head.weight.shape == (50, WIDTH)
    assert_tied(loaded)
    assert torch.equal(
        loaded.model.encoder.layers[0].feed_forward.fc1.weight, model.model.encoder.layers[0].feed_forward.fc1.weight
    )


def test_weights_loaded_by_state_dict_torch_save_and_pickle_are_bit_equal(tmp_path):
    model = tiny_model()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    torch.manual_seed(5)
    other = VanillaTransformerForConditionalGeneration(tiny_config()).eval()
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert_same_logits(model, other)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    assert_same_logits(model, torch.load(buffer, weights_only=False))


def test_config_survives_pickle_and_json():
    config = tiny_config(norm_position="pre", label_smoothing=0.0)
    assert pickle.loads(pickle.dumps(config)).to_dict() == config.to_dict()
    assert VanillaTransformerConfig(**json.loads(config.to_json_string())).to_dict() == config.to_dict()


# Memory that was never written: the meta device


@tied_and_untied
def test_model_on_the_meta_device_allocates_nothing(tie):
    with torch.device("meta"):
        model = VanillaTransformerForConditionalGeneration(tiny_config(tie_word_embeddings=tie))
    assert {tensor.device.type for tensor in [*model.parameters(), *model.buffers()]} == {"meta"}
    with torch.device("meta"):
        logits = model(
            input_ids=torch.zeros(2, 7, dtype=torch.long), decoder_input_ids=torch.zeros(2, 5, dtype=torch.long)
        ).logits
    assert logits.shape == (2, 5, VOCAB_SIZE)


@pytest.mark.parametrize("sinusoid_layout", ["interleaved", "concatenated", "concatenated_tensor2tensor"])
def test_loading_through_meta_leaves_nothing_unwritten(sinusoid_layout, tmp_path):
    """from_pretrained replaces each buffer that is not saved with whatever the memory held."""
    model = tiny_model(sinusoid_layout=sinusoid_layout)
    model.save_pretrained(tmp_path)
    for loaded in (
        type(model).from_pretrained(tmp_path),
        type(model).from_pretrained(tmp_path, low_cpu_mem_usage=True, device_map="cpu"),
    ):
        assert {tensor.device.type for tensor in [*loaded.parameters(), *loaded.buffers()]} == {"cpu"}
        assert len(list(loaded.buffers())) == len(list(model.buffers()))
        for (name, buffer), expected in zip(loaded.named_buffers(), model.buffers(), strict=True):
            assert torch.equal(buffer, expected), name
        assert_same_logits(model, loaded)


def test_loading_inside_a_device_context(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    with torch.device("cpu"):
        assert_same_logits(model, type(model).from_pretrained(tmp_path))


@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}, {"model": "cpu", "lm_head": "cpu"}], ids=str)
def test_device_map_on_one_device(device_map, tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, device_map=device_map)
    assert_tied(loaded)
    assert_same_logits(model, loaded)


OFFLOADED = {
    "everything": {"": "disk"},
    "each part": {"model.encoder": "disk", "model.decoder": "disk", "lm_head": "disk"},
    # Weights that are tied have to stay together, as accelerate's own "auto" keeps them.
    "layers": {
        "model.encoder.layers": "disk",
        "model.decoder.layers": "disk",
        **{
            f"model.{s}.{p}": "cpu"
            for s in ("encoder", "decoder")
            for p in ("embed_tokens", "embed_positions", "dropout", "final_norm")
        },
        "lm_head": "cpu",
    },
}


@pytest.mark.parametrize("device_map", OFFLOADED.values(), ids=OFFLOADED)
def test_weights_offloaded_to_disk_change_nothing(device_map, tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    loaded = type(model).from_pretrained(tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload")
    assert any(parameter.device.type == "meta" for parameter in loaded.parameters())
    assert_same_logits(model, loaded)
    with torch.no_grad():  # the fused loss reads the projection's matrix, which is on the disk
        torch.testing.assert_close(loaded(**training_batch()).loss, model(**training_batch()).loss)
    source = {name: tensor for name, tensor in batch().items() if name != "decoder_input_ids"}
    assert torch.equal(loaded.generate(**source, max_new_tokens=5), model.generate(**source, max_new_tokens=5))


def test_automatic_device_map_splits_no_layer_and_changes_nothing(tmp_path):
    model = tiny_model(norm_position="pre")
    model.save_pretrained(tmp_path / "model")
    loaded = type(model).from_pretrained(
        tmp_path / "model", device_map="auto", max_memory={"cpu": 40_000}, offload_folder=tmp_path / "offload"
    )
    assert set(loaded.hf_device_map.values()) == {"cpu", "disk"}
    for name, module in loaded.named_modules():
        if type(module).__name__ in model._no_split_modules:
            assert len({parameter.device for parameter in module.parameters()}) == 1, name
    assert_same_logits(model, loaded)


# Tied weights


def test_loaded_model_is_tied_in_one_storage(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    model = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path)
    assert_tied(model)
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    assert len({matrix.data_ptr() for matrix in embedding_matrices(model)}) == 1
    assert model.num_parameters() == sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())


@pytest.mark.parametrize(
    "change",
    [
        copy.deepcopy,
        lambda model: model.to(torch.bfloat16),
        lambda model: model.to(torch.float64),
        lambda model: model.half(),
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: model.requires_grad_(False),
    ],
    ids=["deepcopy", "bfloat16", "float64", "half", "pickle", "frozen"],
)
def test_weights_stay_tied_after(change):
    changed = change(tiny_model())
    assert_tied(changed)
    with torch.no_grad():
        changed.lm_head.weight.fill_(0.5)
    assert changed.model.encoder.embed_tokens.weight.eq(0.5).all()


def test_tied_weights_keep_their_values_after_deepcopy():
    model = tiny_model()
    assert_same_logits(model, copy.deepcopy(model))


def test_tied_matrix_gathers_the_gradients_of_its_three_uses():
    """The gradient of the shared matrix is the sum of those of three untied copies of it."""
    tied = tiny_model(dropout=0.0).train()
    untied = tiny_model(dropout=0.0, tie_word_embeddings=False).train()
    untied.load_state_dict(tied.state_dict())
    tied(**training_batch()).loss.backward()
    untied(**training_batch()).loss.backward()
    expected = sum(matrix.grad for matrix in embedding_matrices(untied))
    torch.testing.assert_close(tied.lm_head.weight.grad, expected, rtol=1e-5, atol=1e-6)


def test_untied_model_has_three_matrices_that_are_saved_and_loaded(tmp_path):
    model = tiny_model(tie_word_embeddings=False)
    matrices = embedding_matrices(model)
    assert len({matrix.data_ptr() for matrix in matrices}) == 3
    assert not any(torch.equal(one, other) for i, one in enumerate(matrices) for other in matrices[:i])
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    for matrix, expected in zip(embedding_matrices(loaded), matrices, strict=True):
        assert torch.equal(matrix, expected)
    assert len({matrix.data_ptr() for matrix in embedding_matrices(loaded)}) == 3


# Embeddings that are exchanged and resized


@tied_and_untied
@pytest.mark.parametrize("new_size", [VOCAB_SIZE + 10, VOCAB_SIZE - 10, VOCAB_SIZE])
def test_resizing_keeps_what_was_learned(tie, new_size, tmp_path):
    model = tiny_model(tie_word_embeddings=tie)
    kept = min(new_size, VOCAB_SIZE)
    inputs = batch(vocab_size=kept)
    with torch.no_grad():
        expected = model(**inputs).logits
    assert model.resize_token_embeddings(new_size, mean_resizing=False) is model.get_input_embeddings()
    assert model.config.vocab_size == new_size
    for embedding in (model.model.encoder.embed_tokens, model.model.decoder.embed_tokens):
        assert type(embedding) is TokenEmbedding
        assert embedding.weight.shape == (new_size, WIDTH)
    assert model.lm_head.weight.shape == (new_size, WIDTH)
    assert model.lm_head.out_features == new_size
    if tie:
        assert_tied(model)
    else:
        assert len({matrix.data_ptr() for matrix in embedding_matrices(model)}) == 3
    with torch.no_grad():
        # A product over another number of columns may be summed in another order.
        torch.testing.assert_close(model(**inputs).logits[..., :kept], expected[..., :kept], rtol=0, atol=1e-6)

    model.train()
    labels = torch.full((3, 4), new_size - 1)
    loss = model(input_ids=inputs["input_ids"], labels=labels).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert all(
        torch.isfinite(matrix.grad).all() and matrix.grad.abs().sum() > 0 for matrix in embedding_matrices(model)
    )

    model.eval().save_pretrained(tmp_path)
    assert_same_weights(model, type(model).from_pretrained(tmp_path))


@tied_and_untied
def test_resizing_invents_rows_near_the_mean_of_the_old(tie):
    model = tiny_model(tie_word_embeddings=tie)
    means = [matrix.mean(dim=0).clone() for matrix in embedding_matrices(model)]
    model.resize_token_embeddings(VOCAB_SIZE + 3)
    for matrix, mean in zip(embedding_matrices(model), means, strict=True):
        # transformers draws them with 1e-9 times the covariance of the old rows
        torch.testing.assert_close(matrix[VOCAB_SIZE:], mean.expand(3, -1), rtol=0, atol=1e-3)


@tied_and_untied
def test_resizing_pads_to_a_multiple(tie):
    model = tiny_model(tie_word_embeddings=tie)
    model.resize_token_embeddings(VOCAB_SIZE + 1, pad_to_multiple_of=64, mean_resizing=False)
    assert model.config.vocab_size == 64
    assert {tuple(matrix.shape) for matrix in embedding_matrices(model)} == {(64, WIDTH)}


@tied_and_untied
def test_resizing_the_base_model(tie):
    model = tiny_model(VanillaTransformerModel, tie_word_embeddings=tie)
    expected = model(**batch()).last_hidden_state
    model.resize_token_embeddings(VOCAB_SIZE + 10, mean_resizing=False)
    assert model.encoder.embed_tokens.weight.shape == model.decoder.embed_tokens.weight.shape == (70, WIDTH)
    assert (model.encoder.embed_tokens.weight is model.decoder.embed_tokens.weight) == tie
    assert model.encoder.embed_tokens.num_embeddings == model.decoder.embed_tokens.num_embeddings == 70
    assert model.config.vocab_size == 70
    torch.testing.assert_close(model(**batch()).last_hidden_state, expected, rtol=0, atol=0)


def test_new_input_embeddings_are_everybodys_after_tying():
    model = tiny_model()
    new = TokenEmbedding(VOCAB_SIZE, WIDTH)
    model.set_input_embeddings(new)
    model.tie_weights()
    assert model.get_input_embeddings() is new
    assert model.model.encoder.embed_tokens is new
    assert_tied(model)
    logits = model(**batch()).logits
    with torch.no_grad():
        new.weight.mul_(2)
    assert not torch.allclose(model(**batch()).logits, logits)


def test_output_embeddings_are_the_projection():
    model = tiny_model(tie_word_embeddings=False)
    assert model.get_output_embeddings() is model.lm_head
    assert model.model.get_output_embeddings() is None
    new = nn.Linear(WIDTH, VOCAB_SIZE, bias=False)
    nn.init.zeros_(new.weight)
    model.set_output_embeddings(new)
    assert model(**batch()).logits.eq(0).all()
    # With equal logits each word has probability 1 / V, whatever the label.
    assert model(**training_batch()).loss.item() == pytest.approx(math.log(VOCAB_SIZE), abs=1e-5)


def test_projection_with_a_bias_is_called_by_the_loss():
    model = tiny_model(tie_word_embeddings=False, label_smoothing=0.0)
    biased = nn.Linear(WIDTH, VOCAB_SIZE)
    nn.init.zeros_(biased.weight)
    model.set_output_embeddings(biased)
    inputs = training_batch()
    scored = inputs["labels"][inputs["labels"] != -100]
    expected = F.cross_entropy(biased.bias.expand(len(scored), -1), scored)
    torch.testing.assert_close(model.train()(**inputs).loss, expected)


# Outputs


@both_norms
def test_hidden_states_and_attentions_have_the_documented_shapes(norm_position):
    model = tiny_model(attn_implementation="eager", norm_position=norm_position)
    inputs = batch()
    out = model(**inputs, output_hidden_states=True, output_attentions=True)
    assert [tuple(h.shape) for h in out.encoder_hidden_states] == [(3, 7, WIDTH)] * (ENCODER_LAYERS + 1)
    assert [tuple(h.shape) for h in out.decoder_hidden_states] == [(3, 5, WIDTH)] * (DECODER_LAYERS + 1)
    assert [tuple(a.shape) for a in out.encoder_attentions] == [(3, HEADS, 7, 7)] * ENCODER_LAYERS
    assert [tuple(a.shape) for a in out.decoder_attentions] == [(3, HEADS, 5, 5)] * DECODER_LAYERS
    assert [tuple(a.shape) for a in out.cross_attentions] == [(3, HEADS, 5, 7)] * DECODER_LAYERS

    hidden = inputs["attention_mask"].eq(0)
    for weights in (*out.encoder_attentions, *out.decoder_attentions, *out.cross_attentions):
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    for weights in (*out.encoder_attentions, *out.cross_attentions):
        assert weights.transpose(1, 3)[hidden].eq(0).all()
    for weights in out.decoder_attentions:
        assert weights.triu(1).eq(0).all()


@both_norms
def test_last_hidden_states_are_the_final_ones(norm_position):
    model = tiny_model(norm_position=norm_position)
    out = model(**batch(), output_hidden_states=True)
    assert torch.equal(out.encoder_hidden_states[-1], out.encoder_last_hidden_state)
    assert torch.equal(model.lm_head(out.decoder_hidden_states[-1]), out.logits)
    base = model.model(**batch(), output_hidden_states=True)
    assert torch.equal(base.decoder_hidden_states[-1], base.last_hidden_state)
    # The first hidden state is what enters the first layer.
    # One sentence of the batch by itself may be rounded otherwise.
    torch.testing.assert_close(
        model.model.encoder.layers[0](base.encoder_hidden_states[0][:1]), base.encoder_hidden_states[1][:1]
    )


def test_only_what_was_asked_for_is_returned():
    out = tiny_model()(**batch())
    assert set(out) == {"logits", CACHE, "encoder_last_hidden_state"}
    out = tiny_model()(**batch(), output_hidden_states=True, use_cache=False)
    assert set(out) == {"logits", "encoder_last_hidden_state", "encoder_hidden_states", "decoder_hidden_states"}


def test_outputs_can_be_asked_for_in_the_config():
    model = tiny_model(attn_implementation="eager", output_hidden_states=True, output_attentions=True, use_cache=False)
    out = model(**batch())
    assert len(out.encoder_hidden_states) == ENCODER_LAYERS + 1
    assert len(out.cross_attentions) == DECODER_LAYERS
    assert out.past_key_values is None


@pytest.mark.skipif(
    not hasattr(output_capturing, "selected_hidden_states"), reason="only transformers 5.23 and newer chooses"
)
def test_a_single_hidden_state_can_be_chosen():
    model = tiny_model()
    every = model(**batch(), output_hidden_states=True)
    chosen = model(**batch(), output_hidden_states=[-2])
    # Counted from the end, so the index is another one in each stack.
    assert [h is not None for h in chosen.decoder_hidden_states] == [False] * (DECODER_LAYERS - 1) + [True, False]
    assert [h is not None for h in chosen.encoder_hidden_states] == [False] * (ENCODER_LAYERS - 1) + [True, False]
    assert torch.equal(chosen.encoder_hidden_states[-2], every.encoder_hidden_states[-2])
    assert torch.equal(chosen.decoder_hidden_states[-2], every.decoder_hidden_states[-2])


def test_captured_tensors_keep_gradients():
    model = tiny_model(attn_implementation="eager")
    out = model(**batch(), output_hidden_states=True, output_attentions=True)
    captured = [
        out.encoder_hidden_states[0],
        out.encoder_attentions[0],
        out.decoder_hidden_states[0],
        out.decoder_attentions[0],
        out.cross_attentions[0],
    ]
    for tensor in captured:
        tensor.retain_grad()
    out.logits.square().sum().backward()
    for tensor in captured:
        assert tensor.grad.abs().sum() > 0


def assert_same_structure(one, other) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, Cache):
        for ours, theirs in (
            (one.self_attention_cache, other.self_attention_cache),
            (one.cross_attention_cache, other.cross_attention_cache),
        ):
            for layer, expected in zip(ours.layers, theirs.layers, strict=True):
                assert torch.equal(layer.keys, expected.keys)
                assert torch.equal(layer.values, expected.values)
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for part, expected in zip(one, other, strict=True):
            assert_same_structure(part, expected)
    else:
        raise AssertionError(f"unknown kind of output: {type(one)}")


@both_classes
@pytest.mark.parametrize(
    "extras", [{}, {"output_hidden_states": True, "output_attentions": True}], ids=["plain", "all"]
)
def test_tuple_holds_what_the_dict_holds(cls, extras):
    model = tiny_model(cls, attn_implementation="eager")
    as_dict = model(**batch(), **extras)
    as_tuple = model(**batch(), **extras, return_dict=False)
    assert type(as_tuple) is tuple
    assert_same_structure(as_tuple, as_dict.to_tuple())


@both_classes
def test_config_may_ask_for_tuples(cls):
    model = tiny_model(cls)
    expected = model(**batch()).to_tuple()
    model.config.return_dict = False
    assert_same_structure(model(**batch()), expected)
    assert_same_structure(model(**batch(), return_dict=True).to_tuple(), expected)


def test_tuple_of_a_scored_batch_starts_with_loss_and_logits():
    model = tiny_model()
    out = model(**training_batch())
    as_tuple = model(**training_batch(), return_dict=False)
    assert torch.equal(as_tuple[0], out.loss)
    assert torch.equal(as_tuple[1], out.logits)
    assert_same_structure(as_tuple, out.to_tuple())


def test_embedded_inputs_give_what_token_ids_give():
    model, inputs = tiny_model(), batch()
    expected = model(**inputs)
    embed = model.get_input_embeddings()
    source, target = embed(inputs["input_ids"]), embed(inputs["decoder_input_ids"])
    mask = inputs["attention_mask"]
    for given in (
        {"inputs_embeds": source, "decoder_input_ids": inputs["decoder_input_ids"]},
        {"input_ids": inputs["input_ids"], "decoder_inputs_embeds": target},
        {"inputs_embeds": source, "decoder_inputs_embeds": target},
    ):
        assert torch.equal(model(**given, attention_mask=mask).logits, expected.logits)


def test_untied_decoder_embeds_with_its_own_matrix():
    model, inputs = tiny_model(tie_word_embeddings=False), batch()
    target = model.model.decoder.embed_tokens(inputs.pop("decoder_input_ids"))
    assert torch.equal(model(**inputs, decoder_inputs_embeds=target).logits, model(**batch()).logits)


def test_labels_go_with_an_embedded_target():
    model, inputs = tiny_model(), training_batch()
    shifted = model.prepare_decoder_input_ids_from_labels(inputs["labels"])
    out = model(**inputs, decoder_inputs_embeds=model.get_input_embeddings()(shifted))
    assert torch.equal(out.loss, model(**inputs).loss)


def test_encoder_outputs_stand_in_for_the_source():
    model, inputs = tiny_model(), batch()
    expected = model(**inputs).logits
    encoded = model.get_encoder()(inputs["input_ids"], attention_mask=inputs["attention_mask"])
    del inputs["input_ids"]
    assert torch.equal(model(**inputs, encoder_outputs=encoded).logits, expected)
    assert torch.equal(model(**inputs, encoder_outputs=(encoded.last_hidden_state,)).logits, expected)
    assert model.get_encoder() is model.model.encoder
    assert model.get_decoder() is model.model.decoder


@pytest.mark.parametrize("keep", [1, 3, torch.tensor([0, 3]), torch.tensor([4])], ids=str)
def test_logits_to_keep_selects_positions(keep):
    model = tiny_model()
    every = model(**batch()).logits
    kept = model(**batch(), logits_to_keep=keep).logits
    expected = every[:, -keep:] if isinstance(keep, int) else every[:, keep]
    torch.testing.assert_close(kept, expected, rtol=0, atol=1e-6)  # another number of rows may be summed otherwise


def test_logits_to_keep_leaves_the_loss_alone():
    model = tiny_model()
    out = model(**training_batch(), logits_to_keep=1)
    assert out.logits.shape == (3, 1, VOCAB_SIZE)
    torch.testing.assert_close(out.loss, model(**training_batch()).loss, rtol=1e-6, atol=0)
    first = model(**training_batch(), logits_to_keep=torch.tensor([0]))
    assert first.logits.shape == (3, 1, VOCAB_SIZE)
    assert torch.equal(first.loss, out.loss)


def test_dummy_inputs_run():
    for cls in (VanillaTransformerModel, VanillaTransformerForConditionalGeneration):
        model = tiny_model(cls)
        assert torch.isfinite(model(**model.dummy_inputs)[0]).all()


def test_number_of_parameters_counts_tied_ones_once():
    tied, untied = tiny_model(), tiny_model(tie_word_embeddings=False)
    assert untied.num_parameters() - tied.num_parameters() == 2 * VOCAB_SIZE * WIDTH
    assert tied.num_parameters(exclude_embeddings=True) == tied.num_parameters() - VOCAB_SIZE * WIDTH


# Determinism and dropout


def test_evaluation_is_deterministic():
    model = tiny_model(dropout=0.5, attention_dropout=0.5, activation_dropout=0.5)
    assert torch.equal(model(**batch()).logits, model(**batch()).logits)


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout", "activation_dropout", "word_dropout"])
@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
def test_each_dropout_is_random_in_training_and_follows_the_seed(rate, attn_implementation):
    rates = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "word_dropout": 0.0, rate: 0.3}
    model = tiny_model(attn_implementation=attn_implementation, **rates).train()

    def run(seed):
        torch.manual_seed(seed)
        return model(**batch()).logits

    assert torch.equal(run(1), run(1))
    assert not torch.allclose(run(1), run(2))


# The loss


def test_training_on_labels_makes_no_logits_unless_asked():
    model = tiny_model().train()
    assert model(**batch()).logits.shape == (3, 5, VOCAB_SIZE)
    assert model(**training_batch()).logits is None
    assert model(**training_batch(), return_logits=True).logits.shape == (3, 5, VOCAB_SIZE)
    model.eval()
    assert model(**training_batch()).logits.shape == (3, 5, VOCAB_SIZE)
    assert model(**training_batch(), return_logits=False).logits is None


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.4])
def test_loss_is_that_of_the_logits(epsilon):
    """With logits and without, smoothed in train mode only: torch's own cross-entropy in float64 is the reference."""
    model, inputs = tiny_model(dropout=0.0, label_smoothing=epsilon), training_batch()
    for training in (True, False):
        model.train(training)
        logits = model(**inputs, return_logits=True).logits.double().flatten(0, 1)
        labels = inputs["labels"].flatten()
        unsmoothed = F.cross_entropy(logits, labels)
        expected = F.cross_entropy(logits, labels, label_smoothing=epsilon) if training else unsmoothed
        for return_logits in (True, False):
            out = model(**inputs, return_logits=return_logits)
            torch.testing.assert_close(out.loss.double(), expected, rtol=1e-6, atol=0)
            torch.testing.assert_close(out.nll_loss.double(), unsmoothed, rtol=1e-6, atol=0)
            assert training or torch.equal(out.loss, out.nll_loss)


@contextmanager
def counted_projections():
    """Collects the products with a matrix of the vocabulary's height, whoever computes them."""
    products = []

    class Counter(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm):
                products.extend([function] if result.shape[-1] == VOCAB_SIZE else [])
            return result

    with Counter():
        yield products


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("return_logits", [True, False])
def test_the_vocabulary_is_projected_to_once(training, return_logits):
    model, inputs = tiny_model(dropout=0.0).train(training), training_batch()
    calls = []
    if return_logits:
        model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad(), counted_projections() as products:
        model(**inputs, return_logits=return_logits)
    assert len(products) == 1
    assert len(calls) == return_logits


def test_gradients_are_the_same_with_logits_and_without():
    found = []
    for return_logits in (True, False):
        model = tiny_model(dropout=0.0).double().train()
        model(**training_batch(), return_logits=return_logits).loss.backward()
        found.append(gradients(model))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-9, atol=1e-12)


def test_second_derivatives_go_through_the_whole_model():
    """A gradient penalty on the source's embeddings: torch's cross-entropy of the logits is the reference."""
    found = []
    for fused in (True, False):
        model, inputs = tiny_model(dropout=0.0, attn_implementation="eager").double().train(), training_batch()
        source = model.get_input_embeddings()(inputs.pop("input_ids"))
        out = model(**inputs, inputs_embeds=source, return_logits=not fused)
        loss = out.loss
        if not fused:
            loss = F.cross_entropy(out.logits.flatten(0, 1), inputs["labels"].flatten(), label_smoothing=0.1)
        (gradient,) = torch.autograd.grad(loss, source, create_graph=True)
        (loss + gradient.pow(2).sum()).backward()
        found.append(gradients(model))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-9, atol=1e-12)


def test_given_decoder_input_is_not_replaced_by_shifted_labels():
    model, inputs = tiny_model(), training_batch()
    given = tokens(3, 5, seed=9)
    out = model(**inputs, decoder_input_ids=given)
    expected = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], decoder_input_ids=given)
    assert torch.equal(out.logits, expected.logits)
    torch.testing.assert_close(out.loss, F.cross_entropy(expected.logits.flatten(0, 1), inputs["labels"].flatten()))
    assert not torch.allclose(out.loss, model(**inputs).loss)


@pytest.mark.parametrize("num_items_in_batch", [None, 0, torch.tensor(0)], ids=str)
def test_batch_without_any_label_costs_nothing(num_items_in_batch):
    model = tiny_model().train()
    inputs = {**training_batch(), "labels": torch.full((3, 5), -100)}
    out = model(**inputs, num_items_in_batch=num_items_in_batch)
    assert out.loss.item() == 0
    assert out.nll_loss.item() == 0
    out.loss.backward()
    assert all(gradient.eq(0).all() for gradient in gradients(model).values())


def test_labels_with_a_cache_asked_for_still_return_it():
    assert tiny_model()(**training_batch()).past_key_values is None
    assert tiny_model()(**training_batch(), use_cache=True).past_key_values.get_seq_length() == 5


# Attention implementations


@both_norms
@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_eager_and_sdpa_agree(norm_position, padding_side):
    eager = tiny_model(attn_implementation="eager", norm_position=norm_position)
    sdpa = tiny_model(attn_implementation="sdpa", norm_position=norm_position)
    inputs = batch()
    if padding_side == "left":
        inputs["input_ids"], inputs["attention_mask"] = inputs["input_ids"].flip(1), inputs["attention_mask"].flip(1)
    for mask in (inputs["attention_mask"], None):
        inputs["attention_mask"] = mask
        torch.testing.assert_close(eager(**inputs).logits, sdpa(**inputs).logits, rtol=0, atol=1e-5)


def test_eager_and_sdpa_have_the_same_gradients():
    found = []
    for attn_implementation in ("eager", "sdpa"):
        model = tiny_model(attn_implementation=attn_implementation, dropout=0.0).train()
        model(**training_batch()).loss.backward()
        found.append(gradients(model))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_flex_attention_agrees_with_eager():
    """On a CPU it has no backward pass, so it runs where no gradient is wanted. Compiles for half a minute."""
    eager, flex = tiny_model(attn_implementation="eager"), tiny_model(attn_implementation="flex_attention")
    assert_same_logits(eager, flex, atol=1e-5)


@pytest.mark.skipif(is_flash_attn_2_available(), reason="flash attention is installed here")
def test_asking_for_flash_attention_without_it_says_so():
    with pytest.raises(ImportError, match="FlashAttention2"):
        tiny_model(attn_implementation="flash_attention_2")


def test_attention_implementation_can_be_switched():
    model = tiny_model(attn_implementation="sdpa")
    expected = model(**batch()).logits
    asked = model(**batch(), output_attentions=True)  # attention is written out for this call
    assert len(asked.cross_attentions) == DECODER_LAYERS
    assert model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(asked.logits, expected, rtol=0, atol=1e-5)
    model.set_attn_implementation("eager")
    assert model.config._attn_implementation == "eager"
    assert len(model(**batch(), output_attentions=True).cross_attentions) == DECODER_LAYERS
    torch.testing.assert_close(model(**batch()).logits, expected, rtol=0, atol=1e-5)


# Gradient checkpointing


@both_norms
@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_changes_no_gradient(norm_position, use_reentrant, dropout):
    expected_model = tiny_model(dropout=dropout, norm_position=norm_position).train()
    model = tiny_model(dropout=dropout, norm_position=norm_position).train()
    checkpointing.enable(model, use_reentrant=use_reentrant)
    assert checkpointing.is_enabled(model)
    runs = []
    for layer in (model.model.encoder.layers[0], model.model.decoder.layers[0]):
        # Not a hook after it: recomputing stops at the last tensor that the backward pass needs.
        layer.feed_forward.register_forward_pre_hook(lambda *_, layer=layer: runs.append(layer))
    results = []
    for each in (expected_model, model):
        torch.manual_seed(7)
        out = each(**training_batch())
        out.loss.backward()
        results.append((out.loss.detach(), gradients(each)))
    assert len(runs) == 4, "each layer runs again in the backward pass"
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1].keys() == results[1][1].keys() == dict(model.named_parameters()).keys()
    for name, gradient in results[0][1].items():
        # Reentrant checkpointing runs one backward pass a layer and so adds the uses of a tensor in another order.
        rtol, atol = (1e-5, 1e-7) if use_reentrant else (0, 0)
        torch.testing.assert_close(results[1][1][name], gradient, rtol=rtol, atol=atol)


def test_gradient_checkpointing_makes_no_cache_and_can_be_switched_off():
    model = tiny_model(dropout=0.0).train()
    expected = model(**batch(), output_hidden_states=True)
    checkpointing.enable(model)
    out = model(**batch(), output_hidden_states=True)
    assert out.past_key_values is None
    assert torch.equal(out.logits, expected.logits)
    assert_same_structure(out.encoder_hidden_states, expected.encoder_hidden_states)
    assert_same_structure(out.decoder_hidden_states, expected.decoder_hidden_states)
    model.eval()
    assert model(**batch()).past_key_values.get_seq_length() == 5, "evaluation caches all the same"
    checkpointing.disable(model)
    assert not checkpointing.is_enabled(model)
    assert model.train()(**batch()).past_key_values.get_seq_length() == 5


def test_gradient_checkpointing_can_skip_layers():
    model = tiny_model().train()
    checkpointing.enable(model, every_n_layers=2)
    layers = [*model.model.encoder.layers, *model.model.decoder.layers]
    assert [layer.gradient_checkpointing for layer in layers] == [True, False, True, False, True]
    model(**training_batch()).loss.backward()


# Half precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@both_norms
def test_half_precision_stays_near_single(dtype, norm_position):
    model = tiny_model(norm_position=norm_position)
    expected = model(**batch()).logits
    logits = model.to(dtype)(**batch()).logits
    assert logits.dtype == dtype
    # Some twenty roundings of numbers of order 1 accumulate: 2^-9 each in bfloat16, 2^-12 in float16.
    tolerance = 20 * torch.finfo(dtype).eps / 2
    assert (logits.float() - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_loss_and_gradients_are_finite_in_half_precision(dtype):
    model = tiny_model(dropout=0.0).train()
    expected = model(**training_batch()).loss
    model.to(dtype)
    loss = model(**training_batch()).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)
    for name, gradient in gradients(model).items():
        assert gradient.dtype == dtype
        assert torch.isfinite(gradient).all(), name


def test_saved_type_is_kept_unless_another_is_asked_for(tmp_path):
    model = tiny_model().to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    cls = type(model)
    for loaded in (cls.from_pretrained(tmp_path), cls.from_pretrained(tmp_path, dtype="auto")):
        assert loaded.dtype == torch.bfloat16
        assert_same_weights(model, loaded)
    single = cls.from_pretrained(tmp_path, dtype=torch.float32)
    assert single.dtype == torch.float32
    assert_same_weights(copy.deepcopy(model).float(), single)
    assert_same_logits(single, copy.deepcopy(model).float())
    half = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype="float16")
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float16}


def test_autocast_trains_near_single_precision():
    model = tiny_model(dropout=0.0).train()
    expected = model(**training_batch())
    expected.loss.backward()
    expected_gradients = gradients(model)
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(**training_batch())
    out.loss.backward()
    assert out.loss.dtype == torch.float32
    assert out.loss.item() == pytest.approx(expected.loss.item(), rel=0.01)
    one = torch.cat([gradient.flatten() for gradient in gradients(model).values()])
    other = torch.cat([gradient.flatten() for gradient in expected_gradients.values()])
    assert one.dtype == torch.float32
    assert (one - other).norm() < 0.1 * other.norm()  # bfloat16 keeps 8 bits of every product


# Compiling and exporting


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow  # 4 seconds each
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("with_mask", [True, False])
@slow_for_pre_norm
def test_evaluation_compiles_to_one_graph(with_mask, norm_position):
    model, inputs = tiny_model(norm_position=norm_position), batch()
    if not with_mask:  # the compiled graph derives it
        del inputs["attention_mask"]
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.slow  # 20 seconds
@pytest.mark.parametrize("use_cache", [True, False])
def test_evaluation_compiles_for_every_size_at_once(use_cache):
    model = tiny_model()
    graphs = []

    def counting_backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=counting_backend, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size, source, target in ((3, 7, 5), (4, 9, 6), (5, 12, 3)):
            inputs = batch(size, source, target)
            expected = model(**inputs).logits
            torch.testing.assert_close(compiled(**inputs, use_cache=use_cache).logits, expected, rtol=0, atol=1e-5)
    assert len(graphs) == 1, "a new size is a new graph"


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.slow  # 7 seconds each
@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
def test_training_with_the_fused_loss_compiles_to_one_graph(attn_implementation):
    expected_model = tiny_model(dropout=0.0, attn_implementation=attn_implementation).train()
    model = tiny_model(dropout=0.0, attn_implementation=attn_implementation).train()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    expected = expected_model(**training_batch())
    expected.loss.backward()
    out = compiled(**training_batch(), num_items_in_batch=torch.tensor(14))
    assert out.logits is None
    out.loss.backward()
    torch.testing.assert_close(out.loss, expected.loss, rtol=1e-6, atol=0)  # 3 * 5 labels, one of them -100
    found, wanted = gradients(model), gradients(expected_model)
    assert found.keys() == wanted.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow  # 8 seconds each
@slow_for_pre_norm
def test_exported_program_is_exact_for_other_sizes(norm_position):
    model = tiny_model(norm_position=norm_position)
    size, source, target = Dim("size", min=1, max=64), Dim("source", min=1, max=256), Dim("target", min=1, max=256)
    program = export(
        model,
        args=(),
        kwargs={**batch(), "use_cache": False},
        dynamic_shapes={
            "input_ids": {0: size, 1: source},
            "attention_mask": {0: size, 1: source},
            "decoder_input_ids": {0: size, 1: target},
            "use_cache": None,
        },
        strict=False,
    ).module()
    with torch.no_grad():
        for shape in ((2, 11, 3), (5, 4, 9), (1, 30, 40)):
            inputs = batch(*shape)
            exported = program(**inputs, use_cache=False).logits
            torch.testing.assert_close(exported, model(**inputs, use_cache=False).logits, rtol=0, atol=1e-6)


# Trainer


class Pairs(torch.utils.data.Dataset):
    """Eight pairs of one length: what a Trainer needs at the least."""

    def __init__(self):
        inputs = training_batch(size=8)
        self.rows = [{name: tensor[i] for name, tensor in inputs.items()} for i in range(8)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


def trainer_arguments(folder: Path, **overrides) -> Seq2SeqTrainingArguments:
    settings = {
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "save_strategy": "no",
    }
    return Seq2SeqTrainingArguments(
        output_dir=str(folder), use_cpu=True, disable_tqdm=True, **{**settings, "learning_rate": 1e-2, **overrides}
    )


@tied_and_untied
@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_trainer_trains_evaluates_predicts_and_saves(tie, tmp_path):
    model = tiny_model(tie_word_embeddings=tie)
    before = copy.deepcopy(model)
    trainer = Trainer(model, trainer_arguments(tmp_path, bf16=False), train_dataset=Pairs(), eval_dataset=Pairs())
    trainer.train()
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), before.parameters(), strict=True))
    metrics = trainer.evaluate()
    model.eval()
    inputs = training_batch(size=8)
    with torch.no_grad():
        halves = [
            model(**{name: tensor[part] for name, tensor in inputs.items()}).loss for part in (slice(4), slice(4, 8))
        ]
    assert metrics["eval_loss"] == pytest.approx(torch.stack(halves).mean().item(), rel=1e-5)
    predicted = trainer.predict(Pairs())
    # One array: the cache, the encoder's output and the second loss are no predictions.
    assert predicted.predictions.shape == (8, 5, VOCAB_SIZE)
    torch.testing.assert_close(
        torch.from_numpy(predicted.predictions), model(**inputs).logits.detach(), rtol=0, atol=1e-5
    )
    trainer.save_model(tmp_path / "saved")
    loaded = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path / "saved")
    assert_same_weights(model, loaded)
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tie


@pytest.mark.parametrize("predict_with_generate", [True, False])
@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_seq2seq_trainer_predicts_with_and_without_generating(predict_with_generate, tmp_path):
    model = tiny_model()
    model.generation_config.max_new_tokens = 6
    arguments = trainer_arguments(
        tmp_path, predict_with_generate=predict_with_generate, save_strategy="steps", save_steps=2
    )
    trainer = Seq2SeqTrainer(model, arguments, train_dataset=Pairs(), eval_dataset=Pairs())
    trainer.train()
    predicted = trainer.predict(Pairs())
    assert math.isfinite(predicted.metrics["test_loss"])
    if predict_with_generate:
        source = {name: tensor for name, tensor in training_batch(size=8).items() if name != "labels"}
        expected = model.eval().generate(**source, max_new_tokens=6)
        assert torch.equal(torch.from_numpy(predicted.predictions)[:, : expected.shape[1]], expected)
    else:
        assert predicted.predictions.shape == (8, 5, VOCAB_SIZE)
    loaded = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path / "checkpoint-2")
    assert_tied(loaded)
    assert_same_weights(model, loaded)


@pytest.mark.parametrize("predict_with_generate", [True, False])
@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_seq2seq_trainer_evaluates_without_label_smoothing(predict_with_generate, tmp_path):
    """`eval_loss` is the mean of -log p over the labels of the validation set, summed up by hand in float64."""
    model = tiny_model(label_smoothing=0.3)
    arguments = trainer_arguments(
        tmp_path, predict_with_generate=predict_with_generate, generation_max_length=4, per_device_eval_batch_size=8
    )
    trainer = Seq2SeqTrainer(model, arguments, train_dataset=Pairs(), eval_dataset=Pairs())
    trainer.train()
    log_probs = []
    for pair in Pairs():
        labels = pair["labels"]
        given = torch.cat([torch.tensor([START]), labels[:-1].masked_fill(labels[:-1] == -100, PAD)])
        logits = model.eval()(pair["input_ids"][None], pair["attention_mask"][None], given[None]).logits[0]
        p = logits.double().softmax(-1)
        log_probs += [math.log(p[position, label]) for position, label in enumerate(labels) if label != -100]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(-sum(log_probs) / len(log_probs), rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_trainer_with_gradient_checkpointing_and_bfloat16(tmp_path):
    model = tiny_model()
    arguments = trainer_arguments(tmp_path, bf16=True, **checkpointing.trainer_options(use_reentrant=False))
    result = Trainer(model, arguments, train_dataset=Pairs()).train()
    assert math.isfinite(result.training_loss)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


# Adapters


def lora(model, *targets: str):
    torch.manual_seed(4)
    config = LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, lora_alpha=8, lora_dropout=0.0, target_modules=list(targets))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a tied projection is adapted in one of its uses only is meant here
        return get_peft_model(model, config)


def take_steps(model, steps: int = 5) -> list[float]:
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(**training_batch()).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


@pytest.mark.parametrize("with_checkpoints", [False, True])
def test_lora_on_the_attention_trains_saves_loads_and_merges(with_checkpoints, tmp_path):
    base = tiny_model(dropout=0.0)
    frozen = copy.deepcopy(base)
    adapted = lora(base, "q_proj", "v_proj")
    if with_checkpoints:
        checkpointing.enable(base)
    losses = take_steps(adapted)
    assert losses[-1] < losses[0]
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * 2 * (ENCODER_LAYERS + 2 * DECODER_LAYERS)  # two matrices a projection, q and v
    assert all("lora_" in name for name in trained)
    adapted.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(frozen), tmp_path).eval()
    assert_same_logits(adapted, loaded)
    source = {name: tensor for name, tensor in batch().items() if name != "decoder_input_ids"}
    generated = adapted.generate(**source, max_new_tokens=5)
    with adapted.disable_adapter():
        assert_same_logits(adapted, frozen)
    merged = loaded.merge_and_unload()
    assert type(merged) is VanillaTransformerForConditionalGeneration
    assert_same_logits(adapted, merged, atol=1e-5)
    assert torch.equal(merged.generate(**source, max_new_tokens=5), generated)
    assert not torch.allclose(merged(**batch()).logits, frozen(**batch()).logits, atol=1e-3)


def test_loss_goes_through_an_adapter_on_the_projection():
    model = tiny_model(dropout=0.0, tie_word_embeddings=False)
    before = model.train()(**training_batch()).loss.item()
    adapted = lora(model, "lm_head")
    losses = take_steps(adapted)
    assert losses[0] == pytest.approx(before, rel=1e-6), "a new adapter adds nothing yet"
    assert losses[-1] < losses[0]
    inputs = training_batch()
    logits = adapted(**inputs).logits
    expected = F.cross_entropy(logits.flatten(0, 1), inputs["labels"].flatten(), label_smoothing=0.1)
    torch.testing.assert_close(adapted.train()(**inputs).loss, expected)


class Zeros(ModelHook):
    """One of accelerate's hooks."""

    def post_forward(self, module, output):
        return output * 0


def replace_forward(head):
    head.forward = lambda states: F.linear(states, head.weight) * 0


@pytest.mark.parametrize(
    "change",
    [
        replace_forward,
        lambda head: head.register_forward_hook(lambda module, args, output: output * 0),
        lambda head: head.register_forward_pre_hook(lambda module, args: args[0] * 0),
        lambda head: add_hook_to_module(head, Zeros()),
    ],
    ids=["forward", "hook", "pre-hook", "accelerate"],
)
def test_loss_calls_a_projection_that_somebody_changed(change):
    """Each of these makes all logits zero, and all words equally probable."""
    model = tiny_model().train()
    change(model.lm_head)
    assert model(**training_batch()).loss.item() == pytest.approx(math.log(VOCAB_SIZE), abs=1e-5)


@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_loss_calls_a_projection_whose_gradient_somebody_hooked(register):
    model, seen = tiny_model().train(), []
    getattr(model.lm_head, register)(lambda *gradients: seen.append(gradients))
    model(**training_batch()).loss.backward()
    assert len(seen) == 1


# Shapes that the paper has not


@pytest.mark.parametrize("tie", [True, False])
def test_two_vocabularies_have_two_matrices_also_after_saving(tie, tmp_path):
    model = tiny_model(source_vocab_size=90, tie_word_embeddings=tie)
    loaded = VanillaTransformerForConditionalGeneration.from_pretrained(save_to(model, tmp_path)).eval()
    assert_same_weights(model, loaded)
    for each in (model, loaded):
        encoder, decoder, projection = embedding_matrices(each)
        assert (encoder.shape, decoder.shape, projection.shape) == ((90, WIDTH), (60, WIDTH), (60, WIDTH))
        assert (projection is decoder) is tie
        assert projection is not encoder
    inputs = {**batch(), "input_ids": tokens(3, 7, vocab_size=90), "attention_mask": torch.ones(3, 7)}
    assert torch.equal(model(**inputs).logits, loaded(**inputs).logits)
    assert model(**inputs).logits.shape == (3, 5, 60)
    assert model.generate(**model.dummy_inputs, max_new_tokens=3).shape[0] == 2
    labels = tokens(3, 5, seed=3)
    model.train()(input_ids=inputs["input_ids"], labels=labels).loss.backward()
    assert all(matrix.grad is not None for matrix in embedding_matrices(model))


def save_to(model, folder):
    model.save_pretrained(folder)
    return folder


def test_two_vocabularies_cannot_be_resized_as_one():
    model = tiny_model(source_vocab_size=90)
    with pytest.raises(ValueError, match="two vocabularies .*`source_vocab_size`=90"):
        model.resize_token_embeddings(100)
    assert model.resize_token_embeddings() is model.get_input_embeddings()


@tied_and_untied
def test_a_bias_of_the_logits_is_in_logits_loss_and_gradients(tie, tmp_path):
    """Training mode too, where without a bias the loss does not call the projection."""
    model = tiny_model(final_logits_bias=True, dropout=0.0, tie_word_embeddings=tie)
    with torch.no_grad():
        model.lm_head.bias.normal_()
    inputs = training_batch()
    states = model.model(
        inputs["input_ids"], inputs["attention_mask"], model.prepare_decoder_input_ids_from_labels(inputs["labels"])
    ).last_hidden_state
    logits = states @ model.lm_head.weight.T + model.lm_head.bias
    torch.testing.assert_close(model(**inputs).logits, logits)
    expected = F.cross_entropy(logits.flatten(0, 1), inputs["labels"].flatten(), label_smoothing=0.1)
    (gradient,) = torch.autograd.grad(expected, model.lm_head.bias, retain_graph=True)
    output = model.train()(**inputs)
    assert output.logits is None
    torch.testing.assert_close(output.loss, expected)
    output.loss.backward()
    torch.testing.assert_close(model.lm_head.bias.grad, gradient)
    loaded = VanillaTransformerForConditionalGeneration.from_pretrained(save_to(model, tmp_path))
    assert torch.equal(loaded.lm_head.bias, model.lm_head.bias)


@tied_and_untied
@pytest.mark.parametrize("new_size", [VOCAB_SIZE + 5, VOCAB_SIZE - 5])
def test_resizing_keeps_the_bias_of_the_logits(tie, new_size):
    model = tiny_model(final_logits_bias=True, tie_word_embeddings=tie)
    with torch.no_grad():
        model.lm_head.bias.normal_()
    before = model.lm_head.bias.detach().clone()
    model.resize_token_embeddings(new_size, mean_resizing=False)
    kept = min(new_size, VOCAB_SIZE)
    assert model.lm_head.bias.shape == (new_size,)
    assert torch.equal(model.lm_head.bias[:kept], before[:kept])


@pytest.mark.parametrize(
    ("norm_position", "final_norm"), [("post", True), ("pre", False), ("post", None), ("pre", None)]
)
def test_stacks_end_with_a_norm_where_it_is_asked_for(norm_position, final_norm):
    model = tiny_model(norm_position=norm_position, final_norm=final_norm)
    has_norm = norm_position == "pre" if final_norm is None else final_norm
    for stack in (model.model.encoder, model.model.decoder):
        assert isinstance(stack.final_norm, nn.LayerNorm) is has_norm


# What transformers' programs and adapters ask of a model


def all_tied_names(model) -> set[str]:
    """Names of the weights that are another name's weight."""
    first: dict[int, str] = {}
    parameters = model.named_parameters(remove_duplicate=False)
    return {name for name, weight in parameters if first.setdefault(id(weight), name) != name}


@pytest.mark.parametrize("fields", [{}, {"source_vocab_size": 50}, {"tie_word_embeddings": False}])
@both_classes
def test_tied_weights_are_named_whole_by_the_class(cls, fields):
    model = tiny_model(cls, **fields)
    tied = all_tied_names(model)
    if not fields:
        assert set(cls._tied_weights_keys) == tied
    assert tied <= set(model._tied_weights_keys) or not model.config.tie_word_embeddings
    for target, source in model._tied_weights_keys.items():
        assert model.config.tie_word_embeddings is False or (
            model.get_parameter(target) is model.get_parameter(source)
        ), target


@tied_and_untied
def test_a_state_that_was_saved_misses_only_what_is_tied(tie, tmp_path):
    """The Trainer loads a checkpoint so, and compares what is missing with what the class names."""
    model = tiny_model(tie_word_embeddings=tie)
    model.save_pretrained(tmp_path)
    result = model.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    assert set(result.missing_keys) == (set(model._tied_weights_keys) if tie else set())
    assert not result.unexpected_keys


@pytest.mark.parametrize("cut", [slice(None, -1), slice(0, 1)])
def test_masks_of_another_length_are_refused(cut):
    model, inputs = tiny_model(), batch()
    short = inputs["attention_mask"][:, cut]
    with pytest.raises(ValueError, match=r"`attention_mask` has the shape \(3, \d\), but the source has \(3, 7\)"):
        model(**{**inputs, "attention_mask": short})
    with pytest.raises(ValueError, match=r"has the shape \(1, 7\), but the source has \(3, 7\)"):
        model(**{**inputs, "attention_mask": inputs["attention_mask"][:1]})
    with pytest.raises(ValueError, match="`attention_mask` has the shape"):
        model.get_encoder()(input_ids=inputs["input_ids"], attention_mask=short)
    target_mask = torch.ones_like(inputs["decoder_input_ids"])
    with pytest.raises(
        ValueError, match=r"`attention_mask` has the shape \(3, \d\), but the target with what is cached"
    ):
        model(**inputs, decoder_attention_mask=target_mask[:, cut])
    states = model.get_encoder()(input_ids=inputs["input_ids"]).last_hidden_state
    for call in (
        lambda mask: model(
            encoder_outputs=(states,), attention_mask=mask, decoder_input_ids=inputs["decoder_input_ids"]
        ),
        lambda mask: model.get_decoder()(
            input_ids=inputs["decoder_input_ids"], encoder_hidden_states=states, encoder_attention_mask=mask
        ),
    ):
        with pytest.raises(ValueError, match=r"`encoder_attention_mask` has the shape .* but the source has \(3, 7\)"):
            call(short)
        call(inputs["attention_mask"])


def test_a_target_mask_covers_what_is_cached_too():
    model, inputs = tiny_model(), batch()
    start = inputs["decoder_input_ids"]
    cache = model(**{**inputs, "decoder_input_ids": start[:, :3]})[CACHE]
    rest = {**inputs, "decoder_input_ids": start[:, 3:], CACHE: cache}
    with pytest.raises(ValueError, match=r"has the shape \(3, 2\), but the target with what is cached has \(3, 5\)"):
        model(**rest, decoder_attention_mask=torch.ones(3, 2))
    logits = model(**rest, decoder_attention_mask=torch.ones(3, 5)).logits
    torch.testing.assert_close(logits, model(**inputs).logits[:, 3:], rtol=0, atol=1e-5)


def test_plain_embeddings_are_scaled_when_they_are_set():
    model = tiny_model()
    expected = model(**batch()).logits
    plain = nn.Embedding(VOCAB_SIZE, WIDTH)
    plain.weight = model.get_input_embeddings().weight
    for part in (model, model.model, model.get_encoder(), model.get_decoder()):
        part.set_input_embeddings(plain)
        assert part.get_input_embeddings().weight is plain.weight
        assert torch.equal(model(**batch()).logits, expected)
    unscaled = tiny_model(scale_embeddings=False)
    unscaled.set_input_embeddings(model.get_input_embeddings())
    assert type(unscaled.get_input_embeddings()) is nn.Embedding
    assert unscaled.get_input_embeddings().weight is plain.weight

    class Quantised(nn.Embedding):
        pass

    with pytest.raises(ValueError, match="a Quantised does not say that it multiplies by sqrt"):
        model.set_input_embeddings(Quantised(VOCAB_SIZE, WIDTH))


@both_classes
def test_learned_positions_are_resized(cls, tmp_path):
    model = tiny_model(cls, position_encoding="learned", num_learned_positions=8)
    expected = model(**batch())[0]
    tables = model.get_position_embeddings()
    before = [table.weight.clone() for table in tables]
    model.resize_position_embeddings(20)
    assert model.config.num_learned_positions == model.config.max_position_embeddings == 20
    assert torch.equal(model(**batch())[0], expected)
    for table, old in zip(model.get_position_embeddings(), before, strict=True):
        assert table.weight.shape == (20, WIDTH)
        assert torch.equal(table.weight[:8], old)
        assert 0.3 < table.weight[8:].std() * WIDTH**0.5 < 3
    model.save_pretrained(tmp_path)
    loaded = cls.from_pretrained(tmp_path)
    assert torch.equal(loaded(**batch(source=15))[0], model(**batch(source=15))[0])
    model.resize_position_embeddings(7)
    assert torch.equal(model(**batch())[0], expected)
    with pytest.raises(ValueError, match=r"no learned position 7: `num_learned_positions`=7"):
        model(**batch(source=8))
    with pytest.raises(ValueError, match="`new_num_position_embeddings`=0; allowed: at least 1"):
        model.resize_position_embeddings(0)
    with pytest.raises(ValueError, match="the Encoder has one of the two tables of a model"):
        model.get_encoder().resize_position_embeddings(30)


def test_sinusoids_have_no_table_to_resize():
    for call in (lambda model: model.get_position_embeddings(), lambda model: model.resize_position_embeddings(9)):
        with pytest.raises(ValueError, match="positions are not learned here"):
            call(tiny_model())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_model_without_a_mask_sees_padding_that_the_example_had_not():
    model = tiny_model()
    inputs = batch()
    del inputs["attention_mask"]
    unpadded = {**inputs, "input_ids": tokens(3, 7)}
    names = ["input_ids", "decoder_input_ids"]

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, decoder_input_ids):
            return self.model(input_ids=input_ids, decoder_input_ids=decoder_input_ids, use_cache=False).logits

    traced = torch.jit.trace(Logits().eval(), tuple(unpadded[name] for name in names))
    for one in (unpadded, inputs):
        expected = model(**one, use_cache=False).logits
        torch.testing.assert_close(traced(*(one[name] for name in names)), expected, rtol=0, atol=1e-5)


def test_no_value_is_looked_at_on_an_accelerator_where_a_shape_tells():
    """Not even whether there is padding: the mask is made without asking, and hides nothing where there is none."""

    class Elsewhere(torch.Tensor):
        """Says that it is not on a CPU."""

        device = torch.device("cuda")

        def __bool__(self):
            raise AssertionError("looked at")

    ids = torch.Tensor._make_subclass(Elsewhere, torch.tensor([[5, 6, PAD]]))
    mask = derive_attention_mask(ids, None, PAD)
    assert mask.as_subclass(torch.Tensor).tolist() == [[True, True, False]]


def test_teachers_without_labels_are_refused():
    model = tiny_model()
    teachers = Teachers(0.5, (torch.zeros(2, 3, 4),), (torch.zeros(5, 4),))
    with pytest.raises(ValueError, match="`teachers` is part of the loss, and has no effect without `labels`"):
        model(input_ids=tokens(2, 4), decoder_input_ids=tokens(2, 3), teachers=teachers)


def test_r_drop_without_labels_is_refused():
    with pytest.raises(ValueError, match="r_drop=2.5 is part of the loss, and has no effect without `labels`"):
        tiny_model()(input_ids=tokens(2, 4), decoder_input_ids=tokens(2, 3), r_drop=2.5)
