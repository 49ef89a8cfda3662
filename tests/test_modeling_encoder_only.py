"""The encoder alone as a model of transformers: saving, tying, resizing, outputs, losses, training, exporting.

What is checked follows transformers' shared tests of BERT. Equality is bit for bit wherever the same arithmetic runs
twice.
"""

import inspect

import checkpointing
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
    pipeline,
)
from variants import OF_ONE_STACK

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerEncoderConfig,
    VanillaTransformerEncoderModel,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerForMaskedLM,
    VanillaTransformerForSequenceClassification,
    VanillaTransformerForTokenClassification,
)
from hf_vanilla_transformer import modeling_compatibility as compatibility
from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.encoder import Encoder

V, PAD, EOS = 40, 1, 2
B, S, D, LABELS = 3, 6, 16, 3

AUTO_CLASSES = {
    VanillaTransformerEncoderModel: AutoModel,
    VanillaTransformerForMaskedLM: AutoModelForMaskedLM,
    VanillaTransformerForSequenceClassification: AutoModelForSequenceClassification,
    VanillaTransformerForTokenClassification: AutoModelForTokenClassification,
}
ALL, HEADS = list(AUTO_CLASSES), list(AUTO_CLASSES)[1:]
every_class = pytest.mark.parametrize("cls", ALL)
every_head = pytest.mark.parametrize("cls", HEADS)
tied_and_untied = pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])


def tiny_config(**fields):
    shape = {"vocab_size": V, "d_model": D, "num_encoder_layers": 2, "num_heads": 2, "d_ff": 24, "num_labels": LABELS}
    return VanillaTransformerEncoderConfig(**{**shape, **fields})


def tiny_model(cls=VanillaTransformerForMaskedLM, attn_implementation="sdpa", **fields):
    torch.manual_seed(0)
    return cls._from_config(tiny_config(**fields), attn_implementation=attn_implementation).eval()


def batch(side="right"):
    """Texts of three lengths, padded on one side."""
    ids = torch.randint(4, V, (B, S), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * length + [0] * (S - length) for length in (6, 4, 2)])
    mask = mask if side == "right" else mask.flip(1)
    return {"input_ids": ids.masked_fill(mask == 0, PAD), "attention_mask": mask}


def labels_for(cls):
    generator = torch.Generator().manual_seed(2)
    if cls is VanillaTransformerForSequenceClassification:
        return torch.randint(LABELS, (B,), generator=generator)
    top = V if cls is VanillaTransformerForMaskedLM else LABELS
    labels = torch.randint(top, (B, S), generator=generator)
    return labels.masked_fill((batch()["attention_mask"] == 0) | (torch.arange(S) % 3 == 1), -100)


# --- Construction, saving, loading -----------------------------------------------------------------------------------


@every_class
@tied_and_untied
@torch.no_grad()
def test_a_saved_model_loads_bit_equal_by_its_auto_class(cls, tie, tmp_path):
    model = tiny_model(cls, tie_word_embeddings=tie, type_vocab_size=2, masked_lm_head="transform")
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert ("lm_head.weight" in stored) == (cls is VanillaTransformerForMaskedLM and not tie)
    loaded, info = AUTO_CLASSES[cls].from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is cls
    assert not any(info.values()), info
    types = torch.ones_like(batch()["input_ids"])
    assert torch.equal(loaded(**batch(), token_type_ids=types)[0], model(**batch(), token_type_ids=types)[0])


@every_head
def test_a_head_on_a_saved_base_is_the_only_part_that_is_new(cls, tmp_path):
    base = tiny_model(VanillaTransformerEncoderModel, pooling="first_tanh")
    base.save_pretrained(tmp_path)
    model, info = cls.from_pretrained(tmp_path, output_loading_info=True)
    for name, tensor in base.state_dict().items():
        assert torch.equal(model.model.state_dict()[name], tensor), name
    assert not info["unexpected_keys"]
    assert all(name.startswith(("classifier.", "pooling.", "lm_head.")) for name in info["missing_keys"])
    again = VanillaTransformerEncoderModel.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "head")
    back = VanillaTransformerEncoderModel.from_pretrained(tmp_path / "head")
    assert torch.equal(back(**batch())[0], again(**batch())[0])


@torch.no_grad()
def test_the_encoder_of_a_translation_model_is_loaded_by_name_and_back(tmp_path):
    shape = {"vocab_size": V, "d_model": D, "num_heads": 2, "d_ff": 24, "num_encoder_layers": 2}
    whole = VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**shape, num_decoder_layers=1)).eval()
    whole.save_pretrained(tmp_path / "whole")
    model = VanillaTransformerForMaskedLM.from_pretrained(tmp_path / "whole", config=tiny_config()).eval()
    states = whole.get_encoder()(**batch()).last_hidden_state
    assert torch.equal(model.model(**batch()).last_hidden_state, states)
    model.save_pretrained(tmp_path / "encoder")
    back = VanillaTransformerForConditionalGeneration.from_pretrained(tmp_path / "encoder", config=whole.config).eval()
    assert torch.equal(back.get_encoder()(**batch()).last_hidden_state, states)


def test_weights_start_as_those_of_the_whole_model():
    model = tiny_model(VanillaTransformerForSequenceClassification, type_vocab_size=200, d_model=64)
    assert abs(model.model.embed_token_types.weight.std() * 8 - 1) < 0.05
    bound = (6 / (64 + LABELS)) ** 0.5
    assert 0.9 * bound < model.classifier.weight.abs().max() <= bound
    assert not model.classifier.bias.any()


# --- The same encoder as the whole model's ---------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [{}, *OF_ONE_STACK.values()], ids=["paper", *OF_ONE_STACK])
@torch.no_grad()
def test_states_are_those_of_the_encoder_of_the_whole_model_in_every_variant(variant):
    fields = {"num_heads": 4, **variant}
    attention = "eager" if variant.get("position_encoding") == "shaw_relative" else "sdpa"
    model = tiny_model(VanillaTransformerEncoderModel, attention, **fields)
    shape = {"vocab_size": V, "d_model": D, "num_encoder_layers": 2, "d_ff": 24}
    whole = Encoder._from_config(VanillaTransformerConfig(**{**shape, **fields}), attn_implementation=attention).eval()
    whole.load_state_dict(model.encoder.state_dict())
    for side in ("left", "right"):
        assert torch.equal(model(**batch(side))[0], whole(**batch(side))[0])


@every_head
@pytest.mark.parametrize("pooling", ["mean", "first", "first_tanh"])
@torch.no_grad()
def test_padding_on_either_side_changes_nothing(cls, pooling):
    model = tiny_model(cls, pooling=pooling)
    for side in ("left", "right"):
        inputs = batch(side)
        logits = model(**inputs).logits
        for ids, mask, together in zip(*inputs.values(), logits, strict=True):
            together = together if cls is VanillaTransformerForSequenceClassification else together[mask == 1]
            torch.testing.assert_close(together, model(input_ids=ids[mask == 1][None]).logits[0], rtol=0, atol=1e-5)


@every_class
@torch.no_grad()
def test_token_types_are_added_and_by_default_are_the_first(cls):
    model, ids = tiny_model(cls, type_vocab_size=2), batch()["input_ids"]
    zeros = torch.zeros_like(ids)
    plain = model(**batch())[0]
    assert torch.equal(model(**batch(), token_type_ids=zeros)[0], plain)
    others = model(**batch(), token_type_ids=zeros + 1)[0]
    assert not torch.allclose(others, plain, atol=1e-3)
    embeds = model.get_input_embeddings()(ids) + model.base_model.embed_token_types.weight[1]
    model.base_model.embed_token_types.weight.zero_()
    torch.testing.assert_close(
        model(inputs_embeds=embeds, attention_mask=batch()["attention_mask"])[0], others, rtol=0, atol=1e-5
    )


@every_class
def test_a_model_without_types_leaves_them_out_with_one_warning(cls, monkeypatch):
    said, model = [], tiny_model(cls)
    monkeypatch.setattr(compatibility.logger, "warning_once", said.append)
    types = torch.ones_like(batch()["input_ids"])
    assert torch.equal(model(**batch(), token_type_ids=types)[0], model(**batch())[0])
    assert len(said) == 1
    assert "no token types" in said[0]
    said.clear()
    tiny_model(cls, type_vocab_size=2)(**batch(), token_type_ids=types)
    assert not said


# --- Inputs and outputs ----------------------------------------------------------------------------------------------


@every_class
@torch.no_grad()
def test_embedded_inputs_give_what_token_ids_give(cls):
    model, inputs = tiny_model(cls), batch()
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    same = model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"])
    assert torch.equal(same[0], model(**inputs)[0])
    for neither_or_both in ({}, {"input_ids": inputs["input_ids"], "inputs_embeds": embeds}):
        with pytest.raises(ValueError, match="either `input_ids` or `inputs_embeds`"):
            model(**neither_or_both)


@every_class
@torch.no_grad()
def test_a_mask_is_derived_from_padding(cls):
    model, inputs = tiny_model(cls), batch()
    assert torch.equal(model(input_ids=inputs["input_ids"])[0], model(**inputs)[0])


@every_class
def test_unknown_arguments_are_refused_and_the_signature_is_exact(cls):
    model = tiny_model(cls)
    with pytest.raises(TypeError, match=rf"{cls.__name__}.forward\(\) does not know `decoder_input_ids`"):
        model(**batch(), decoder_input_ids=batch()["input_ids"])
    parameters = inspect.signature(model.forward).parameters
    inputs = {"input_ids", "attention_mask", "token_type_ids", "inputs_embeds"}
    assert {*inputs, *compatibility.PASSED_ON} <= set(parameters)
    assert not {*compatibility.CACHE_NAMES} & set(parameters)
    assert ("labels" in parameters) == (cls in HEADS)


@every_class
@torch.no_grad()
def test_hidden_states_and_attentions_are_returned_when_asked_for(cls):
    model = tiny_model(cls, "eager")
    asked = model(**batch(), output_hidden_states=True, output_attentions=True)
    assert [state.shape for state in asked.hidden_states] == [(B, S, D)] * 3
    assert [weights.shape for weights in asked.attentions] == [(B, 2, S, S)] * 2
    for weights in asked.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(B, 2, S))
    base = model.base_model(**batch()).last_hidden_state
    assert torch.equal(asked.hidden_states[-1], base)
    assert len(model(**batch())) == 1
    model.config.output_hidden_states = True
    assert len(model(**batch()).hidden_states) == 3


@every_class
@torch.no_grad()
def test_a_tuple_holds_what_the_dict_holds(cls):
    model = tiny_model(cls)
    inputs = {**batch(), "output_hidden_states": True}
    if cls in HEADS:
        inputs["labels"] = labels_for(cls)
    named, unnamed = model(**inputs), model(**inputs, return_dict=False)
    assert isinstance(unnamed, tuple)
    assert len(unnamed) == len(named)
    for one, other in zip(named.to_tuple(), unnamed, strict=True):
        assert type(one) is type(other)
        pairs = zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]
        assert all(torch.equal(*pair) for pair in pairs)


def test_dummy_inputs_run():
    model = tiny_model()
    assert model(**model.dummy_inputs).logits.shape == (2, 4, V)


# --- Attention implementations, checkpointing, precision, graphs -----------------------------------------------------


@every_class
@torch.no_grad()
def test_eager_and_sdpa_agree(cls):
    model, inputs = tiny_model(cls, "eager"), batch("left")
    expected = model(**inputs)[0]
    model.set_attn_implementation("sdpa")
    is_token = inputs["attention_mask"].bool() if expected.dim() == 3 else slice(None)
    torch.testing.assert_close(model(**inputs)[0][is_token], expected[is_token], rtol=0, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_flex_attention_agrees_with_eager():
    """A quarter of a minute: it compiles."""
    model, inputs = tiny_model(attn_implementation="eager", d_model=32), batch()
    expected = model(**inputs).logits
    model.set_attn_implementation("flex_attention")
    is_token = inputs["attention_mask"].bool()
    torch.testing.assert_close(model(**inputs).logits[is_token], expected[is_token], rtol=0, atol=1e-4)


@every_head
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_no_gradient(cls, use_reentrant):
    model = tiny_model(cls, dropout=0.0).train()
    gradients = []
    for is_on in (False, True):
        if is_on:
            checkpointing.enable(model, use_reentrant=use_reentrant)
            assert checkpointing.is_enabled(model)
        model.zero_grad()
        model(**batch(), labels=labels_for(cls)).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=0, atol=1e-6)


@every_head
def test_bfloat16_stays_near_single_precision_and_trains(cls):
    model = tiny_model(cls)
    expected = model(**batch()).logits
    model.to(torch.bfloat16)
    torch.testing.assert_close(model(**batch()).logits.float(), expected, rtol=0, atol=0.15)
    loss = model.train()(**batch(), labels=labels_for(cls)).loss
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.slow
@every_class
def test_an_exported_program_is_exact_for_other_sizes(cls):
    """A few seconds for each class: it exports."""
    model, inputs = tiny_model(cls), batch()
    dims = {0: torch.export.Dim("batch", min=2, max=8), 1: torch.export.Dim("length", min=2, max=32)}
    program = torch.export.export(model, (), inputs, dynamic_shapes=dict.fromkeys(inputs, dims), strict=False)
    other = {name: torch.cat([value, value])[:5, :4] for name, value in inputs.items()}
    other["attention_mask"][:, 0] = 1
    torch.testing.assert_close(program.module()(**other)[0], model(**other)[0], rtol=0, atol=1e-6)


# --- Embeddings ------------------------------------------------------------------------------------------------------


@tied_and_untied
@pytest.mark.parametrize("new_size", [V + 8, V - 8])
@torch.no_grad()
def test_resizing_keeps_what_was_learned(tie, new_size, tmp_path):
    model, inputs = tiny_model(tie_word_embeddings=tie, final_logits_bias=True), batch()
    model.lm_head.bias.normal_()
    inputs["input_ids"] %= V - 8
    before = model(**inputs).logits
    model.resize_token_embeddings(new_size)
    assert model.config.vocab_size == new_size
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tie
    kept = min(V, new_size)
    torch.testing.assert_close(model(**inputs).logits[..., :kept], before[..., :kept], rtol=0, atol=1e-6)
    model.save_pretrained(tmp_path)
    assert torch.equal(VanillaTransformerForMaskedLM.from_pretrained(tmp_path)(**inputs).logits, model(**inputs).logits)


@every_class
def test_embeddings_are_found_replaced_and_scaled(cls):
    model = tiny_model(cls)
    old = model.get_input_embeddings()
    assert old is model.base_model.encoder.embed_tokens
    plain = nn.Embedding(V + 3, D)
    model.set_input_embeddings(plain)
    ids = torch.tensor([[3]])
    torch.testing.assert_close(model.get_input_embeddings()(ids), plain(ids) * D**0.5)
    model.resize_token_embeddings(V + 5)
    assert model.get_input_embeddings().weight.shape == (V + 5, D)


def test_tied_weights_stay_tied():
    model = tiny_model()
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert tiny_model(tie_word_embeddings=False).lm_head.weight is not model.get_input_embeddings().weight
    model.untie_embeddings()
    assert model.lm_head.weight is not model.get_input_embeddings().weight


@every_class
@torch.no_grad()
def test_learned_positions_are_resized(cls, tmp_path):
    model = tiny_model(cls, position_encoding="learned", num_learned_positions=S)
    before = model(**batch())[0]
    model.resize_position_embeddings(S + 4)
    assert model.config.max_position_embeddings == S + 4
    assert torch.equal(model(**batch())[0], before)
    longer = {name: torch.cat([value, value], 1)[:, : S + 4] for name, value in batch().items()}
    expected = model(**longer)[0]
    model.save_pretrained(tmp_path)
    assert torch.equal(cls.from_pretrained(tmp_path)(**longer)[0], expected)


# --- Losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["plain", "transform"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_loss_of_masked_words_is_smoothed_in_training_only_and_needs_no_logits(head, bias):
    model = tiny_model(dropout=0.0, masked_lm_head=head, final_logits_bias=bias, label_smoothing=0.3)
    labels = labels_for(VanillaTransformerForMaskedLM)
    evaluated = model(**batch(), labels=labels)
    logits = evaluated.logits.double().flatten(0, 1)
    plain = F.cross_entropy(logits, labels.flatten())
    smoothed = F.cross_entropy(logits, labels.flatten(), label_smoothing=0.3)
    torch.testing.assert_close(evaluated.loss.double(), plain, rtol=0, atol=1e-6)
    model.train()
    with_logits, without = (model(**batch(), labels=labels, return_logits=choice) for choice in (True, None))
    assert without.logits is None
    for outputs in (with_logits, without):
        torch.testing.assert_close(outputs.loss.double(), smoothed, rtol=0, atol=1e-6)
        torch.testing.assert_close(outputs.nll_loss.double(), plain, rtol=0, atol=1e-6)
    halved = model(**batch(), labels=labels, num_items_in_batch=2 * labels.ne(-100).sum()).loss
    torch.testing.assert_close(2 * halved, without.loss)
    assert model(**batch(), labels=torch.full_like(labels, -100)).loss == 0


def test_the_loss_of_tokens_is_the_cross_entropy_over_labels():
    model = tiny_model(VanillaTransformerForTokenClassification, dropout=0.0).train()
    labels = labels_for(VanillaTransformerForTokenClassification)
    outputs = model(**batch(), labels=labels)
    expected = F.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(outputs.loss, expected)
    halved = model(**batch(), labels=labels, num_items_in_batch=2 * labels.ne(-100).sum()).loss
    torch.testing.assert_close(2 * halved, expected)


PROBLEMS = {
    "single_label_classification": (3, torch.tensor([2, 0, 1]), F.cross_entropy),
    "multi_label_classification": (
        3, torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 1]]), F.binary_cross_entropy_with_logits,
    ),
    "regression": (1, torch.tensor([0.5, -1.0, 2.0]), lambda logits, labels: F.mse_loss(logits[:, 0], labels)),
}  # fmt: skip


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_loss_of_sequences_is_that_of_the_problem_type(problem, said):
    num_labels, labels, loss = PROBLEMS[problem]
    model = tiny_model(
        VanillaTransformerForSequenceClassification, num_labels=num_labels, problem_type=problem if said else None
    )
    outputs = model(**batch(), labels=labels)
    assert outputs.logits.shape == (B, num_labels)
    torch.testing.assert_close(outputs.loss, loss(outputs.logits, labels))
    assert model.config.problem_type == problem
    outputs.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_pooling_needs_a_mask_of_tokens():
    model = tiny_model(VanillaTransformerForSequenceClassification)
    with pytest.raises(ValueError, match=r"shape \(3, 1, 6, 6\); pooling needs"):
        model(input_ids=batch()["input_ids"], attention_mask=torch.ones(B, 1, S, S).bool())


@pytest.mark.parametrize("pooling", ["mean", "first_tanh"])
def test_the_dropout_before_a_classifier_is_its_own(pooling):
    fields = {"dropout": 0.0, "classifier_dropout": 0.5, "pooling": pooling}
    model = tiny_model(VanillaTransformerForSequenceClassification, **fields).train()
    assert not torch.equal(model(**batch()).logits, model(**batch()).logits)
    assert torch.equal(model.model(**batch())[0], model.model(**batch())[0])
    assert tiny_model(VanillaTransformerForSequenceClassification, dropout=0.25).dropout.p == 0.25


# --- Training --------------------------------------------------------------------------------------------------------


def arguments(folder, **options):
    return TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, **options
    )


def texts_of_a_trivial_task(count, generator):
    """Texts of the length 2 to 6; the class says whether token 5 is among them."""
    for _ in range(count):
        length = int(torch.randint(2, 7, (), generator=generator))
        ids = torch.randint(6, V, (length,), generator=generator)
        label = int(torch.randint(2, (), generator=generator))
        if label:
            ids[int(torch.randint(length, (), generator=generator))] = 5
        yield {"input_ids": ids.tolist(), "labels": label}


def padded(rows):
    longest = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [PAD] * (longest - len(row["input_ids"])) for row in rows])
    return {"input_ids": ids, "attention_mask": ids.ne(PAD).long(), "labels": torch.tensor([r["labels"] for r in rows])}


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_a_classifier_learns_by_the_trainer_whether_a_token_is_there(tmp_path):
    generator = torch.Generator().manual_seed(3)
    model = tiny_model(VanillaTransformerForSequenceClassification, num_labels=2, num_encoder_layers=1, dropout=0.0)
    options = {"max_steps": 12, "per_device_train_batch_size": 32, "learning_rate": 2e-2}
    trainer = Trainer(
        model,
        arguments(tmp_path, **options),
        data_collator=padded,
        train_dataset=list(texts_of_a_trivial_task(320, generator)),
        eval_dataset=list(texts_of_a_trivial_task(200, generator)),
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.model_accepts_loss_kwargs is False
    predicted = trainer.predict(trainer.eval_dataset)
    accuracy = (predicted.predictions.argmax(-1) == predicted.label_ids).mean()
    assert accuracy > 0.95, (accuracy, before, predicted.metrics)


def masked_text():
    tokenizer = train_tokenizer(texts=["the dog runs", "a cat sits", "the cat runs"], vocab_size=270)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    return tokenizer


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_masked_words_are_learned_by_the_trainer_with_the_collator_of_transformers(tmp_path):
    tokenizer = masked_text()
    model = tiny_model(vocab_size=len(tokenizer), num_encoder_layers=1)
    rows = [{"input_ids": tokenizer(text).input_ids} for text in ["the dog runs", "a cat sits"] * 16]
    options = {"max_steps": 6, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3)
    trainer = Trainer(
        model, arguments(tmp_path, **options, learning_rate=1e-2), data_collator=collator, train_dataset=rows,
        eval_dataset=rows,
    )  # fmt: skip
    assert trainer.model_accepts_loss_kwargs is True
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before - 0.3


def test_the_pipeline_that_fills_masks_takes_model_and_tokenizer(tmp_path):
    tokenizer = masked_text()
    model = tiny_model(vocab_size=len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    answers = pipeline("fill-mask", model=str(tmp_path), device="cpu", top_k=2)("the <mask> runs")
    inputs = tokenizer("the <mask> runs", return_tensors="pt")
    place = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    expected = model(**inputs).logits[0, place].softmax(-1).topk(2)
    assert [answer["token"] for answer in answers] == expected.indices.tolist()
    assert [answer["score"] for answer in answers] == pytest.approx(expected.values.tolist(), abs=1e-5)
