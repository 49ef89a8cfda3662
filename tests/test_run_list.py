"""Lists of runs: what an entry comes to, and mistakes that are found before anything starts."""

import json
import re

import pytest
import yaml
from queue_lists import write_list

from hf_vanilla_transformer.lab.run_list import read_run_list
from hf_vanilla_transformer.training import parse_arguments, read_recipe
from hf_vanilla_transformer.training.recipes import given_values, resolve_options


def written(tmp_path, text):
    path = tmp_path / "runs.yaml"
    path.write_text(text)
    return path


def test_a_run_is_the_command_with_the_same_options(tmp_path):
    """Of a recipe, defaults and options of the entry, the last counts, as of a recipe and flags."""
    path = written(
        tmp_path,
        """
        defaults: {recipe: wmt14-en-de-base, seed: 5, max_tokens: 1000, bf16: false}
        runs:
          - name: base
          - name: other
            max_tokens: 2000
            config_overrides: {dropout: 0.3}
            learning_rate: 1e-3
        """,
    )
    base, other = read_run_list(path).runs
    command = ["wmt14-en-de-base", "--seed", "5", "--bf16", "false"]
    expected = parse_arguments([*command, "--max_tokens", "1000", "--output_dir", "runs/base"])
    assert given_values(base.arguments) == given_values(expected)
    expected = parse_arguments(
        [*command, "--max_tokens", "2000", "--config_overrides", "dropout=0.3", "--learning_rate", "1e-3"]
        + ["--output_dir", "runs/other"]
    )
    overrides = {"config_overrides": [{"dropout": 0.3}]}
    assert given_values(other.arguments) == given_values(expected) | overrides
    assert base.options == {"seed": 5, "max_tokens": 1000, "bf16": False}
    own = {"max_tokens": 2000, "config_overrides": {"dropout": 0.3}, "learning_rate": 1e-3}
    assert other.options == {**base.options, **own}
    assert (base.recipe, base.entry, str(other.output_dir)) == ("wmt14-en-de-base", "base", "runs/other")


def test_names_are_what_is_written(tmp_path):
    """And not what YAML takes them for: a number of base 8, a boolean, a date."""
    names = ["010", "1_0", "on", "2026-01-02", "1.5"]
    entries = "".join(f"  - name: {name}\n" for name in names)
    runs = read_run_list(written(tmp_path, f"defaults: {{max_steps: 1, train_data: [a.tsv]}}\nruns:\n{entries}")).runs
    assert [run.name for run in runs] == names


@pytest.mark.parametrize(
    ("defaults", "own"),
    [
        ({"final_weights": "last"}, {}),
        ({"final_weights": "last"}, {"seed": 3}),
        ({"final_weights": "last"}, {"final_weights": "ema"}),
        ({"average_last": 3}, {"final_weights": "last"}),
    ],
)
def test_defaults_turn_off_what_the_recipe_says_as_options_of_a_run_do(tmp_path, defaults, own):
    text = yaml.safe_dump({"defaults": {"recipe": "multi30k-en-de-tiny", **defaults}, "runs": [{"name": "a", **own}]})
    (run,) = read_run_list(written(tmp_path, text)).runs
    flags = [f"--{name}={value}" for name, value in {**defaults, **own}.items() if name != "average_last"]
    expected = parse_arguments(["multi30k-en-de-tiny", *flags, "--output_dir", "runs/a"])
    assert given_values(run.arguments) == given_values(expected)
    assert "average_last" not in run.values


def test_a_date_is_text_where_text_is_meant(tmp_path):
    text = "runs:\n  - {name: a, train_data: [{dataset: x, config: 2026-01-02}], max_steps: 1, run_name: 2026-02-31}\n"
    (run,) = read_run_list(written(tmp_path, text)).runs
    assert run.options["run_name"] == "2026-02-31"
    assert run.options["train_data"] == [{"dataset": "x", "config": "2026-01-02"}]
    assert json.loads(json.dumps(given_values(run.arguments)))["run_name"] == "2026-02-31"  # as results of a run
    assert json.loads(json.dumps(run.options)) == run.options  # as a line of results


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"final_weights": "last", "eval_strategy": "no"},  # of the recipe, average_last and eval_steps are void then
        {"model_name_or_path": "some/model"},  # and preset and vocab_size
        {"learning_rate": None, "train_data": [{"source": "a", "target": "b"}]},
    ],
)
def test_the_recipe_of_a_run_says_everything(tmp_path, options):
    path = written(tmp_path, yaml.safe_dump({"runs": [{"name": "a", "recipe": "multi30k-en-de-tiny", **options}]}))
    (run,) = read_run_list(path).runs
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(run.values))
    assert read_recipe(tmp_path / "recipe.yaml") == run.values
    repeated, values = resolve_options(run.values)
    assert values == run.values
    assert given_values(repeated) == given_values(run.arguments)


def test_an_entry_with_seeds_is_a_run_of_each(tmp_path):
    runs = read_run_list(
        written(
            tmp_path,
            """
            defaults: {recipe: quickstart, train_data: x.tsv, seeds: [3, 4]}
            runs:
              - {name: a}
              - {name: b, seed: 7}
              - {name: c, seeds: [0], output_dir: elsewhere/c/}
            """,
        )
    ).runs
    assert [(run.name, run.entry, run.arguments.seed, str(run.output_dir)) for run in runs] == [
        ("a-seed3", "a", 3, "runs/a-seed3"),
        ("a-seed4", "a", 4, "runs/a-seed4"),
        ("b", "b", 7, "runs/b"),
        ("c-seed0", "c", 0, "elsewhere/c-seed0"),
    ]
    assert runs[0].options == {"train_data": "x.tsv", "seed": 3}


def test_a_seed_stands_where_options_name_it(tmp_path):
    text = (
        "defaults: {{max_steps: 1, train_data: [a.tsv]}}\nruns:\n  - {{name: a, model_name_or_path: 'x-{{seed}}'{}}}\n"
    )
    runs = read_run_list(written(tmp_path, text.format(", seeds: [3, 4]"))).runs
    assert [run.arguments.model_name_or_path for run in runs] == ["x-3", "x-4"]
    assert [run.options["model_name_or_path"] for run in runs] == ["x-3", "x-4"]
    with pytest.raises(ValueError, match=r"model_name_or_path='x-\{seed\}' has \{seed\}, and the run has no seeds"):
        read_run_list(written(tmp_path, text.format("")))


def test_results_are_beside_the_list_unless_it_names_a_file(tmp_path):
    runs = "runs: [{name: 1, recipe: quickstart, train_data: x.tsv}]"
    assert read_run_list(written(tmp_path, runs)).results == tmp_path / "runs.results.jsonl"
    (run,) = read_run_list(written(tmp_path, f"results: all.jsonl\n{runs}")).runs
    assert read_run_list(tmp_path / "runs.yaml").results.name == "all.jsonl"
    assert run.name == "1"


@pytest.mark.parametrize("folder", ["here/all", "here/all/"])
def test_folders_of_runs_are_in_that_of_the_list(tmp_path, folder):
    runs = "runs: [{name: a, seeds: [1]}, {name: b, output_dir: elsewhere}]"
    text = f"folder: {folder}\ndefaults: {{recipe: quickstart, train_data: x.tsv}}\n{runs}"
    assert [str(run.output_dir) for run in read_run_list(written(tmp_path, text)).runs] == [
        "here/all/a-seed1",
        "elsewhere",
    ]


GOOD = "  - name: good\n    recipe: quickstart\n    train_data: x.tsv\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("runs: [", 1, "is no YAML: while parsing"),
        ("- name: a", None, "expected `key: value` lines"),
        ("", None, "expected `key: value` lines"),
        ("run:\n  - name: a", 1, "unknown key 'run'; did you mean runs?"),
        ("xyzzy: 1", 1, "unknown key 'xyzzy'; a list of runs has results, folder, defaults, runs"),
        ("runs: []", None, "`runs` must be a list with an entry for each run, got []"),
        ("results: x", None, "`runs` must be a list with an entry for each run, got None"),
        (f"runs:\n{GOOD}runs:\n{GOOD}", 5, "runs was given before"),
        (f"results: 7\nruns:\n{GOOD}", None, "`results` must be the name of a file, got 7"),
        (f"folder: [x]\nruns:\n{GOOD}", None, "`folder` must be the name of a folder, got ['x']"),
        (f"defaults: [a]\nruns:\n{GOOD}", None, "`defaults` must be options of a run, got ['a']"),
        (f"defaults:\n  sede: 1\nruns:\n{GOOD}", 2, "defaults: unknown option 'sede'; did you mean seed"),
        (f"defaults:\n  output_dir: x\nruns:\n{GOOD}", None, "output_dir would be the folder of all runs"),
        (f"runs:\n{GOOD}  - just text", 5, "a run must be a mapping with a `name`, got 'just text'"),
        (f"runs:\n{GOOD}  - seed: 1", 5, "a run needs a `name` of letters, digits and . _ + -, got None"),
        (f"runs:\n{GOOD}  - name: ../a", 5, "got '../a'"),
        (f"runs:\n{GOOD}  - name:", 5, "got None"),
        (
            f"runs:\n{GOOD}  - name: b\n    config_overrides:\n      dropout: 0.1\n      dropout: 0.3",
            8,
            "dropout was given before",
        ),
        (f"runs:\n{GOOD}  - name: b\n    learnig_rate: 1", 6, "'b': unknown option 'learnig_rate'; did you"),
        (f"runs:\n{GOOD}  - name: b\n    seed: 1\n    seed: 2", 7, "run 'b': seed was given before"),
        (f"runs:\n{GOOD}  - name: b\n    max_steps: many", 6, "'b': max_steps: expected a whole number, got 'many'"),
        (f"runs:\n{GOOD}  - name: b\n    recipe: quikstart", 5, "'b': there is no file and no recipe 'quikstart'; did"),
        (f"runs:\n{GOOD}  - name: b\n    recipe: [a]", 5, "'b': recipe=['a'] is no name or file of a recipe"),
        (f"runs:\n{GOOD}  - name: b\n    seeds: 3", 5, "'b': seeds=3 is no list of different whole numbers"),
        (f"runs:\n{GOOD}  - name: b\n    seeds: [1, 1]", 5, "'b': seeds=[1, 1] is no list of different whole numbers"),
        (f"runs:\n{GOOD}  - name: b\n    seeds: [1, x]", 5, "'b': seeds=[1, 'x'] is no list of different whole"),
        (f"runs:\n{GOOD}  - name: b\n    seeds: [1]\n    seed: 2", 5, "'b': seed=2 and seeds=[1] are given"),
        (f"runs:\n{GOOD}  - name: b\n    max_tokens: 0", 5, "run 'b': max_tokens=0 is less than 1"),
        (f"runs:\n{GOOD}  - name: b\n    ema_decay: 0.5", 5, "'b': ema_decay has no effect without final_weights=ema"),
        (f"runs:\n{GOOD}  - name: b\n    overwrite_output_dir: true", 5, "'b': overwrite_output_dir=True has no place"),
        (f"runs:\n{GOOD}  - name: b\n    resume_from_checkpoint: last", 5, "the queue resumes every run that has a"),
        (f"runs:\n{GOOD}  - name: b\n    hub_token: hf_1", 5, "'b': hub_token is a secret"),
        (f"runs:\n{GOOD}{GOOD}", None, "two runs are named 'good'; give each its own name"),
        (f"runs:\n{GOOD}  - name: b\n    output_dir: ./runs/good", None, "runs 'good' and 'b' have one output_dir"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_line_and_value(tmp_path, text, line, message):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_run_list(path)
    assert str(caught.value).startswith(f"{path}{'' if line is None or 'YAML' in message else f', line {line}'}")


def test_there_must_be_such_a_list(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.yaml"):
        read_run_list(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_data": ["missing.jsonl"]}, "missing.jsonl"),
        ({"train_data": ["source=a"]}, "source=FILE,target=FILE"),
        ({"config_overrides": ["dropuot=0.1"]}, "no field 'dropuot'; did you mean dropout?"),
        ({"preset": "tinny"}, "tinny"),
        ({"final_weights": "best", "validation_data": []}, "final_weights=best is decided by validation scores"),
        ({"output_dir": "{file}"}, "is a file; name a folder"),
    ],
)
def test_what_can_be_told_without_reading_text_is_found_by_check(tmp_path, changes, message):
    (tmp_path / "file").touch()
    if "output_dir" in changes:
        changes = {"output_dir": changes["output_dir"].format(file=tmp_path / "file")}
    good, bad = read_run_list(write_list(tmp_path, [{"name": "good"}, {"name": "bad", **changes}])).runs
    good.check()
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        bad.check()
    assert re.match(rf"{re.escape(str(tmp_path))}/runs.yaml, line \d+, run 'bad': ", str(caught.value))
