"""Which weights a run ends with: an average only where it is better, and nothing loaded that does not fit."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_runs import arguments, write_text

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.training import pretrain
from hf_vanilla_transformer.training.averaging import average_weights
from hf_vanilla_transformer.training.checkpoints import list_checkpoints
from hf_vanilla_transformer.training.final_weights import load_exactly, take_final_weights

# So short, and with a rate that rises so fast, that older weights are worse ones.
SHORT = {"max_steps": 6, "save_strategy": "steps", "save_steps": 1, "eval_strategy": "no", "warmup_steps": 6}
SHORT |= {"learning_rate": 0.02}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


def saved(folder):
    return load_file(folder / "model.safetensors")


def assert_equal(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("final", "name"), [("average", "average of 5 checkpoints"), ("ema", "moving average")])
def test_a_worse_average_is_said_to_be_and_the_last_update_is_kept(text, tmp_path, package_log, final, name):
    result = pretrain(arguments(text, tmp_path, **SHORT, final_weights=final, ema_decay=0.9))
    assert_equal(saved(tmp_path), saved(list_checkpoints(tmp_path)[-1]))
    assert result.metrics["final_weights"].startswith("last update: loss ")
    said = result.metrics["final_weights"]
    last, average = (float(number) for number in re.findall(r"\d\.\d{4}", said))
    assert last < average
    assert result.metrics["final_loss"] == pytest.approx(last, abs=1e-4)
    assert f"the {name}" in package_log.text
    assert "is worse than the last update, which is kept instead" in package_log.text


def test_a_worse_average_is_kept_where_that_is_asked_for(text, tmp_path, package_log):
    result = pretrain(arguments(text, tmp_path, **SHORT, final_weights="average", keep_worse_average=True))
    assert_equal(saved(tmp_path), average_weights(list_checkpoints(tmp_path)))
    assert result.metrics["final_weights"].startswith("average of 5 checkpoints, though worse: loss ")
    assert "is worse than the last update, and kept" in package_log.text


def test_without_validation_the_average_is_kept_and_that_is_said(text, tmp_path, package_log):
    result = pretrain(arguments(text, tmp_path, **SHORT, final_weights="average", validation_data=[]))
    assert_equal(saved(tmp_path), average_weights(list_checkpoints(tmp_path)))
    assert result.metrics["final_weights"] == "average of 5 checkpoints"
    assert "without a validation set" in package_log.text


def test_where_no_evaluation_was_made_the_last_update_is_not_called_the_best(text, tmp_path, package_log):
    never = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3, "eval_delay": 9}
    result = pretrain(arguments(text, tmp_path, **never, max_steps=3, final_weights="best"))
    assert result.metrics["final_weights"] == "last update (no evaluation was made)"
    assert_equal(saved(tmp_path), saved(list_checkpoints(tmp_path)[-1]))
    assert "final_weights=best keeps the last update: no evaluation was made" in package_log.text


def test_a_run_whose_time_is_up_before_its_first_evaluation_has_a_best(text, tmp_path):
    steps = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3}
    result = pretrain(arguments(text, tmp_path, **steps, max_minutes=1e-9, max_steps=9, final_weights="best"))
    assert result.metrics["final_weights"] == "best loss, update 1"


@pytest.mark.parametrize(
    ("best_step", "log", "reason"),
    [
        (None, [{"loss": 1.0}], "no evaluation was made"),
        (None, [{"eval_loss": math.nan}], "no evaluation found a finite loss"),
        (4, [{"eval_loss": 1.0}], "the best, of update 4, is not there any more"),
    ],
)
def test_it_is_said_why_there_is_no_best(best_step, log, reason):
    state = SimpleNamespace(best_model_checkpoint=None, best_global_step=best_step, log_history=log)
    args = SimpleNamespace(final_weights="best", metric_for_best_model="loss")
    trainer = SimpleNamespace(args=args, state=state, is_world_process_zero=lambda: False)
    trainer.model, trainer.accelerator = None, SimpleNamespace(unwrap_model=lambda model: model)
    assert take_final_weights(trainer) == f"last update ({reason})"


@pytest.fixture
def model():
    torch.manual_seed(0)
    shape = {"d_model": 8, "num_heads": 2, "d_ff": 8, "num_encoder_layers": 1, "num_decoder_layers": 1}
    return VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(vocab_size=11, **shape))


def test_what_is_tied_is_loaded_by_any_of_its_names(model):
    weights = {name: torch.full_like(weight, 0.5) for name, weight in model.named_parameters()}
    (tied,) = (name for name in weights if "embed_tokens" in name)
    weights["lm_head.weight"] = weights.pop(tied)
    load_exactly(model, weights)
    assert all(bool((parameter == 0.5).all()) for parameter in model.parameters())
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("change", ["missing", "foreign", "shape"])
def test_weights_of_another_model_are_refused_and_nothing_is_loaded(model, change):
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    weights = {name: weight + 1 for name, weight in before.items()}
    name = "model.encoder.layers.0.feed_forward.fc1.weight"
    assert name in weights
    if change == "missing":
        del weights[name]
    elif change == "foreign":
        weights["base_model.lora_A"] = torch.zeros(2)
    else:
        weights[name] = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="lora_A" if change == "foreign" else "fc1"):
        load_exactly(model, weights)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


@pytest.mark.parametrize("feature_map", ["random", "cosine_sine"])
def test_random_directions_are_saved_and_not_averaged(feature_map, tmp_path):
    shape = {"d_model": 8, "num_heads": 2, "d_ff": 8, "num_encoder_layers": 1, "num_decoder_layers": 1}
    linear = {"vocab_size": 11, "attention": "linear", "feature_map": feature_map, "num_random_features": 6}
    model, other = (
        VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**shape, **linear, feature_seed=seed))
        for seed in (0, 1)
    )
    for number in (1, 2, 3):
        model.save_pretrained(tmp_path / str(number))
    averaged = average_weights([tmp_path / str(number) for number in (1, 2, 3)])
    assert any("directions" in name for name in averaged)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    load_exactly(model, averaged)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    with pytest.raises(ValueError, match=r"directions is another, and is not learned"):
        load_exactly(other, averaged)


def test_a_plain_module_will_do():
    module = nn.Linear(2, 1)
    load_exactly(module, {"weight": torch.ones(1, 2), "bias": torch.zeros(1)})
    assert module(torch.ones(1, 2)).item() == 2
