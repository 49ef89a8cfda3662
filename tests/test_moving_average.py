"""The moving average, against its formula in float64; its count of updates is part of it."""

import pytest
import torch
from accelerate.utils import DistributedType
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.training.moving_average import MovingAverage, refuse_divided_weights


def step(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99, 1.0])
def test_the_moving_average_follows_its_formula(decay):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    average = MovingAverage(model, decay)
    expected = {name: weight.detach().double().clone() for name, weight in model.named_parameters()}
    for update in range(1, 21):
        step(model)
        average.update(model)
        stays = min(decay, (1 + update) / (10 + update))
        for name, weight in model.named_parameters():
            expected[name] = stays * expected[name] + (1 - stays) * weight.detach().double()
    assert average.weights.keys() == expected.keys()
    for name, weight in average.weights.items():
        torch.testing.assert_close(weight.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_a_short_run_does_not_end_with_its_initial_weights():
    """168 updates at 0.999: with the full decay at once, 0.999^168 = 85 % of the average were initial."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average = MovingAverage(model, 0.999)
    with torch.no_grad():
        model.weight.fill_(0.0)
    for _ in range(168):
        average.update(model)
    assert average.weights["weight"].item() < 1e-6


def test_the_average_does_not_change_with_the_model():
    model = nn.Linear(3, 4)
    average = MovingAverage(model, 0.9)
    before = {name: weight.clone() for name, weight in average.weights.items()}
    step(model)
    assert all(torch.equal(average.weights[name], before[name]) for name in before)


def test_the_average_is_applied_for_a_while_and_the_weights_come_back():
    model = nn.Linear(3, 4)
    average = MovingAverage(model, 0.5)
    step(model)
    average.update(model)
    own = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    with average.applied_to(model):
        for name, weight in model.named_parameters():
            assert torch.equal(weight, average.weights[name])
            assert not torch.equal(weight, own[name])
    assert all(torch.equal(weight, own[name]) for name, weight in model.named_parameters())
    with pytest.raises(RuntimeError, match="while evaluating"), average.applied_to(model):
        raise RuntimeError("while evaluating")
    assert all(torch.equal(weight, own[name]) for name, weight in model.named_parameters())
    average.copy_to(model)
    assert all(torch.equal(weight, average.weights[name]) for name, weight in model.named_parameters())
    assert all(weight.requires_grad for weight in model.parameters())


def test_the_average_is_saved_with_its_count_and_goes_on_as_if_it_had_not_been(tmp_path):
    model = nn.Linear(3, 4)
    average = MovingAverage(model, 0.99)
    for _ in range(3):
        step(model)
        average.update(model)
    average.save(tmp_path / "average.safetensors")
    with safe_open(tmp_path / "average.safetensors", "pt") as file:
        assert file.metadata() == {"updates": "3"}
    again = MovingAverage(model, 0.99)
    again.load(tmp_path / "average.safetensors")
    for _ in range(3):
        assert all(torch.equal(average.weights[name], again.weights[name]) for name in average.weights)
        step(model)
        average.update(model)
        again.update(model)


def test_a_file_that_is_no_such_average_is_named_and_changes_nothing(tmp_path):
    average = MovingAverage(nn.Linear(3, 4), 0.5)
    before = {name: weight.clone() for name, weight in average.weights.items()}
    path, weights = tmp_path / "average.safetensors", {name: weight + 1 for name, weight in before.items()}
    for contents, problem in (
        ({**weights}, "does not say of how many updates"),
        ({"weight": weights["weight"]}, "do not both have bias"),
        ({**weights, "bias": torch.ones(5)}, r"bias is \(5,\), in the model \(4,\)"),
    ):
        metadata = None if contents.keys() == before.keys() and len(contents["bias"]) == 4 else {"updates": "1"}
        save_file(contents, path, metadata=metadata)
        with pytest.raises(ValueError, match=problem):
            average.load(path)
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="is no safetensors file"):
        average.load(path)
    assert average.updates == 0
    assert all(torch.equal(average.weights[name], before[name]) for name in before)


def test_tied_weights_are_averaged_once_and_stay_tied(tmp_path):
    config = VanillaTransformerConfig.from_preset("tiny", vocab_size=50, d_model=16, num_heads=2, d_ff=16)
    model = VanillaTransformerForConditionalGeneration(config)
    average = MovingAverage(model, 0.5)
    assert average.weights.keys() == dict(model.named_parameters()).keys()
    step(model)
    average.update(model)
    average.save(tmp_path / "average.safetensors")
    assert (
        not {"lm_head.weight", "model.decoder.embed_tokens.weight"} & load_file(tmp_path / "average.safetensors").keys()
    )
    with average.applied_to(model):
        average_of_all = average.weights["model.encoder.embed_tokens.weight"]
        for part in (model.get_input_embeddings(), model.model.decoder.embed_tokens, model.lm_head):
            assert part.weight is model.get_input_embeddings().weight
            assert torch.equal(part.weight, average_of_all)


@pytest.mark.parametrize(
    ("engine", "zero_stage", "average", "ema"),
    [
        (DistributedType.NO, 0, True, True),
        (DistributedType.MULTI_GPU, 0, True, True),
        (DistributedType.FSDP, 0, False, False),
        (DistributedType.DEEPSPEED, 2, True, False),
        (DistributedType.DEEPSPEED, 3, False, False),
        (DistributedType.MEGATRON_LM, 0, False, False),
    ],
)
def test_averages_are_refused_where_an_engine_has_the_weights(engine, zero_stage, average, ema):
    for final_weights, allowed in (("last", True), ("best", True), ("average", average), ("ema", ema)):
        if allowed:
            refuse_divided_weights(final_weights, engine, zero_stage)
        else:
            with pytest.raises(ValueError, match=f"^final_weights={final_weights} .* last or best.*[^\n]$"):
                refuse_divided_weights(final_weights, engine, zero_stage)
