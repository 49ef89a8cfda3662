"""Recipes of finished runs: they say what the run was, run as they are, and name no place of the machine."""

import json
import re

import pytest
import yaml
from training_runs import options

from hf_vanilla_transformer.publishing import PublicPaths
from hf_vanilla_transformer.publishing.public_recipe import is_of_this_machine, public_arguments, recipe_text
from hf_vanilla_transformer.training import VanillaTransformerTrainingArguments, parse_arguments, read_recipe
from hf_vanilla_transformer.training.recipes import given_values

PATHS = PublicPaths.parse(["/scratch/words=data/words"])


def given(tmp_path, **changes):
    values = {**options(tmp_path, "/scratch/runs/one"), "train_data": ["/scratch/words/train.jsonl,weight=2"]}
    values |= {"validation_data": ["source=/scratch/words/val.en,target=/scratch/words/val.de"], "r_drop": 0.5}
    found = given_values(VanillaTransformerTrainingArguments(**{**values, **changes}))
    return json.loads(json.dumps(found))  # as results.json has them


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "final_weights": "average",
            "average_last": 3,
            "eval_strategy": "steps",
            "eval_steps": 7,
            "learning_rate": 3e-5,
        },
        {"final_weights": "best", "metric_for_best_model": "bleu", "seed": 7, "save_strategy": "epoch"},
        {"final_weights": "ema", "ema_decay": 0.9, "use_cache": False, "lr_scheduler_type": "cosine", "bf16": True},
    ],
)
def test_a_recipe_is_the_run_it_was_made_of(changes, tmp_path):
    arguments = given(tmp_path, **changes)
    public = public_arguments(arguments, PATHS)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text(public, "mine"))
    again = parse_arguments([str(path), "--use_cpu", "true"])
    assert again.output_dir == "runs/mine"
    # Everything but places and what shows a run: its fields are compared, not what was written about them.
    before = VanillaTransformerTrainingArguments(**{**options(tmp_path, "x"), "r_drop": 0.5, **changes})
    shown = {"output_dir", "run_name", "logging_dir", "data_cache_dir", "disable_tqdm", "train_data", "validation_data"}
    for name in set(VanillaTransformerTrainingArguments.__dataclass_fields__) - shown - {"config_overrides"}:
        if not name.startswith("_"):
            assert getattr(again, name, None) == getattr(before, name, None), name
    recipe = read_recipe(path)
    assert recipe["train_data"] == [{"path": "data/words/train.jsonl", "weight": 2.0}]
    assert recipe["validation_data"] == [{"source": "data/words/val.en", "target": "data/words/val.de"}]
    assert recipe["config_overrides"]["d_model"] == 16
    for name, value in changes.items():
        assert recipe.get(name, getattr(before, name)) == value
    text = path.read_text()
    assert "/scratch" not in text
    assert str(tmp_path) not in text


def test_what_follows_from_other_values_and_what_is_the_machine_s_is_left_out(tmp_path):
    arguments = given(tmp_path, final_weights="average", report_to=[], hub_model_id="me/model")
    assert {"save_total_limit", "use_cpu", "data_cache_dir", "greater_is_better", "hub_model_id"} <= arguments.keys()
    public = public_arguments(arguments, PATHS)
    left_out = {"save_total_limit", "greater_is_better", "use_cpu", "data_cache_dir", "output_dir", "disable_tqdm"}
    assert not public.keys() & {*left_out, "hub_model_id", "report_to", "final_weights", "gradient_checkpointing"}
    assert (public["r_drop"], public["seed"]) == (0.5, 42)


def test_the_recipe_of_a_run_without_validation_text_runs(tmp_path):
    """Such a run turns eval_strategy off, whatever it was told."""
    arguments = given(tmp_path, validation_data=[], eval_strategy="steps", eval_steps=7) | {"eval_strategy": "no"}
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text(public_arguments(arguments, PATHS), "mine"))
    assert parse_arguments([str(path), "--use_cpu", "true"]).eval_strategy == "no"


def test_every_key_has_a_comment_and_lines_fit(tmp_path):
    lines = recipe_text(public_arguments(given(tmp_path), PATHS), "mine").splitlines()
    for line in lines:
        assert len(line) <= 120
        if re.match(r"\w", line):
            assert re.search(r"\s# \S", line), line
    assert yaml.safe_load("\n".join(lines))["preset"] == "tiny"


def test_corpora_keep_their_tags(tmp_path):
    arguments = given(
        tmp_path, train_data=["path=/scratch/words/kor.tsv,tag=kor", "path=/scratch/words/vie.tsv,tag=vie"]
    )
    recipe = public_arguments(arguments, PATHS)
    assert recipe["train_data"] == [{"path": f"data/words/{tag}.tsv", "tag": tag} for tag in ("kor", "vie")]


def test_a_model_that_was_trained_further_is_repeated_by_finetune(tmp_path):
    arguments = {"model_name_or_path": "model_cards/base", "max_steps": 3, "warmup_steps": 4}
    assert "vanilla-transformer finetune recipe.yaml" in recipe_text(public_arguments(arguments, PATHS), "mine")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train_data", ["/elsewhere/train.jsonl"]),
        ("validation_data", ["source=../val.en,target=data/val.de"]),
        ("tokenizer_name_or_path", "/scratch/tokenizer"),
        ("tokenizer_name_or_path", "~/tokenizer"),
        ("tokenizer_name_or_path", "C:\\tokenizer"),
        ("tokenizer_name_or_path", "/scratch/words2/tokenizer"),
    ],
)
def test_a_path_that_others_do_not_have_is_named(name, value):
    with pytest.raises(ValueError, match=rf"{name} of the run is .*, a path that others do not have; say .*--data "):
        public_arguments({"max_steps": 3, name: value}, PATHS)


def test_paths_go_both_ways():
    paths = PublicPaths.parse(["/a/b/=data/x", "/a=data/y"])
    for local, public in (("/a/b/c", "data/x/c"), ("/a/c", "data/y/c"), ("/a/b", "data/x"), ("/ab/c", "/ab/c")):
        assert paths.to_public(local) == public
        assert paths.to_local(public) == local
    for wrong in ("/a", "/a=", "=b", "/a=/b", "/a=../b"):
        with pytest.raises(ValueError, match="is not of the form LOCAL=PUBLIC"):
            PublicPaths.parse([wrong])


def test_what_is_no_path_of_a_machine():
    for text in ("data/x", "bentrevett/multi30k", "cosine", "<2de>", "a..b", "", "no"):
        assert not is_of_this_machine(text)


def test_folders_that_were_named_and_not_met_are_refused(tmp_path):
    paths = PublicPaths.parse(["/scratch/words=data/words", "/scratch/wrods=data/other", "/here=data/read"])
    public_arguments(given(tmp_path, distill_from=["/scratch/words/teacher"]), paths)
    assert paths.to_local("data/read/test.en") == "/here/test.en"
    with pytest.raises(ValueError, match="--data /scratch/wrods=data/other: no text of the runs is in the first"):
        paths.refuse_unused()


def test_teachers_are_called_as_others_call_them(tmp_path):
    public = public_arguments(given(tmp_path, distill_from=["/scratch/words/teacher"]), PATHS)
    assert public["distill_from"] == ["data/words/teacher"]
