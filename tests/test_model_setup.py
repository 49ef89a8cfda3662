"""What a run begins with: overrides as they are written, and which parts of a model learn."""

import json

import pytest
from commanding import save_translator
from safetensors.torch import load_file, save_file
from training_runs import arguments

from hf_vanilla_transformer.data import train_tokenizer
from hf_vanilla_transformer.lab.ablations import AblatedTransformer
from hf_vanilla_transformer.training.model_setup import (
    _updates_done,
    build_model,
    learned_positions,
    model_class,
    parse_overrides,
)
from hf_vanilla_transformer.training.resuming import RUN_FILE, RunIdentity


def test_overrides_are_literals_or_strings_or_mappings_and_otherwise_refused():
    assert parse_overrides(["dropout=0.2", "norm_position=pre", "d_k=None", "attention_bias=True", "d_ff=64"]) == {
        "dropout": 0.2,
        "norm_position": "pre",
        "d_k": None,
        "attention_bias": True,
        "d_ff": 64,
    }
    assert parse_overrides({"dropout": 0.2}) == parse_overrides([{"dropout": 0.2}]) == {"dropout": 0.2}
    with pytest.raises(ValueError, match="'dropout' is not of the form NAME=VALUE"):
        parse_overrides(["dropout"])


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(texts=["red dog RED DOG"], vocab_size=265, min_frequency=1)


def built(tokenizer, folder, **options):
    return build_model(arguments(folder, folder / "run", **options), tokenizer)[0]


def test_parts_that_are_frozen_by_being_tied_are_named(tokenizer, tmp_path, package_log):
    model = built(tokenizer, tmp_path, frozen_modules=["model.encoder"])
    assert "model.decoder.embed_tokens and lm_head do not learn either" in package_log.text
    assert "name model.encoder.layers" in package_log.text
    frozen = {name for name, weight in model.named_parameters(remove_duplicate=False) if not weight.requires_grad}
    also = {"lm_head.weight", "model.decoder.embed_tokens.weight"}
    assert frozen == also | {f"model.encoder.{name}" for name, _ in model.model.encoder.named_parameters()}


@pytest.mark.parametrize("changes", [{"frozen_modules": ["model.encoder.layers"]}, {"frozen_modules": []}])
def test_nothing_is_said_where_nothing_else_is_frozen(changes, tokenizer, tmp_path, package_log):
    model = built(tokenizer, tmp_path, **changes)
    assert "do not learn" not in package_log.text
    assert all(weight.requires_grad for name, weight in model.named_parameters() if ".encoder.layers." not in name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frozen_modules": ["model"]}, "^frozen_modules=model leaves nothing to learn; name fewer parts$"),
        ({"frozen_modules": ["encoder"]}, "frozen_modules: the model has no 'encoder'"),
        ({"frozen_modules": ["model.encoder"], "new_tokens": ["<2de>"]}, "new tokens do not learn in a frozen embedd"),
        (
            {"frozen_modules": ["model.encoder.layers", "model.decoder.layers"], "lora_rank": 2},
            "nothing is left to learn",
        ),
    ],
)
def test_parts_that_leave_nothing_to_learn_are_refused_in_one_line(options, message, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=message) as raised:
        built(tokenizer, tmp_path, **options)
    assert "\n" not in str(raised.value)


def truncated(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])


def without_a_weight(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.decoder.layers.0.self_attention.q_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def not_finite(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.decoder.layers.0.self_attention.q_proj.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def of_another_kind(folder):
    config = {**json.loads((folder / "config.json").read_text()), "model_type": "gpt2", "is_encoder_decoder": False}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "overrides", "message"),
    [
        (truncated, [], "is damaged or truncated"),
        (without_a_weight, [], "has no model.decoder.layers.0.self_attention.q_proj.weight"),
        (not_finite, [], "are not finite"),
        (of_another_kind, [], "it is a gpt2 model"),
        (None, ["num_encoder_layers=3"], "but by config.json and num_encoder_layers the model has one"),
        (None, ["norm_position=pre"], "but by config.json and norm_position the model has one"),
        (None, ["d_ff=40"], "by config.json and d_ff; these do not belong together"),
    ],
)
def test_a_model_whose_weights_are_not_all_there_is_not_trained_further(change, overrides, message, tmp_path):
    folder = tmp_path / "model"
    _, tokenizer = save_translator(folder)
    if change is not None:
        change(folder)
    args = arguments(tmp_path, tmp_path / "run", model_name_or_path=str(folder), config_overrides=overrides)
    with pytest.raises(ValueError, match=message) as raised:
        build_model(args, tokenizer)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("given", "new", "old"), [(None, 0.6, 1.8), (1.4, 1.4, 1.4), (0.0, 0.0, 0.0)])
def test_section_6_1_the_length_penalty_of_a_run_is_saved_with_its_model(given, new, old, tokenizer, tmp_path):
    assert built(tokenizer, tmp_path, gnmt_length_penalty=given).generation_config.gnmt_length_penalty == new
    folder = tmp_path / "model"
    model, own = save_translator(folder)
    model.generation_config.gnmt_length_penalty = 1.8
    model.generation_config.length_penalty = None if given is None else 2.0
    model.generation_config.save_pretrained(folder)
    for more in ({}, {"lora_rank": 2}):
        again = built(own, tmp_path, model_name_or_path=str(folder), gnmt_length_penalty=given, **more)
        assert again.generation_config.gnmt_length_penalty == old
        assert again.generation_config.to_dict().get("length_penalty") is None


def test_a_model_that_there_is_not_is_named_before_text_is_read(tmp_path):
    args = arguments(tmp_path, tmp_path / "run", model_name_or_path="own/name")
    with pytest.raises(FileNotFoundError, match="there is no folder own/name, and no such model could be loaded"):
        learned_positions(args)


ABLATED = "hf_vanilla_transformer.lab.ablations:AblatedTransformer"


def test_a_new_model_may_be_of_another_class_with_fields_of_its_own(tokenizer, tmp_path):
    shape = {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_learned_positions": 9, "position_encoding": "learned"}
    overrides = [{**shape, "layer_norm": False}]
    model = built(tokenizer, tmp_path, model_class=ABLATED, config_overrides=overrides)
    assert type(model) is AblatedTransformer
    assert not model.config.layer_norm
    assert model.config.vocab_size == len(tokenizer)
    args = arguments(tmp_path, tmp_path / "run", model_class=ABLATED, config_overrides=overrides)
    assert learned_positions(args) == 9
    with pytest.raises(ValueError, match="the configuration has no field 'layer_norm'"):
        built(tokenizer, tmp_path, config_overrides=overrides)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("AblatedTransformer", "is not of the form MODULE:CLASS, such as"),
        ("hf_vanilla_transformer.lab.ablations:", "is not of the form MODULE:CLASS"),
        ("hf_vanilla_transformer.lab.albations:AblatedTransformer", "cannot be imported: No module named"),
        ("hf_vanilla_transformer.lab.ablations:Ablated", "cannot be imported: module .* has no attribute 'Ablated'"),
        ("hf_vanilla_transformer.lab.ablations:strict", "is no PreTrainedModel with a config_class"),
        ("transformers:MarianMTModel", "is no PreTrainedModel with a config_class that has `from_preset`"),
    ],
)
def test_what_is_no_class_of_models_is_refused_in_one_line(name, message):
    with pytest.raises(ValueError, match=f"^model_class='{name}' {message}") as raised:
        model_class(name)
    assert "\n" not in str(raised.value)


def saved_run(folder, state=None, first_update=None, updates=None):
    """A model with the numbers that a checkpoint or the end of a run has."""
    folder.mkdir()
    if state is not None:
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": state}))
        RunIdentity({} if first_update is None else {"first_update": first_update}).write(folder)
    else:
        metrics = {"updates": updates} | ({} if first_update is None else {"first_update": first_update})
        (folder / "results.json").write_text(json.dumps({"metrics": metrics}))
    return str(folder)


@pytest.mark.parametrize("first_update", [None, 1000])
def test_a_schedule_is_as_far_as_all_runs_before_have_brought_it(tmp_path, first_update):
    before = first_update or 0
    assert _updates_done(saved_run(tmp_path / "checkpoint-300", 300, first_update)) == before + 300
    assert _updates_done(saved_run(tmp_path / "end", first_update=first_update, updates=500)) == before + 500
    (tmp_path / "checkpoint-300" / RUN_FILE).unlink()  # as one of another trainer
    assert _updates_done(str(tmp_path / "checkpoint-300")) == 300
