"""Options without effect: each is refused as an argument, in a recipe and as a flag, with what to use instead."""

import dataclasses
import re
from types import SimpleNamespace

import pytest
from transformers import Seq2SeqTrainingArguments

from hf_vanilla_transformer.training import VanillaTransformerTrainingArguments, parse_arguments, refused_options
from hf_vanilla_transformer.training.refused_options import REFUSED, refuse_options

FIELDS = {field.name: field for field in dataclasses.fields(VanillaTransformerTrainingArguments)}
# Some value that asks for something, where a boolean would do no good.
ASKING = {
    "label_smoothing_factor": 0.1,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 4,
    "train_sampling_strategy": "group_by_length",
    "length_column_name": "size",
    "dataloader_prefetch_factor": 2,
    "dataloader_multiprocessing_context": "spawn",
    "label_names": ["labels"],
    "generation_max_length": 100,
    "eval_accumulation_steps": 2,
    "include_for_metrics": ["loss"],
}
HERE = [name for name in REFUSED if name in FIELDS]


def asking(name):
    return ASKING.get(name, not REFUSED[name][0])


@pytest.mark.parametrize("name", HERE)
def test_an_option_without_effect_is_refused_wherever_it_stands(name, tmp_path):
    expected = re.escape(REFUSED[name][1])
    # Beside it, what transformers itself asks for before it lets the option through.
    beside = {"dataloader_num_workers": 1} if name.startswith("dataloader_") else {}
    value = asking(name)
    with pytest.raises(ValueError, match=expected):
        VanillaTransformerTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **{name: value}, **beside)
    words = [str(each) for each in value] if isinstance(value, list) else [str(value)]
    flags = ["--output_dir", str(tmp_path), "--use_cpu", *(f"--{key}={text}" for key, text in beside.items())]
    with pytest.raises(ValueError, match=expected):
        parse_arguments([*flags, f"--{name}", *words])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{name}: {value}\n")
    with pytest.raises(ValueError, match=expected):
        parse_arguments([str(recipe), *flags])


def test_the_value_that_asks_for_nothing_is_the_default(tmp_path):
    args = VanillaTransformerTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    for name in HERE:
        assert getattr(args, name) == REFUSED[name][0], name


def test_names_are_those_of_some_version_of_transformers():
    gone = set(REFUSED) - {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}
    assert gone <= {"group_by_length", "train_sampling_strategy"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"continue_schedule": True, "lr_scheduler_type": "cosine"}, "continue_schedule=True .*=cosine: only inverse_"),
        ({"lr_scheduler_kwargs": {"timescale": 9}}, "lr_scheduler_kwargs={'timescale': 9} has no effect"),
        ({"load_best_model_at_end": True, "final_weights": "last"}, "use final_weights=best"),
        ({"eval_steps": 9}, "eval_steps=9 has no effect with eval_strategy=epoch; use eval_strategy=steps"),
        ({"save_steps": 9}, "save_steps=9 has no effect with save_strategy=epoch"),
        ({"accelerator_config": {"split_batches": True}}, "split_batches has no effect here"),
        ({"model_name_or_path": "{out}"}, "is the folder of model_name_or_path, which the run would overwrite"),
        ({"model_name_or_path": "{out}/../run/"}, "is the folder of model_name_or_path"),
    ],
)
def test_options_that_depend_on_others_are_refused_without_these(options, message, tmp_path):
    out = tmp_path / "run"
    options = {name: str(value).format(out=out) if "{out}" in str(value) else value for name, value in options.items()}
    with pytest.raises(ValueError, match=message):
        VanillaTransformerTrainingArguments(output_dir=str(out), use_cpu=True, **options)


def test_a_tracker_that_is_not_installed_is_refused_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(refused_options, "get_available_reporting_integrations", lambda: ["wandb"])
    options = {"output_dir": str(tmp_path), "use_cpu": True}
    with pytest.raises(ValueError, match="report_to=tensorboard needs a package that is not installed"):
        VanillaTransformerTrainingArguments(report_to=["tensorboard", "wandb"], **options)
    for report_to in ("wandb", "none", "all"):
        VanillaTransformerTrainingArguments(report_to=report_to, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"continue_schedule": True, "model_name_or_path": "elsewhere"},
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 2}},
        {"final_weights": "best"},
        {"eval_strategy": "steps", "eval_steps": 9, "save_strategy": "steps", "save_steps": 9},
        {"model_name_or_path": "{out}/checkpoint-3"},
    ],
)
def test_what_has_an_effect_is_taken(options, tmp_path):
    options = {name: value.format(out=tmp_path) if isinstance(value, str) else value for name, value in options.items()}
    VanillaTransformerTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options)


def test_versions_without_an_option_are_served_too(tmp_path):
    args = VanillaTransformerTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    few = {name: value for name, value in vars(args).items() if name not in REFUSED}
    refuse_options(SimpleNamespace(**few))
    with pytest.raises(ValueError, match="group_by_length=True has no effect"):
        refuse_options(SimpleNamespace(**few, group_by_length=True))
