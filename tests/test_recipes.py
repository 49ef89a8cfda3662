"""Runs as files: YAML with every mistake named by line, and flags that override it."""

import json
from pathlib import Path

import pytest
from transformers.trainer_utils import SchedulerType

from hf_vanilla_transformer.training import VanillaTransformerTrainingArguments, parse_arguments, read_recipe
from hf_vanilla_transformer.training.recipes import RECIPES, find_recipe, given_values, recipe_names, resolve_options


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the default output_dir would be

    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_a_recipe_is_read_as_it_stands(recipe):
    path = recipe("# a comment\nmax_tokens: 4096\ntrain_data:\n- a.tsv\n- {path: b.tsv, weight: 2}\npreset: tiny\n")
    assert read_recipe(path) == {
        "max_tokens": 4096,
        "train_data": ["a.tsv", {"path": "b.tsv", "weight": 2}],
        "preset": "tiny",
    }


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("learning_rate: 5e-3", "learning_rate", 0.005),  # text, for YAML 1.1
        ("learning_rate: '0.1'", "learning_rate", 0.1),
        ("adam_epsilon: 1e-9", "adam_epsilon", 1e-9),
        ("max_grad_norm: 1", "max_grad_norm", 1.0),
        ("warmup_steps: 600", "warmup_steps", 600),
        ("bf16: true", "bf16", True),
        ("drop_duplicates: yes", "drop_duplicates", True),
        ("max_length_ratio: null", "max_length_ratio", None),
        ("learning_rate:", "learning_rate", None),
        ("lr_scheduler_type: cosine", "lr_scheduler_type", SchedulerType.COSINE),
        ("lr_scheduler_type: cosine\nlr_scheduler_kwargs: {num_cycles: 2}", "lr_scheduler_kwargs", {"num_cycles": 2}),
        (
            "config_overrides: [dropout=0.2, norm_position=pre]",
            "config_overrides",
            ["dropout=0.2", "norm_position=pre"],
        ),
        ("train_data: a.jsonl", "train_data", ["a.jsonl"]),
        ("train_data: {source: a, target: b}", "train_data", [{"source": "a", "target": "b"}]),
        ("target_lang: 'no'", "target_lang", "no"),
    ],
)
def test_values_have_the_type_of_their_argument(recipe, line, name, value):
    found = getattr(parse_arguments([recipe(f"use_cpu: true\noutput_dir: run\n{line}\n")]), name)
    assert found == value
    assert type(found) is type(value) or isinstance(value, int)


def test_what_is_in_no_recipe_is_the_default(recipe):
    args = parse_arguments([recipe("use_cpu: true\npreset: tiny\noutput_dir: run\n")])
    expected = VanillaTransformerTrainingArguments(use_cpu=True, preset="tiny", output_dir="run")
    assert args.to_dict() == expected.to_dict()


def test_flags_override_a_recipe_which_comes_first(recipe, capsys):
    path = recipe(
        "max_tokens: 4096\nvocab_size: 4000\ntrain_data: [a.tsv, b.tsv]\ndrop_duplicates: true\n"
        "use_cpu: true\noutput_dir: x\n"
    )
    flags = ["--train_data", "c.tsv", "--drop_duplicates", "false", "--max_tokens", "512"]
    args = parse_arguments([path, *flags])
    assert (args.max_tokens, args.vocab_size, args.train_data) == (512, 4000, ["c.tsv"])
    assert args.drop_duplicates is False
    with pytest.raises(SystemExit):
        parse_arguments([*flags, path])
    assert "a recipe comes first" in capsys.readouterr().err


def test_flags_alone_will_do(tmp_path):
    words = [
        "--output_dir",
        str(tmp_path),
        "--use_cpu",
        "--train_data",
        "a",
        "path=b,weight=2",
        "--learning_rate",
        "5e-3",
    ]
    args = parse_arguments(words)
    assert (args.train_data, args.learning_rate, args.output_dir) == (["a", "path=b,weight=2"], 0.005, str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2\n", r"recipe\.yaml is no YAML: (.|\n)*line 2"),
        ("a: 1\n  b: 2\n", r"recipe\.yaml is no YAML: (.|\n)*line 2"),
        ("? [a]\n: 1\n", r"recipe\.yaml is no YAML: "),
        ("", "expected `key: value` lines, got None"),
        ("# only a comment\n", "expected `key: value` lines, got None"),
        ("- max_tokens\n", r"expected `key: value` lines, got \['max_tokens'\]"),
        ("max_tokens\n", "expected `key: value` lines, got 'max_tokens'"),
        ("seed: 1\n\nmax_token: 3\n", "line 3: unknown option 'max_token'; did you mean max_tokens"),
        ("seed: 1\nxyzzy: 3\n", "line 2: unknown option 'xyzzy'$"),
        ("seed: 1\n5: 3\n", "line 2: unknown option '5'"),
        ("_n_gpu: 1\n", "line 1: unknown option '_n_gpu'"),
        ("seed: 1\nmax_tokens: 3\nseed: 2\n", "line 3: seed was given before"),
        ("seed: 1\nmax_tokens: many\n", "line 2: max_tokens: expected a whole number, got 'many'"),
        ("max_tokens: 3.5\n", "line 1: max_tokens: expected a whole number, got 3.5"),
        ("max_tokens: true\n", "line 1: max_tokens: expected a whole number, got True"),
        ("max_tokens: [1]\n", r"line 1: max_tokens: expected a whole number, got \[1\]"),
        ("seed: 1\n\nmax_tokens:\n", "line 3: max_tokens: expected a whole number, got None"),
        ("learning_rate: fast\n", "line 1: learning_rate: expected a number, got 'fast'"),
        ("r_drop: true\n", "line 1: r_drop: expected a number, got True"),
        ("streaming: perhaps\n", "line 1: streaming: expected true or false, got 'perhaps'"),
        ("streaming: 2\n", "line 1: streaming: expected true or false, got 2"),
    ],
)
def test_a_mistake_in_a_recipe_is_named_with_its_line(recipe, text, message):
    for read in (read_recipe, lambda path: parse_arguments([path])):
        with pytest.raises(ValueError, match=message) as caught:
            read(recipe(text))
        assert "recipe.yaml" in str(caught.value)


def test_values_that_do_not_fit_together_are_refused_from_a_recipe_too(recipe):
    with pytest.raises(ValueError, match="streaming needs max_steps"):
        parse_arguments([recipe("streaming: true\nuse_cpu: true\noutput_dir: run\n")])


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.yaml"):
        read_recipe(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"seed: 1\npreset: \xe4\n")
    with pytest.raises(ValueError, match=r"latin\.yaml, line 2: not UTF-8"):
        read_recipe(tmp_path / "latin.yaml")


def test_help_names_the_recipes_and_shows_what_one_says(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["multi30k-en-de-tiny", "--help"], "Trains.", "An example.")
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in recipe_names())
    assert "[runs/multi30k-en-de-tiny]" in shown


def test_given_values_repeat_the_run(recipe, tmp_path):
    text = "max_tokens: 4096\ntrain_data: [{path: b.tsv, weight: 2}]\nlr_scheduler_type: cosine\nlearning_rate: 5e-3\n"
    args = parse_arguments([recipe(text + "use_cpu: true\noutput_dir: run\naverage_last: 8\nnum_train_epochs: 30\n")])
    given = given_values(args)
    assert given["max_tokens"] == 4096
    assert given["average_last"] == 8
    assert "vocab_size" not in given
    again = parse_arguments([recipe(json.dumps(given))])  # JSON is YAML
    assert again.to_dict() == args.to_dict()
    assert json.dumps(given_values(again)) == json.dumps(given)


def test_the_recipes_of_the_package_are_found_by_name_from_anywhere(recipe):
    assert recipe_names() == sorted(path.stem for path in RECIPES.glob("*.yaml"))
    for name in recipe_names():
        assert find_recipe(name) == RECIPES / f"{name}.yaml"
        assert read_recipe(name)["train_data"]
    assert parse_arguments(["multi30k-en-de-tiny", "--use_cpu"]).output_dir == "runs/multi30k-en-de-tiny"


def test_a_file_wins_over_the_recipe_of_its_name(recipe):
    Path(recipe("seed: 3\n")).rename("quickstart")
    assert read_recipe("quickstart") == {"seed": 3}


@pytest.mark.parametrize(
    ("name", "hint"), [("multi30k-en-de", "did you mean multi30k-en-de-tiny"), ("quickstart.yml", "mean quickstart;")]
)
def test_an_unknown_recipe_is_told_the_names_of_those_there_are(recipe, name, hint):
    with pytest.raises(FileNotFoundError, match=hint) as caught:
        read_recipe(name)
    for known in recipe_names():
        assert known in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("word", ["no", "No", '"no"'])
def test_a_bare_no_is_a_strategy(recipe, word):
    args = parse_arguments([recipe(f"save_strategy: {word}\n"), "--final_weights", "last", "--output_dir", "x"])
    assert args.save_strategy == "no"


def test_norwegian_is_a_language_and_true_is_no_text(recipe):
    assert read_recipe(recipe("source_lang: no\ntarget_lang: on\n")) == {"source_lang": "no", "target_lang": "on"}
    assert read_recipe(recipe("bf16: no\nstreaming: on\n")) == {"bf16": False, "streaming": True}


def test_where_a_run_is_written_has_to_be_said(recipe):
    with pytest.raises(ValueError, match="output_dir is needed.*--output_dir runs/mine"):
        parse_arguments([recipe("use_cpu: true\n")])
    assert parse_arguments([recipe("use_cpu: true\n"), "--output_dir", "there"]).output_dir == "there"
    assert parse_arguments([recipe("output_dir: here\n"), "--use_cpu"]).output_dir == "here"


MODEL, TOKENIZER = ("model_name_or_path", "m"), ("tokenizer_name_or_path", "t")


@pytest.mark.parametrize(
    ("in_recipe", "in_flags", "void"),
    [
        ({}, dict([MODEL, ("preset", "base")]), "preset"),  # though it is the default
        ({}, dict([MODEL, ("model_class", "m:C")]), "model_class"),
        ({}, dict([MODEL, ("vocab_size", 37000), ("preset", "big")]), "preset and vocab_size"),
        ({}, dict([TOKENIZER, ("num_sentinels", 9)]), "num_sentinels"),
        (dict([MODEL, ("preset", "tiny")]), {}, "preset"),
        (dict([MODEL]), {"preset": "tiny"}, "preset"),
        (dict([TOKENIZER]), {"vocab_size": 300}, "vocab_size"),
    ],
)
def test_what_a_given_model_or_tokenizer_makes_void_is_refused(recipe, in_recipe, in_flags, void):
    words = [word for name, value in in_flags.items() for word in (f"--{name}", str(value))]
    path = recipe(json.dumps({"use_cpu": True, "output_dir": "x", **in_recipe}))
    with pytest.raises(ValueError, match=f"^{void} would have no effect: (model|tokenizer)_name_or_path=[mt] "):
        parse_arguments([path, *words])


def test_a_model_that_is_given_by_a_flag_overrides_the_preset_of_a_recipe(recipe):
    path = recipe("use_cpu: true\noutput_dir: x\npreset: big\nvocab_size: 300\n")
    args = parse_arguments([path, "--model_name_or_path", "m"])
    assert (args.model_name_or_path, args.preset, args.vocab_size) == ("m", "base", 37000)
    assert given_values(args).keys().isdisjoint({"preset", "vocab_size"}), "the run can be repeated from these"
    args = parse_arguments([path, "--tokenizer_name_or_path", "t"])
    assert (args.preset, args.vocab_size) == ("big", 37000)


@pytest.mark.parametrize(
    ("flags", "needed"),
    [
        (["--noise_density", "0.3"], "objective=span_corruption or masked_lm or denoising"),
        (["--mean_span_length", "2"], "objective=span_corruption or denoising"),
        (["--denoising_steps", "token_masking"], "objective=denoising"),
        (["--shuffle_buffer", "9"], "streaming"),
        (["--lora_modules", "q_proj"], "lora_rank"),
        (["--continue_schedule", "true"], "model_name_or_path"),
        (["--average_last", "3", "--final_weights", "last"], "final_weights=average"),
        (["--ema_decay", "0.9"], "final_weights=ema"),
        (["--keep_worse_average", "true", "--final_weights", "last"], "final_weights=average or ema"),
        (["--save_steps", "7", "--save_strategy", "no", "--final_weights", "last"], "save_strategy=steps"),
        (["--eval_steps", "7", "--eval_strategy", "no"], "eval_strategy=steps"),
        (["--eval_strategy", "epoch"], "validation_data"),
        (["--eval_strategy", "steps", "--eval_steps", "7"], "validation_data"),
        (["--validation_metrics", "chrf"], "validation_data"),
        (["--metric_for_best_model", "perplexity"], "validation_data"),
    ],
)
def test_options_that_would_do_nothing_are_refused(flags, needed):
    with pytest.raises(ValueError, match=f"^{flags[0][2:]} has no effect without {needed}; give that too, or leave"):
        parse_arguments(["--output_dir", "run", "--use_cpu", "true", *flags])


def test_without_validation_text_options_of_evaluation_are_void_where_it_was_taken_away_and_no_is_an_answer():
    evaluated = {"eval_strategy": "steps", "eval_steps": 5, "validation_metrics": ["chrf"]}
    evaluated |= {"metric_for_best_model": "chrf"}
    base = {"output_dir": "run", "use_cpu": True, "validation_data": ["val.tsv"], **evaluated}
    args, values = resolve_options(base, {"validation_data": []})
    assert values == {"output_dir": "run", "use_cpu": True, "validation_data": []}
    assert given_values(args).keys().isdisjoint(evaluated)
    assert resolve_options(base)[1] == base
    assert resolve_options({"output_dir": "run", "use_cpu": True, "eval_strategy": "no"})[0].eval_strategy == "no"


def test_a_flag_may_turn_off_what_a_recipe_has_options_for(recipe):
    path = recipe("output_dir: run\nuse_cpu: true\naverage_last: 5\nsave_strategy: steps\nsave_steps: 100\n")
    args = parse_arguments([path, "--final_weights", "last", "--save_strategy", "no"])
    assert (args.final_weights, args.save_strategy) == ("last", "no")
    with pytest.raises(ValueError, match="ema_decay has no effect"):
        parse_arguments([recipe("output_dir: run\nuse_cpu: true\nema_decay: 0.9\n")])
