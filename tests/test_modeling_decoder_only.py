"""The decoder alone as a model of transformers: who sees whom, losses, caches, saving, outputs, training."""

import inspect
import math
import os
import subprocess
import sys

import checkpointing
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from test_attention import flex_attention_runs_here
from test_remote_code import PACKAGE_IS_MISSING
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    DataCollatorForLanguageModeling,
    StaticCache,
    Trainer,
    TrainingArguments,
)
from variants import OF_ONE_STACK

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerDecoderConfig,
    VanillaTransformerDecoderModel,
    VanillaTransformerEncoderConfig,
    VanillaTransformerEncoderModel,
    VanillaTransformerForCausalLM,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerForSequenceClassification,
    VanillaTransformerModel,
    encoder,
)
from hf_vanilla_transformer import modeling_compatibility as compatibility
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.encoder import EncoderLayer
from hf_vanilla_transformer.positions import sinusoids
from hf_vanilla_transformer.publishing import save_self_contained

V, PAD, EOS = 40, 1, 2
B, T, D = 3, 6, 16
PREFIX = {"prefix_visibility": "bidirectional"}
BASE, HEAD = VanillaTransformerDecoderModel, VanillaTransformerForCausalLM
AUTO_CLASSES = {BASE: AutoModel, HEAD: AutoModelForCausalLM}
every_class = pytest.mark.parametrize("cls", AUTO_CLASSES)
every_variant = pytest.mark.parametrize(
    "fields", [{}, {"norm_position": "pre"}, *OF_ONE_STACK.values()], ids=["post", "pre", *OF_ONE_STACK]
)


def tiny_config(**fields):
    shape = {"vocab_size": V, "d_model": D, "num_decoder_layers": 2, "num_heads": 4, "d_ff": 24}
    return VanillaTransformerDecoderConfig(**{**shape, **fields})


def tiny_model(cls=HEAD, implementation="sdpa", **fields):
    torch.manual_seed(0)
    if fields.get("position_encoding") == "shaw_relative":
        implementation = "eager"
    model = cls._from_config(tiny_config(**fields), attn_implementation=implementation).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases are zero at first
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def batch(side="right"):
    """Texts of three lengths, padded on one side."""
    ids = torch.randint(4, V, (B, T), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * length + [0] * (T - length) for length in (6, 4, 2)])
    mask = mask if side == "right" else mask.flip(1)
    return {"input_ids": ids.masked_fill(mask == 0, PAD), "attention_mask": mask}


# --- What sees what --------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_paper_s_layers_are_those_of_torch_with_a_causal_mask():
    model = tiny_model(implementation="eager", activation_function="relu", attention_bias=True)
    layers = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(D, 4, 24, dropout=0.0, batch_first=True, layer_norm_eps=1e-6), 2
    ).eval()
    for ours, theirs in zip(model.model.layers, layers.layers):
        attention = ours.self_attention
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        theirs.self_attn.in_proj_weight.copy_(torch.cat([each.weight for each in projections]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([each.bias for each in projections]))
        pairs = (
            (attention.out_proj, theirs.self_attn.out_proj),
            (ours.self_attention_norm, theirs.norm1),
            (ours.feed_forward.fc1, theirs.linear1),
            (ours.feed_forward.fc2, theirs.linear2),
            (ours.feed_forward_norm, theirs.norm2),
        )
        for source, target in pairs:
            target.load_state_dict(source.state_dict())
    ids = batch()["input_ids"][:1]
    matrix = model.model.embed_tokens.weight
    states = matrix[ids] * math.sqrt(D) + sinusoids(torch.arange(T), D)
    expected = layers(states, mask=nn.Transformer.generate_square_subsequent_mask(T)) @ matrix.T
    torch.testing.assert_close(model(ids).logits, expected, rtol=0, atol=1e-5)


@every_variant
@torch.no_grad()
def test_no_position_sees_a_later_one_and_a_whole_prefix_sees_itself(fields):
    ids = torch.randint(4, V, (1, T), generator=torch.Generator().manual_seed(1))
    changed = ids.clone()
    changed[0, 3] = (ids[0, 3] + 1 - 4) % (V - 4) + 4
    model = tiny_model(**fields)
    same = (model(ids).logits - model(changed).logits).abs().amax(-1)[0]
    assert (same[:3] == 0).all()
    assert same[3] > 1e-4
    if model.config.attention == "linear":
        with pytest.raises(StrictDataclassError, match="`attention`='linear' has one sum for all"):
            tiny_config(**{**fields, **PREFIX})
        return
    model = tiny_model(**{**fields, **PREFIX})
    prefix = torch.tensor([4])
    seen = (model(ids, prefix_length=prefix).logits - model(changed, prefix_length=prefix).logits).abs().amax(-1)[0]
    assert (seen[2:4] > 1e-6).all()
    outside = changed.clone()
    outside[0, 3], outside[0, 4] = ids[0, 3], changed[0, 3]
    after = (model(ids, prefix_length=prefix).logits - model(outside, prefix_length=prefix).logits).abs().amax(-1)[0]
    assert (after[:4] == 0).all()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("prefix", [{}, PREFIX])
@torch.no_grad()
def test_padding_on_either_side_and_company_change_nothing(attention, prefix):
    model = tiny_model(implementation=attention, **prefix)
    lengths = {"prefix_length": torch.tensor([3, 4, 1])} if prefix else {}
    for side in ("left", "right"):
        inputs = batch(side)
        together = model(**inputs, **lengths).logits
        assert torch.equal(together, model(inputs["input_ids"], **lengths).logits)  # the mask is derived
        for row in range(B):
            is_token = inputs["attention_mask"][row].bool()
            one = {name: value[row : row + 1] for name, value in lengths.items()}
            alone = model(inputs["input_ids"][row : row + 1, is_token], **one).logits[0]
            torch.testing.assert_close(together[row, is_token], alone, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", [{}, PREFIX])
@torch.no_grad()
def test_flex_attention_agrees_with_eager(prefix):
    """Compiles a kernel, half a minute on a quiet machine."""
    if reason := flex_attention_runs_here():
        pytest.skip(reason)
    lengths = {"prefix_length": torch.tensor([3, 2, 1])} if prefix else {}
    eager, flex = (
        tiny_model(implementation=name, d_model=64, **prefix)(**batch("left"), **lengths).logits
        for name in ("eager", "flex_attention")
    )
    is_token = batch("left")["attention_mask"].bool()
    torch.testing.assert_close(flex[is_token], eager[is_token], rtol=0, atol=1e-5)


@every_variant
@torch.no_grad()
def test_any_split_of_a_text_gives_the_logits_of_the_whole(fields):
    model, inputs = tiny_model(**fields), batch("left")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    is_token = mask.bool()
    whole = model(**inputs).logits
    static = [lambda: StaticCache(config=model.config, max_cache_len=9)] if model.config.attention == "softmax" else []
    for make in (lambda: None, *static):
        cache, parts = make(), []
        for start, end in ((0, 3), (3, 4), (4, 6)):
            output = model(ids[:, start:end], mask[:, :end], cache=cache, use_cache=True)
            cache = output.past_key_values
            assert output.cache is cache
            parts.append(output.logits)
        torch.testing.assert_close(torch.cat(parts, 1)[is_token], whole[is_token], rtol=0, atol=1e-5)


@every_variant
@torch.no_grad()
def test_texts_that_are_packed_do_not_see_each_other(fields):
    model, ids = tiny_model(**fields), batch()["input_ids"][:1]
    positions = torch.tensor([[0, 1, 2, 3, 0, 1]])
    if model.config.attention == "linear":
        with pytest.raises(ValueError, match="`position_ids` pack several texts in one row"):
            model(ids, position_ids=positions)
        return
    packed = model(ids, position_ids=positions).logits
    alone = torch.cat([model(ids[:, :4]).logits, model(ids[:, 4:]).logits], dim=1)
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("place", ["with padding", "where padding is not looked for"])
@torch.no_grad()
def test_positions_alone_say_which_texts_are_packed(place, monkeypatch):
    """Of padding, a mask would be derived, and on an accelerator of any row; and with a mask texts are not packed."""
    model, ids = tiny_model(), batch()["input_ids"][:1]
    alone = torch.cat([model(ids[:, :4]).logits, model(ids[:, 4:]).logits], dim=1)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1]])
    if place == "with padding":
        ids = torch.cat([ids, torch.full((1, 2), PAD)], dim=1)
        positions = torch.cat([positions, torch.tensor([[0, 0]])], dim=1)
    else:
        monkeypatch.setattr(torch.jit, "is_tracing", lambda: True)
        assert encoder.derive_attention_mask(ids, None, PAD).all()
    torch.testing.assert_close(model(ids, position_ids=positions).logits[:, :6], alone, rtol=0, atol=1e-5)
    left = torch.cat([torch.full((1, 2), PAD), batch()["input_ids"][:1, :4]], dim=1)
    padded = model(left, position_ids=torch.tensor([[0, 0, 0, 1, 2, 3]])).logits[:, 2:]
    torch.testing.assert_close(padded, alone[:, :4], rtol=0, atol=1e-5)


@pytest.mark.parametrize("implementation", ["sdpa", "flash_attention_2"])
def test_packed_texts_are_refused_by_attention_that_cannot_keep_them_apart(implementation):
    model = tiny_model(attention="linear") if implementation == "sdpa" else tiny_model()
    model.config._attn_implementation = implementation  # of flash attention not even the package is needed
    said = "`attention`='linear'" if implementation == "sdpa" else "`attn_implementation`='flash_attention_2'"
    ids = torch.full((1, T), PAD)  # of which a mask would be derived
    with pytest.raises(ValueError, match=f"`position_ids` pack several texts in one row, which {said} cannot"):
        model(ids, position_ids=torch.tensor([[0, 1, 2, 3, 0, 1]]))


def test_a_prefix_is_refused_where_it_has_no_effect_or_does_not_fit():
    ids = batch()["input_ids"][:1]
    with pytest.raises(ValueError, match="`prefix_length` changes nothing with `prefix_visibility`='causal'"):
        tiny_model()(ids, prefix_length=torch.tensor([2]))
    model = tiny_model(**PREFIX)
    with pytest.raises(ValueError, match=r"the shape \(2,\); give it one number for each of the 1 texts"):
        model(ids, prefix_length=torch.tensor([2, 2]))
    with pytest.raises(ValueError, match="more than there is to see in the texts"):
        model(ids, prefix_length=torch.tensor([7]))
    cache = model(ids[:, :3], use_cache=True).cache
    with pytest.raises(ValueError, match="more than there is to see in the cache; one call has to read a whole prefix"):
        model(ids[:, 3:], cache=cache, prefix_length=torch.tensor([4]))
    with pytest.raises(ValueError, match="needs an `attention_mask`"):
        model(ids, torch.ones(1, 1, T, T, dtype=torch.bool), prefix_length=torch.tensor([2]))
    with pytest.raises(ValueError, match="does not work with `prefix_visibility`='bidirectional'"):
        model.set_attn_implementation("flash_attention_2")


# --- Losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("return_logits", [None, True])
def test_the_loss_is_the_formula_on_shifted_labels(training, return_logits):
    model, inputs = tiny_model(dropout=0.0, label_smoothing=0.3).train(training), batch()
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    out = model(**inputs, labels=labels, return_logits=return_logits)
    assert (out.logits is None) == (training and return_logits is None)
    log_probs = model(**inputs).logits.double().log_softmax(-1)
    losses, plain = [], []
    for row in range(B):
        for place in range(T - 1):
            label = int(labels[row, place + 1])
            if label != -100:
                plain.append(-log_probs[row, place, label])
                losses.append(0.7 * plain[-1] - 0.3 * log_probs[row, place].mean() if training else plain[-1])
    torch.testing.assert_close(out.loss.double(), torch.stack(losses).mean(), rtol=1e-6, atol=0)
    torch.testing.assert_close(out.nll_loss.double(), torch.stack(plain).mean(), rtol=1e-6, atol=0)
    summed = model(**inputs, labels=labels, num_items_in_batch=2 * len(losses)).loss
    torch.testing.assert_close(summed * 2, out.loss, rtol=1e-6, atol=0)
    assert model(**inputs, labels=torch.full_like(labels, -100)).loss.item() == 0
    shifted = torch.cat([labels[:, 1:], torch.full((B, 1), -100)], dim=1)
    given = model(**inputs, labels=labels * 0, shift_labels=shifted, return_logits=return_logits)
    torch.testing.assert_close(given.loss, out.loss)


def test_labels_in_a_prefix_that_sees_itself_are_refused():
    model, inputs = tiny_model(**PREFIX), batch("left")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    prefix = torch.tensor([2, 3, 1])
    with pytest.raises(ValueError, match="there are `labels` in a prefix"):
        model(**inputs, labels=labels, prefix_length=prefix)
    for row, first in enumerate((0, 2, 4)):
        labels[row, : first + prefix[row]] = -100
    expected = model(**inputs, labels=labels, prefix_length=prefix).loss
    assert expected > 0
    # Without a mask, prefixes do not begin with padding either.
    alone = {"input_ids": inputs["input_ids"], "prefix_length": prefix}
    assert model(**alone, labels=labels).loss == expected
    labels[1, 4] = inputs["input_ids"][1, 4]
    with pytest.raises(ValueError, match="there are `labels` in a prefix"):
        model(**alone, labels=labels)


@pytest.mark.parametrize("mask", [torch.ones(1, T), None])
def test_labels_after_a_prefix_that_is_cached_are_those_of_the_whole(mask):
    model, ids, prefix = tiny_model(**PREFIX), batch()["input_ids"][:1], torch.tensor([2])
    labels = ids.clone()
    labels[:, :4] = -100
    expected = model(ids, prefix_length=prefix, labels=labels).loss
    cache = model(ids[:, :3], prefix_length=prefix, use_cache=True).cache
    after = model(ids[:, 3:], mask, cache=cache, prefix_length=prefix, labels=ids[:, 3:]).loss
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("fields", [{}, {"position_encoding": "t5_relative"}, PREFIX])
def test_gradients_with_checkpoints_are_those_without(fields):
    model, inputs = tiny_model(dropout=0.0, **fields).train(), batch()
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    if fields == PREFIX:
        labels[:, 0] = -100
        inputs["prefix_length"] = torch.ones(B, dtype=torch.long)
    gradients = []
    for checkpoint in (False, True):
        if checkpoint:
            checkpointing.enable(model, use_reentrant=False)
        model.zero_grad()
        model(**inputs, labels=labels).loss.backward()
        gradients.append({name: each.grad.clone() for name, each in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-6, msg=name)


# --- A model of transformers -----------------------------------------------------------------------------------------


@every_class
@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
@torch.no_grad()
def test_a_saved_model_loads_bit_equal_by_its_auto_class(cls, tie, tmp_path):
    model = tiny_model(cls, tie_word_embeddings=tie)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert ("lm_head.weight" in stored) == (cls is HEAD and not tie)
    loaded, info = AUTO_CLASSES[cls].from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is cls
    assert not any(info.values()), info
    assert torch.equal(loaded(**batch())[0], model(**batch())[0])
    if cls is HEAD:
        base = AutoModel.from_pretrained(tmp_path)
        assert torch.equal(base(**batch())[0], model.model(**batch())[0])
        assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tie


@every_class
@torch.no_grad()
def test_outputs_on_request_and_embeddings_in_place_of_ids(cls):
    model, inputs = tiny_model(cls), batch()
    out = model(**inputs, output_hidden_states=True, output_attentions=True)
    assert [tuple(states.shape) for states in out.hidden_states] == [(B, T, D)] * 3
    assert [tuple(weights.shape) for weights in out.attentions] == [(B, 4, T, T)] * 2
    for weights in out.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(B, 4, T))
        assert (weights.triu(1) == 0).all()
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    given = model(inputs_embeds=embeddings, attention_mask=inputs["attention_mask"])
    assert torch.equal(given[0], model(**inputs)[0])
    assert isinstance(model(**inputs, return_dict=False), tuple)
    with pytest.raises(ValueError, match="either `input_ids` or `inputs_embeds`"):
        model(inputs["input_ids"], inputs_embeds=embeddings)
    with pytest.raises(TypeError, match="does not know `position_id`. Did you mean `position_ids`"):
        model(**inputs, position_id=torch.zeros(1))


@torch.no_grad()
def test_logits_of_some_positions_and_a_projection_with_a_bias():
    model, inputs = tiny_model(final_logits_bias=True), batch()
    states = model.model(**inputs).last_hidden_state
    # The product of the same rows, because another number of rows may be summed otherwise.
    assert torch.equal(model(**inputs).logits, model.lm_head(states))
    assert torch.equal(model(**inputs, logits_to_keep=2).logits, model.lm_head(states[:, -2:]))
    assert torch.equal(model(**inputs, logits_to_keep=torch.tensor([0, 3])).logits, model.lm_head(states[:, [0, 3]]))
    labels = inputs["input_ids"]
    kept = model(**inputs, labels=labels, logits_to_keep=1)
    torch.testing.assert_close(kept.loss, model(**inputs, labels=labels).loss)


def test_vocabulary_and_positions_can_be_resized(tmp_path):
    for tie in (True, False):
        model = tiny_model(tie_word_embeddings=tie, position_encoding="learned", num_learned_positions=8)
        before = model(**batch()).logits
        model.resize_token_embeddings(V + 3)
        model.resize_position_embeddings(12)
        assert model.config.vocab_size == V + 3
        assert model(torch.full((1, 12), V + 2)).logits.shape == (1, 12, V + 3)
        torch.testing.assert_close(model(**batch()).logits[..., :V], before)
        model.save_pretrained(tmp_path / str(tie))
        assert HEAD.from_pretrained(tmp_path / str(tie)).model.embed_positions.num_embeddings == 12


KINDS = {
    VanillaTransformerDecoderConfig: [BASE, HEAD],
    VanillaTransformerEncoderConfig: [VanillaTransformerEncoderModel, VanillaTransformerForSequenceClassification],
    VanillaTransformerConfig: [VanillaTransformerModel, VanillaTransformerForConditionalGeneration],
}


@pytest.mark.parametrize("other", KINDS)
def test_no_model_is_built_from_the_config_of_another_kind(other):
    config = other(vocab_size=9, d_model=8, num_heads=2, d_ff=8)
    for kind, classes in KINDS.items():
        for cls in classes:
            if kind is not other:
                with pytest.raises(
                    ValueError, match=f"is built from a {kind.__name__}, and not from a {other.__name__}"
                ):
                    cls(config)


def test_signatures_and_flags_that_transformers_reads():
    model = tiny_model()
    names = inspect.signature(model.forward).parameters
    assert {"input_ids", "attention_mask", "position_ids", "past_key_values", "inputs_embeds", "labels"} <= set(names)
    assert model.get_decoder() is model.model
    assert model.can_generate()
    assert model.loss_type == "ForCausalLM"  # by which the Trainer does not count the first label of each text
    assert model.model._no_split_modules == {"EncoderLayer"}
    assert type(model.model.layers[0]) is EncoderLayer
    assert set(model.dummy_inputs) == {"input_ids", "attention_mask"}
    assert model(**model.dummy_inputs).logits.shape == (2, 4, V)
    assert compatibility.CACHE in model(**model.dummy_inputs)


@pytest.mark.slow
@torch.no_grad()
def test_a_traced_graph_takes_other_lengths():
    """torch.export, a few seconds on a quiet machine."""
    model, inputs = tiny_model(BASE), batch()
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.export.export(
        model, (), {**inputs, "use_cache": False}, dynamic_shapes={"input_ids": sizes, "attention_mask": sizes,
                                                                  "use_cache": None}
    )  # fmt: skip
    longer = {name: tensor.repeat(2, 3) for name, tensor in inputs.items()}
    found = program.module()(**longer, use_cache=False).last_hidden_state
    torch.testing.assert_close(found, model(**longer, use_cache=False).last_hidden_state, rtol=0, atol=1e-5)


# --- Training and travelling -----------------------------------------------------------------------------------------


def trainer_for(model, folder, rows, collator=None, **options):
    arguments = TrainingArguments(
        output_dir=folder, report_to="none", use_cpu=True, save_strategy="no", disable_tqdm=True,
        **{"max_steps": 40, "learning_rate": 1e-2, "per_device_train_batch_size": 4, "lr_scheduler_type": "constant",
           **options},
    )  # fmt: skip
    return Trainer(model, arguments, train_dataset=rows, data_collator=collator)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", [{}, PREFIX])
def test_the_trainer_teaches_it_to_count(prefix, tmp_path):
    """Each number is followed by the next; after a prefix, its last and its first number. Two seconds each."""
    model = tiny_model(dropout=0.0, label_smoothing=0.0, norm_position="pre", **prefix)
    if prefix:
        rows = []
        for start in range(4, 20):
            ids = [start, start + 9, start + 9, start, EOS]
            rows.append({"input_ids": ids, "labels": [-100, -100, *ids[2:]], "prefix_length": 2})
    else:
        rows = [{"input_ids": list(range(start, start + 6))} for start in range(4, 20)]
        rows = [{**row, "labels": row["input_ids"]} for row in rows]
    trainer_for(model, tmp_path, rows, max_steps=120 if prefix else 40).train()
    model.eval()
    if prefix:
        ids = model.generate(torch.tensor([[7, 16], [12, 21]]), max_new_tokens=3)
        assert ids[:, 2:].tolist() == [[16, 7, EOS], [21, 12, EOS]]
    else:
        assert model.generate(torch.tensor([[6, 7]]), max_new_tokens=4)[0].tolist() == [6, 7, 8, 9, 10, 11]


@pytest.mark.slow
def test_transformers_collator_and_smaller_micro_batches_give_the_same_gradients(tmp_path):
    """Two Trainers, two seconds on a quiet machine."""
    tokenizer = train_tokenizer(texts=["a b c"], vocab_size=260)
    rows = [{"input_ids": tokenizer("a b c" * n).input_ids} for n in (1, 3, 2, 1)]
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    trained = []
    for size in (4, 1):
        model = tiny_model(vocab_size=260, dropout=0.0)
        options = {"max_steps": 1, "per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        trainer_for(model, tmp_path, rows, collator, optim="sgd", learning_rate=1.0, **options).train()
        trained.append(model.state_dict())
    for name, weight in trained[0].items():
        torch.testing.assert_close(trained[1][name], weight, rtol=0, atol=2e-5, msg=name)
    fresh = tiny_model(vocab_size=260, dropout=0.0).state_dict()
    assert not torch.equal(fresh["model.embed_tokens.weight"], trained[0]["model.embed_tokens.weight"])


LOADER = """
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

folder, again, reference = sys.argv[1:]
expected = torch.load(reference, weights_only=True)
for place in (folder, again):
    base = AutoModel.from_pretrained(place, trust_remote_code=True).eval()
    model = AutoModelForCausalLM.from_pretrained(place, trust_remote_code=True).eval()
    for loaded in (AutoConfig.from_pretrained(place, trust_remote_code=True), base, model):
        assert type(loaded).__module__.startswith("transformers_modules."), type(loaded)
    inputs = {name: expected[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(base(**inputs).last_hidden_state, expected["hidden"])
    assert torch.equal(model(**inputs).logits, expected["logits"])
    assert torch.equal(model.generate(**inputs, max_new_tokens=6, num_beams=2), expected["ids"])
    if place == folder:
        model.save_pretrained(again)
print("equal")
"""


@pytest.mark.slow
def test_a_folder_with_code_works_where_the_package_is_not_installed(tmp_path):
    """Another interpreter, half a minute on a quiet machine."""
    model, inputs = tiny_model(**PREFIX), batch("left")
    save_self_contained(model, tmp_path / "folder")
    with torch.no_grad():
        expected = {
            **inputs,
            "hidden": model.model(**inputs).last_hidden_state,
            "logits": model(**inputs).logits,
            "ids": model.generate(**inputs, max_new_tokens=6, num_beams=2),
        }
    torch.save(expected, tmp_path / "expected.pt")
    program = PACKAGE_IS_MISSING + LOADER
    places = [str(tmp_path / name) for name in ("folder", "again", "expected.pt")]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program, *places], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.stdout.strip().endswith("equal"), done.stderr
