"""The list of ablations and its command: each run changes what its name says, and claims are those of Table 3."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from child_processes import start
from commanding import run
from test_configuration_vanilla_transformer import LEDGER
from training_runs import SHAPE, options, write_text

from hf_vanilla_transformer.commands import lab_ablations
from hf_vanilla_transformer.lab.queue import run_states
from hf_vanilla_transformer.lab.queue_results import read_rows
from hf_vanilla_transformer.lab.run_list import read_run_list
from hf_vanilla_transformer.training.checkpoints import list_checkpoints
from hf_vanilla_transformer.training.config_overrides import parse_overrides
from hf_vanilla_transformer.training.model_setup import model_class
from hf_vanilla_transformer.training.schedule import peak_learning_rate

PROJECT = Path(__file__).resolve().parents[1]
ENTRIES = yaml.safe_load((PROJECT / lab_ablations.LIST).read_text())["runs"]

# The preset of the row of Table 3 that an entry corresponds to.
ROWS = {
    "base": "base",
    "heads-1": "table3_A_h1",
    "heads-2": "table3_A_h4",
    "heads-8": "table3_A_h16",
    "heads-16": "table3_A_h32",
    "d_k-8": "table3_B_dk16",
    "d_k-16": "table3_B_dk32",
    "layers-1": "table3_C_N2",
    "layers-2": "table3_C_N4",
    "layers-6": "table3_C_N8",
    "d_model-64": "table3_C_dmodel256",
    "d_model-256": "table3_C_dmodel1024",
    "d_ff-128": "table3_C_dff1024",
    "d_ff-512": "table3_C_dff4096",
    "dropout-0.0": "table3_D_dropout0.0",
    "dropout-0.2": "table3_D_dropout0.2",
    "smoothing-0.0": "table3_D_smoothing0.0",
    "smoothing-0.2": "table3_D_smoothing0.2",
    "learned-positions": "table3_E_learned",
}


@pytest.fixture(scope="module")
def runs():
    return read_run_list(PROJECT / lab_ablations.LIST)


def config_of(run):
    config_class = model_class(run.arguments.model_class).config_class
    overrides = parse_overrides(run.arguments.config_overrides, config_class)
    return config_class.from_preset(run.arguments.preset, vocab_size=4000, **overrides)


def test_what_is_claimed_of_rows_is_what_table_3_has(runs):
    claimed = {entry for entry, claim in runs.claims.items() if claim.source.startswith("Table 3")}
    assert claimed == set(ROWS)
    for entry, row in ROWS.items():
        says = {"perplexity": LEDGER[row].ppl_dev, "bleu": LEDGER[row].bleu_dev}
        assert (dict(runs.claims[entry].says), runs.claims[entry].against) == (says, None), entry
        place = row.partition("_")[2][:1]
        assert runs.claims[entry].source.startswith(f"Table 3 ({place})" if place else "Table 3 base")


# Fields of the config in which an entry differs from base, beside those that are derived from them; by how it begins.
CHANGED = {
    "base": set(),
    "heads": {"num_heads"},
    "layers": {"num_encoder_layers", "num_decoder_layers"},
    **{name: {name} for name in ("d_k", "d_model", "d_ff", "dropout")},
    "smoothing": {"label_smoothing"},
    "learned": {"position_encoding", "num_learned_positions"},
    "untied": {"tie_word_embeddings"},
    "no-warm-up": set(),
    "post-norm": {"norm_position"},
    "no-norms": {"layer_norm"},
    "no-norms-no-residuals": {"norm_position", "layer_norm", "residual_connections"},
    "no-residuals": {"norm_position", "residual_connections"},
    "heads-1-unscaled": {"num_heads", "scale_scores"},
    "heads-16-unscaled": {"num_heads", "scale_scores"},
}


def test_each_run_differs_from_base_by_what_its_name_says(runs):
    base = config_of(runs.runs[0]).to_dict()
    for each in runs.runs:
        ours = config_of(each).to_dict()
        changed = {name for name, value in ours.items() if base.get(name, True) != value} - {"model_type"}
        if changed & {"num_heads", "d_model"}:
            changed -= {"d_k", "d_v", "num_key_value_heads"}  # which follow from these
        key = max((name for name in CHANGED if each.entry.startswith(name)), key=len)
        assert changed == CHANGED[key], each.entry


def test_heads_are_varied_at_constant_computation(runs):
    for each in (each for each in runs.runs if each.entry.startswith("heads")):
        config = config_of(each)
        assert config.num_heads * config.d_k == config.num_heads * config.d_v == 128, each.name


def test_the_budget_and_the_seeds_are_equal(runs):
    for each in runs.runs:
        args = each.arguments
        assert (args.max_steps, args.max_tokens, args.final_weights) == (1000, 2048, "last"), each.name
        assert args.seed in (1, 2)
    assert len(runs.runs) == 2 * len(ENTRIES)
    peak = peak_learning_rate(128, 400)
    without = [each.arguments for each in runs.runs if "no-warm-up" in each.name]
    assert len(without) == 4
    assert all(args.warmup_steps == 0 and math.isclose(args.learning_rate, peak, rel_tol=1e-3) for args in without)


def test_the_command_has_this_list_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "ablations.yaml" in run(lab_ablations.main, "--list").error
    monkeypatch.chdir(PROJECT)
    assert "waiting" in run(lab_ablations.main, "--list").stdout


def test_a_plot_of_nothing_and_options_without_effect_are_one_line(tmp_path, monkeypatch):
    path = tmp_path / "runs.yaml"
    path.write_text(yaml.safe_dump({"runs": [{"name": "a", "recipe": "quickstart", "train_data": "x.tsv"}]}))
    assert "has nothing to draw" in run(lab_ablations.main, path, "--plot", tmp_path / "a.png").error
    assert (
        "have no effect where nothing is trained"
        in run(lab_ablations.main, path, "--plot", "a.png", "--nice", "1").error
    )


@pytest.mark.slow
def test_tiny_ablations_are_trained_killed_resumed_and_compared(tmp_path):
    """Takes about two minutes: a whole model and one without residual connections, two seeds each, and a SIGKILL."""
    text = write_text(tmp_path)
    shape = dict(SHAPE)
    short = {"max_steps": 150, "save_strategy": "steps", "save_steps": 10, "eval_strategy": "no", "logging_steps": 50}
    defaults = options(text, "x", **short, config_overrides=shape, seeds=[1, 2])
    del defaults["output_dir"]
    part = {"model_class": "hf_vanilla_transformer.lab.ablations:AblatedTransformer"}
    part["config_overrides"] = {**shape, "residual_connections": False}
    entries = [
        {"name": "base", "claim": {"source": "a", "perplexity": 4.92, "bleu": 25.8}},
        {"name": "no-residuals", "claim": {"source": "a", "perplexity": "worse"}, **part},
    ]
    path = tmp_path / "runs.yaml"
    path.write_text(yaml.safe_dump({"folder": str(tmp_path / "all"), "defaults": defaults, "runs": entries}))
    runs = read_run_list(path)
    command = [sys.executable, "-m", "hf_vanilla_transformer", "lab-ablations", str(path), "--threads", "1"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    victim = runs.runs[2]

    with start(command, **quiet) as queue:
        deadline = time.monotonic() + 900
        while not list_checkpoints(victim.output_dir) and time.monotonic() < deadline:
            time.sleep(0.05)
        children = Path(f"/proc/{queue.pid}/task/{queue.pid}/children").read_text().split()
        for process in [queue.pid, *map(int, children)]:
            os.kill(process, signal.SIGKILL)
        queue.wait()
    assert [row["name"] for row in read_rows(runs.results)] == ["base-seed1", "base-seed2"]
    assert run_states(runs)[victim.name].update > 0

    with start(command, **quiet) as queue:
        said = queue.stdout.read()
        assert queue.wait() == 0, said
    assert f"{victim.name} resumes at update" in said
    assert "4 of 4 runs have ended" in said
    assert "| no-residuals | base | a |" in said
    assert json.loads((victim.output_dir / "config.json").read_text())["residual_connections"] is False
    assert len(read_rows(runs.results)) == 4
    done = run(lab_ablations.main, path, "--plot", tmp_path / "claims.svg")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "claims.svg").exists()
