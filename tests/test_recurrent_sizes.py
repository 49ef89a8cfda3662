"""Models of equal size; and those of the list of experiments are."""

from pathlib import Path

import pytest

from hf_vanilla_transformer.lab.planning import count_parameters
from hf_vanilla_transformer.lab.recurrent import RecurrentForConditionalGeneration
from hf_vanilla_transformer.lab.recurrent_configuration import RECURRENT_PRESETS, RecurrentConfig
from hf_vanilla_transformer.lab.recurrent_sizes import with_parameters
from hf_vanilla_transformer.lab.run_list import read_run_list
from hf_vanilla_transformer.training.config_overrides import parse_overrides
from hf_vanilla_transformer.training.model_setup import model_class

LIST = Path(__file__).resolve().parents[1] / "model_cards" / "experiments" / "recurrent.yaml"


def test_parameters_are_counted_as_a_built_model_has_them():
    config = RecurrentConfig(vocab_size=30, d_model=8, attention="additive")
    model = RecurrentForConditionalGeneration(config)
    assert count_parameters(config) == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("preset", RECURRENT_PRESETS)
def test_the_nearest_width_is_found(preset):
    config = RecurrentConfig.from_preset(preset, vocab_size=100, num_layers=3)
    found = with_parameters(config, 20_000, tolerance=0.5)
    distances = {}
    for width in (found.d_model - 2, found.d_model, found.d_model + 2):
        config.d_model = width
        distances[width] = abs(count_parameters(config) - 20_000)
    assert min(distances, key=distances.get) == found.d_model


def test_a_number_that_no_width_comes_near_is_refused():
    with pytest.raises(ValueError, match=r"no width has 700 parameters: the nearest is `d_model`=\d+ with"):
        with_parameters(RecurrentConfig(vocab_size=100), 700)


def test_the_models_of_the_experiment_have_equally_many_parameters_and_minutes_and_two_rates():
    runs = read_run_list(LIST).runs
    counts, rates = {}, {}
    for each in runs:
        args = each.arguments
        kind = model_class(args.model_class).config_class
        overrides = parse_overrides(args.config_overrides, kind)
        counts[each.name] = count_parameters(kind.from_preset(args.preset, vocab_size=args.vocab_size, **overrides))
        rates.setdefault(args.preset, []).append(args.learning_rate)
    assert runs[0].arguments.preset == "tiny"
    assert all(abs(count - 1_830_000) < 18_300 for count in counts.values()), counts
    assert rates == {preset: [1e-3, 3e-3] for preset in (*RECURRENT_PRESETS, "tiny")}
    differing = {"model_class", "preset", "config_overrides", "output_dir", "learning_rate"}
    settings = [{name: value for name, value in each.values.items() if name not in differing} for each in runs]
    assert all(each == settings[0] for each in settings)
    assert settings[0]["max_minutes"] > 0
    assert settings[0]["eval_steps"] == 100
