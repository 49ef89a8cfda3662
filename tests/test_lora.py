"""Adapters of peft from folder to folder: train, save, load by the Auto class, merge, save the merged model."""

import copy

import peft
import pytest
import torch
from packaging import version
from peft import AutoPeftModelForSeq2SeqLM, LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import AutoModelForSeq2SeqLM

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.modeling_compatibility import CACHE

SMALL = {"vocab_size": 30, "d_model": 16, "num_heads": 2, "d_ff": 24, "num_encoder_layers": 2, "num_decoder_layers": 2}


def batch():
    generator = torch.Generator().manual_seed(0)
    ids, labels = (torch.randint(3, 30, (4, length), generator=generator) for length in (7, 6))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def train(model, steps=30):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        losses.append(model.train()(**batch()).loss)
        losses[-1].backward()
        optimizer.step()
    model.eval()
    return losses[0].item(), losses[-1].item()


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]])
@pytest.mark.parametrize("variant", [{}, {"norm_position": "pre", "attention_bias": True, "final_logits_bias": True}])
def test_an_adapter_trains_saves_loads_by_the_auto_class_and_merges(targets, variant, tmp_path):
    config = VanillaTransformerConfig(**SMALL, **variant, dropout=0.0)
    VanillaTransformerForConditionalGeneration(config).save_pretrained(tmp_path / "base")
    base = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base")
    frozen = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    adapted = get_peft_model(base, LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, lora_alpha=16, target_modules=targets))
    first, last = train(adapted)
    assert last < 0.8 * first
    adapted.save_pretrained(tmp_path / "adapter")

    loaded = AutoPeftModelForSeq2SeqLM.from_pretrained(tmp_path / "adapter").eval()
    inputs = batch()
    expected = adapted(**inputs)
    assert torch.equal(loaded(**inputs).logits, expected.logits)
    base_now = {
        name.replace(".base_layer", ""): tensor for name, tensor in loaded.get_base_model().state_dict().items()
    }
    assert all(torch.equal(base_now[name], tensor) for name, tensor in frozen.items())

    merged = loaded.merge_and_unload()
    assert type(merged) is VanillaTransformerForConditionalGeneration
    merged.save_pretrained(tmp_path / "merged")
    reloaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "merged").eval()
    labels = inputs.pop("labels")
    for model in (merged, reloaded):
        torch.testing.assert_close(model(**inputs, labels=labels).logits, expected.logits, rtol=0, atol=1e-5)
        assert torch.equal(model.generate(**inputs, max_new_tokens=6), adapted.generate(**inputs, max_new_tokens=6))


def seq2seq(**options):
    return {"task_type": "SEQ_2_SEQ_LM", **options}


def random_model(**fields):
    torch.manual_seed(0)
    return VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**SMALL, dropout=0.0, **fields)).eval()


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [5, 6]}},
        {"target_modules": ["embed_tokens"], "r": 4},
        {"target_modules": ["q_proj", "embed_tokens"], "r": 4},
    ],
)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_adapters_of_embeddings_keep_the_factor_sqrt_d_model(options):
    """§3.4: an adapter that has learned nothing changes nothing, though it does not call `forward`."""
    model, inputs = random_model(), batch()
    expected = model(**inputs).logits
    adapted = get_peft_model(model, LoraConfig(**seq2seq(**options))).eval()
    torch.testing.assert_close(adapted(**inputs).logits, expected, rtol=0, atol=1e-5)


def test_what_an_adapter_of_an_embedding_learns_is_multiplied_as_well():
    """One row of the matrix changed by an adapter is the same row changed in the model."""
    model, inputs = random_model(tie_word_embeddings=False), batch()
    adapted = get_peft_model(
        copy.deepcopy(model),
        LoraConfig(**seq2seq(target_modules=["q_proj"], trainable_token_indices={"encoder.embed_tokens": [5]})),
    ).eval()
    change = torch.randn(SMALL["d_model"])
    (learned,) = (weight for name, weight in adapted.named_parameters() if "trainable_tokens_delta" in name)
    with torch.no_grad():
        learned.add_(change)
        model.get_input_embeddings().weight[5] += change
    inputs["input_ids"][:, 0] = 5
    torch.testing.assert_close(adapted(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("modules", [["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"]], ids=" ".join)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_tied_embeddings_that_learn_as_copies_are_saved_untied(modules, tmp_path):
    """peft's `modules_to_save` learns copies of what is tied; saved as tied, one of three would be missing or wrong."""
    adapted = get_peft_model(
        random_model(), LoraConfig(**seq2seq(r=4, target_modules=["q_proj"], modules_to_save=modules))
    )
    train(adapted)
    expected = adapted(**batch()).logits
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**batch()).logits, expected, rtol=0, atol=2e-5)
    assert loaded.config.tie_word_embeddings is False


def test_untied_embeddings_are_equal_at_first_and_independent(tmp_path):
    model, inputs = random_model(), batch()
    expected = model(**inputs).logits
    model.untie_embeddings()
    assert torch.equal(model(**inputs).logits, expected)
    assert len(dict(model.named_parameters())) == len(dict(random_model().named_parameters())) + 2
    with torch.no_grad():
        model.lm_head.weight += 1
    model.tie_weights()  # which does nothing now
    expected = model(**inputs).logits
    model.resize_token_embeddings(SMALL["vocab_size"] + 1)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**inputs).logits[..., :-1], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3, "gnmt_length_penalty": 0.0}])
def test_prefix_tuning_trains_and_decodes_or_is_refused_by_name(options):
    """A prefix is a cache of keys and values that nobody computed from tokens."""
    model, inputs = random_model(), batch()
    labels = inputs.pop("labels")
    adapted = get_peft_model(model, PrefixTuningConfig(**seq2seq(num_virtual_tokens=3)))
    before = adapted(**inputs, labels=labels).loss.item()
    optimizer = torch.optim.Adam([p for p in adapted.parameters() if p.requires_grad], lr=0.3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = adapted.train()(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
    assert adapted.eval()(**inputs, labels=labels).loss < 0.99 * before
    options = {**inputs, **options, "max_new_tokens": 5, "eos_token_id": None, "return_dict_in_generate": True}
    options["output_scores"] = True
    if CACHE == "cache" and version.parse(peft.__version__) < version.parse("0.22"):
        with pytest.raises(TypeError, match="in generate.. with prefix tuning.*: use a newer peft"):
            adapted.generate(**options)
        return
    output = adapted.generate(**options)
    ids = output.sequences
    log_probs = adapted(**inputs, decoder_input_ids=ids[:, :-1]).logits.log_softmax(-1)
    if options["num_beams"] == 1:
        assert torch.equal(ids[:, 1:], log_probs.argmax(-1))
    else:
        totals = log_probs.gather(-1, ids[:, 1:, None]).sum((1, 2))
        torch.testing.assert_close(output.sequences_scores, totals, rtol=0, atol=1e-4)
