"""Adapters of peft from folder to folder: train, save, load by the Auto class, merge, save the merged model."""

import pytest
import torch
from peft import AutoPeftModelForSeq2SeqLM, LoraConfig, get_peft_model
from transformers import AutoModelForSeq2SeqLM

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration

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
