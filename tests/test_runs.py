"""Runs that are released together: what is read of them, and which do not belong together."""

import json
import shutil

import pytest
import yaml
from released import standing

from hf_vanilla_transformer.publishing import PublicPaths
from hf_vanilla_transformer.publishing.public_recipe import recipe_text
from hf_vanilla_transformer.publishing.runs import read_runs, wall_clock_minutes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return standing(tmp_path_factory.mktemp)


@pytest.fixture
def copies(made, tmp_path):
    return [shutil.copytree(run, tmp_path / run.name) for run in made.runs]


def read(made, folders):
    return read_runs(folders, PublicPaths.parse([f"{made.text}=data/words"]))


def change(folder, name, value):
    path = folder / "results.json"
    results = json.loads(path.read_text())
    results["arguments"][name] = value
    path.write_text(json.dumps(results))


def test_what_a_run_says_about_itself(made):
    first, second = read(made, made.runs)
    assert (first.seed, second.seed) == (7, 42)  # 42 is the default, which a run does not write down
    described = first.described()
    assert (described["updates"], described["final_weights"], described["minutes"]) == (3, "last update", 3.0)
    assert (described["environment"]["device"], described["environment"]["threads"]) == ("A CPU", 3)


@pytest.mark.parametrize("missing", ["results.json", "model.safetensors", "curves.png", "tokenizer.json"])
def test_a_run_that_is_not_finished_is_refused(missing, made, copies):
    (copies[1] / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"not the output of a finished run: it has no {missing}; .*resume"):
        read(made, copies)
    with pytest.raises(FileNotFoundError, match="there is no run nowhere"):
        read(made, ["nowhere"])


def test_runs_differ_in_their_seed_and_in_nothing_else(made, copies):
    change(copies[1], "data_cache_dir", "elsewhere")  # changes nothing of what is learned
    read(made, copies)
    change(copies[1], "vocab_size", 301)
    with pytest.raises(ValueError, match="not runs of one recipe: vocab_size is 300 and 301; release them by"):
        read(made, copies)
    change(copies[1], "vocab_size", 300)
    change(copies[1], "max_grad_norm", 1.0)
    with pytest.raises(ValueError, match=r"max_grad_norm is the default and 1.0"):
        read(made, copies)
    with pytest.raises(ValueError, match="have one seed, 7; runs need different ones"):
        read(made, [made.runs[0], copies[0]])


@pytest.mark.parametrize("content", ["{", "{}", '{"arguments": {}, "metrics": {"updates": 1}, "history": []}', "[]"])
def test_results_that_are_not_of_a_run_are_named(content, made, copies):
    (copies[0] / "results.json").write_text(content)
    with pytest.raises(ValueError, match=r"results.json is not that of a run"):
        read(made, copies)


def test_section_6_1_what_was_chosen_for_decoding_afterwards_is_part_of_the_recipe(made, copies):
    def chosen(alpha=0.6, beams=2, folders=copies):
        for folder in folders:
            path = folder / "generation_config.json"
            path.write_text(
                json.dumps({**json.loads(path.read_text()), "num_beams": beams, "gnmt_length_penalty": alpha})
            )
        run = read(made, copies)[0]
        parsed = yaml.safe_load(recipe_text(run.arguments, "words"))
        return {name: parsed[name] for name in ("generation_num_beams", "gnmt_length_penalty") if name in parsed}

    assert chosen() == {"generation_num_beams": 2}
    assert chosen(1.4, 10) == {"generation_num_beams": 10, "gnmt_length_penalty": 1.4}
    assert chosen(None, 4) == {}
    for folder in copies:
        change(folder, "gnmt_length_penalty", 1.4)
    assert chosen(1.4) == {"generation_num_beams": 2, "gnmt_length_penalty": 1.4}
    assert chosen(0.6)["gnmt_length_penalty"] == 0.6
    for folder in copies:  # trained further: the paper's value is another than that of the base
        change(folder, "gnmt_length_penalty", None)
        change(folder, "model_name_or_path", "base")
    assert chosen(0.6, 10)["gnmt_length_penalty"] == 0.6
    assert chosen(0.6, 10)["generation_num_beams"] == 2
    with pytest.raises(ValueError, match="not runs of one recipe: gnmt_length_penalty is 1.4 and 1.0"):
        chosen(1.4) and chosen(1.0, folders=copies[1:])


def test_minutes_of_a_resumed_run_add_up():
    assert wall_clock_minutes([]) == 0
    assert wall_clock_minutes([{"minutes": 1.0}, {"step": 1}, {"minutes": 4.0}]) == 4
    # Three processes: until 4, until 2, and until 3.5 minutes after their start.
    minutes = [1.0, 4.0, 0.5, 2.0, 1.5, 3.5]
    assert wall_clock_minutes([{"minutes": each} for each in minutes]) == pytest.approx(4 + 2 + 3.5)
