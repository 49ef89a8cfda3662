"""The planner: its formulas against what torch counts, and the page against the planner."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hf_vanilla_transformer import (
    VanillaTransformerConfig,
    VanillaTransformerForCausalLM,
    VanillaTransformerForConditionalGeneration,
    VanillaTransformerForMaskedLM,
    attention,
)
from hf_vanilla_transformer.lab import planning
from hf_vanilla_transformer.lab.planning import PLANS, activation_bytes, count_parameters, training_flops
from hf_vanilla_transformer.training import read_recipe

PROJECT = Path(__file__).resolve().parents[1]
SMALL = {
    "vocab_size": 300,
    "d_model": 64,
    "num_heads": 4,
    "d_ff": 160,
    "num_encoder_layers": 3,
    "num_decoder_layers": 2,
}
SENTENCES, SOURCE, TARGET = 6, 23, 17


def small_model(**overrides):
    config = VanillaTransformerConfig(**{**SMALL, "dropout": 0.0, **overrides})
    return VanillaTransformerForConditionalGeneration(config).train()


def batch():
    source = torch.randint(4, SMALL["vocab_size"], (SENTENCES, SOURCE))
    target = torch.randint(4, SMALL["vocab_size"], (SENTENCES, TARGET))
    return source, torch.ones_like(source), target


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"d_k": 8, "d_v": 24},
        {"norm_position": "pre"},
        {"feed_forward": "gated"},
        {"num_key_value_heads": 2},
        {"attention": "linear", "num_key_value_heads": 2},
        {"cross_attention": "linear", "num_key_value_heads": 2},
        {"attention": "linear", "cross_attention": "linear", "feature_map": "cosine_sine", "num_random_features": 9},
    ],
    ids=str,
)
def test_operations_are_what_torch_counts(overrides):
    # Attention and logits written out: of fused ones, torch does not count all.
    model = small_model(**overrides)
    model.set_attn_implementation("eager")
    source, mask, target = batch()
    with FlopCounterMode(display=False) as counter:
        model(input_ids=source, attention_mask=mask, labels=target, return_logits=True).loss.backward()
    assert training_flops(model.config, SENTENCES, SOURCE, TARGET) == pytest.approx(
        counter.get_total_flops(), rel=0.002
    )


@pytest.mark.parametrize("kind", [VanillaTransformerForMaskedLM, VanillaTransformerForCausalLM])
def test_work_and_memory_of_one_stack_are_what_torch_counts(kind):
    shape = {name: value for name, value in SMALL.items() if name not in kind.config_class.fixed_fields}
    model = kind(kind.config_class(**shape)).train()
    assert count_parameters(model.config) == model.num_parameters()
    model.set_attn_implementation("eager")
    text, mask, _ = batch()
    with FlopCounterMode(display=False) as counter:
        model(input_ids=text, attention_mask=mask, labels=text, return_logits=True).loss.backward()
    assert training_flops(model.config, SENTENCES, SOURCE, SOURCE) == pytest.approx(
        counter.get_total_flops(), rel=0.002
    )
    both = VanillaTransformerConfig(**SMALL)
    assert 0 < activation_bytes(model.config, 100, 100, True) < activation_bytes(both, 100, 100, True)


def test_operations_grow_with_sentences_and_faster_than_length():
    config = VanillaTransformerConfig(**SMALL)
    one = training_flops(config, 1, 20, 20)
    assert training_flops(config, 7, 20, 20) == 7 * one
    assert training_flops(config, 1, 40, 40) > 2 * one


@pytest.mark.parametrize("preset", ["tiny", "base"])
def test_parameters_are_those_of_a_model(preset):
    config = VanillaTransformerConfig.from_preset(preset, vocab_size=300)
    model = VanillaTransformerForConditionalGeneration(config)
    assert count_parameters(config) == model.num_parameters()


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_kept_activations_are_what_autograd_keeps(bf16, monkeypatch):
    model = small_model()
    weights = {tuple(shape) for weight in model.parameters() for shape in (weight.shape, weight.shape[::-1])}
    source, mask, target = batch()
    fused = torch.nn.functional.scaled_dot_product_attention

    def as_on_a_gpu(*tensors, **options):  # on CPUs the model leaves attention in fp32 under autocast
        return fused(*(tensor.to(torch.bfloat16 if bf16 else torch.float32) for tensor in tensors), **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", as_on_a_gpu)
    monkeypatch.setattr(attention, "_SHORT", 0)  # on CPUs, attention of short texts is written out in training
    kept = {}

    def keep(tensor):
        if tuple(tensor.shape) not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        model.model(input_ids=source, attention_mask=mask, decoder_input_ids=target)
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    planned = activation_bytes(model.config, SENTENCES * SOURCE, SENTENCES * TARGET, bf16)
    assert planned == pytest.approx(measured, rel=0.05)  # not planned: means and variances, log-sum-exps, token ids


def test_dropout_keeps_a_byte_a_number():
    with_dropout, without = (VanillaTransformerConfig(**SMALL, dropout=dropout) for dropout in (0.1, 0.0))
    more = activation_bytes(with_dropout, 100, 10, True) - activation_bytes(without, 100, 10, True)
    assert more == 64 * (3 * 2 * 100 + 2 * 3 * 10)


@pytest.mark.parametrize(
    ("bf16", "encoder", "decoder", "of_the_source"),
    [(False, (34, 4), (51, 4), (8, 0)), (True, (22, 2), (33, 2), (6, 0))],
    ids=["fp32", "bf16"],
)
def test_bytes_a_token_are_those_in_the_page(bf16, encoder, decoder, of_the_source):
    def bytes_of(config, source, target):
        return activation_bytes(config, source, target, bf16)

    config = VanillaTransformerConfig(num_encoder_layers=5, num_decoder_layers=3, d_model=512, d_ff=2048)
    in_layer = {name: d * 512 + f * 2048 for name, (d, f) in (("e", encoder), ("d", decoder), ("s", of_the_source))}
    assert bytes_of(config, 1, 0) == 5 * in_layer["e"] + 3 * in_layer["s"]
    assert bytes_of(config, 0, 1) == 3 * in_layer["d"]
    rows = [line for line in page().splitlines() if line.startswith("| fp32 |" if not bf16 else "| bf16 |")]
    cells = [f"{d} D + {f} F" if f else f"{d} D" for d, f in (encoder, decoder, of_the_source)]
    assert rows == [f"| {'bf16' if bf16 else 'fp32'} | {' | '.join(cells)} |"]


def test_table_2_costs_are_time_times_gpus_times_nine_and_a_half_tflops():
    plans = {plan.name: plan for plan in PLANS}
    for name, hours in (("wmt14-en-de-base", 12), ("wmt14-en-de-big", 3.5 * 24)):
        assert plans[name].flops_in_paper == pytest.approx(hours * 3600 * 8 * 9.5e12, rel=0.01)
    busy = [plans[name].flops / plans[name].flops_in_paper for name in ("wmt14-en-de-base", "wmt14-en-de-big")]
    assert [f"{share:.0%}" for share in busy] == ["29%", "42%"]
    assert "29 % for base, 42 % for big" in page()


@pytest.mark.parametrize("plan", [plan for plan in PLANS if "beyond" not in plan.name], ids=lambda plan: plan.name)
def test_a_plan_is_of_the_recipe_that_it_is_named_after(plan):
    recipe = read_recipe(PROJECT / "hf_vanilla_transformer" / "recipes" / f"{plan.name}.yaml")
    assert (recipe["preset"], recipe["vocab_size"]) == (plan.preset, plan.vocab_size)
    if "max_steps" in recipe:
        assert (recipe["max_steps"], 8 * recipe["max_tokens"]) == (plan.updates, plan.tokens)
    else:
        assert (recipe["num_train_epochs"] * recipe["save_steps"], recipe["max_tokens"]) == (plan.updates, plan.tokens)


def test_measured_seconds_are_those_of_the_benchmarks():
    readme = (PROJECT / "scripts" / "BENCHMARKS.md").read_text(encoding="utf-8")
    for seconds in planning.MEASURED_SECONDS.values():
        assert f"| {seconds * 1000:,.0f} ms |" in readme


def page():
    return (PROJECT / "hf_vanilla_transformer" / "recipes" / "README.md").read_text(encoding="utf-8")


def test_the_page_has_what_the_script_prints(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["plan.py"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(PROJECT / "scripts" / "plan.py"), run_name="__main__")
    assert capsys.readouterr().out.strip() == planning.plan_table()
    between = page().split("<!-- plan: begin -->")[1].split("<!-- plan: end -->")[0]
    assert between.strip() == planning.plan_table()


def test_the_page_names_every_recipe():
    folder = PROJECT / "hf_vanilla_transformer" / "recipes"
    for path in folder.glob("*.yaml"):
        assert f"({path.name})" in page(), path.name
