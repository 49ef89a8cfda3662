"""Runs as files: YAML with every mistake named by line, and flags that override it."""

import json
from pathlib import Path

import pytest
from transformers.trainer_utils import SchedulerType

from hf_vanilla_transformer.training import VanillaTransformerTrainingArguments, parse_arguments, read_recipe
from hf_vanilla_transformer.training.recipes import given_values


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
        ("lr_scheduler_kwargs: {num_cycles: 2}", "lr_scheduler_kwargs", {"num_cycles": 2}),
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
    found = getattr(parse_arguments([recipe(f"use_cpu: true\n{line}\n")]), name)
    assert found == value
    assert type(found) is type(value) or isinstance(value, int)


def test_what_is_in_no_recipe_is_the_default(recipe):
    args = parse_arguments([recipe("use_cpu: true\npreset: tiny\n")])
    expected = VanillaTransformerTrainingArguments(use_cpu=True, preset="tiny")
    assert args.to_dict() == expected.to_dict()


def test_flags_override_a_recipe_which_comes_first(recipe, capsys):
    path = recipe(
        "max_tokens: 4096\nvocab_size: 4000\ntrain_data: [a.tsv, b.tsv]\ndrop_duplicates: true\nuse_cpu: true\n"
    )
    flags = ["--train_data", "c.tsv", "--drop_duplicates", "false", "--max_tokens", "512"]
    args = parse_arguments([path, *flags])
    assert (args.max_tokens, args.vocab_size, args.train_data) == (512, 4000, ["c.tsv"])
    assert args.drop_duplicates is False
    with pytest.raises(SystemExit):
        parse_arguments([*flags, path])
    assert "the recipe comes first" in capsys.readouterr().err


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
        ("seed: 1\n\nmax_token: 3\n", "line 3: 'max_token' is no argument; did you mean max_tokens"),
        ("seed: 1\nxyzzy: 3\n", "line 2: 'xyzzy' is no argument$"),
        ("seed: 1\n5: 3\n", "line 2: '5' is no argument"),
        ("_n_gpu: 1\n", "line 1: '_n_gpu' is no argument"),
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
        parse_arguments([recipe("streaming: true\nuse_cpu: true\n")])


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.yaml"):
        read_recipe(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"seed: 1\npreset: \xe4\n")
    with pytest.raises(ValueError, match=r"latin\.yaml, line 2: not UTF-8"):
        read_recipe(tmp_path / "latin.yaml")


def test_an_unknown_flag_ends_the_program(recipe, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments([recipe("seed: 1\n"), "--max_token_s=3"])
    assert caught.value.code == 2
    assert "max_token_s" in capsys.readouterr().err


def test_help_lists_every_option_of_ours(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(["--help"], description="Trains.", epilog="An example.")
    shown = capsys.readouterr().out
    assert caught.value.code == 0
    assert "Trains." in shown
    assert "An example." in shown
    assert "--bpe_dropout" in shown


def test_given_values_repeat_the_run(recipe, tmp_path):
    text = "max_tokens: 4096\ntrain_data: [{path: b.tsv, weight: 2}]\nlr_scheduler_type: cosine\nlearning_rate: 5e-3\n"
    args = parse_arguments([recipe(text + "use_cpu: true\naverage_last: 8\nnum_train_epochs: 30\n")])
    given = given_values(args)
    assert given["max_tokens"] == 4096
    assert given["average_last"] == 8
    assert "vocab_size" not in given
    again = parse_arguments([recipe(json.dumps(given))])  # JSON is YAML
    assert again.to_dict() == args.to_dict()
    assert json.dumps(given_values(again)) == json.dumps(given)


def test_the_recipes_of_the_project_can_be_read():
    recipes = sorted((Path(__file__).parents[1] / "hf_vanilla_transformer" / "recipes").glob("*.yaml"))
    assert recipes
    for path in recipes:
        assert read_recipe(path)["train_data"]
