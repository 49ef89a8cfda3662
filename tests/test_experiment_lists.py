"""The lists of experiments: all can be read, and their runs have the protocol that their first lines state."""

import functools
import inspect
import re
from pathlib import Path

import pytest
import torch

from hf_vanilla_transformer.lab.planning import count_parameters
from hf_vanilla_transformer.lab.run_list import read_run_list
from hf_vanilla_transformer.positions_relative import t5_buckets
from hf_vanilla_transformer.training.config_overrides import parse_overrides
from hf_vanilla_transformer.training.model_setup import model_class

LISTS = sorted((Path(__file__).resolve().parents[1] / "model_cards" / "experiments").glob("*.yaml"))
ENTRY = re.compile(r"scan-(\d+)-(.+)")


@functools.cache
def list_of(name):
    (path,) = (path for path in LISTS if path.stem == name)
    return read_run_list(path)


def header_of(name):
    lines = list_of(name).path.read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in lines[: next(n for n, line in enumerate(lines) if line[0] != "#")])


def config_of(run, vocab_size):
    args = run.arguments
    config_class = model_class(args.model_class, args.objective).config_class
    overrides = parse_overrides(args.config_overrides, config_class)
    return config_class.from_preset(args.preset, **{"vocab_size": vocab_size, **overrides})


def seeds_of(name):
    seeds = {}
    for run in list_of(name).runs:
        seeds.setdefault(run.entry, []).append(run.arguments.seed)
    return seeds


def scan_runs():
    for run in list_of("scan-length").runs:
        cutoff, encoding = ENTRY.fullmatch(run.entry).groups()
        yield int(cutoff), encoding, run


@pytest.mark.parametrize("name", [path.stem for path in LISTS])
def test_a_list_can_be_read_says_what_it_is_for_and_loses_nothing_when_it_is_stopped(name):
    runs = list_of(name)
    assert runs.path.read_text(encoding="utf-8").startswith("# ")
    assert runs.results.parent == Path("runs")
    for run in runs.runs:
        assert run.output_dir.parts[0] == "runs"
        saved = str(getattr(run.arguments.save_strategy, "value", run.arguments.save_strategy))
        assert saved != "no", f"{run.name} would start again"


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("ablations", "58 runs of equally many updates"),
        ("variants", "34 runs of 1,000 updates"),
        ("scan-length", "all 30"),
    ],
)
def test_there_are_as_many_runs_as_are_stated(name, stated):
    assert stated in header_of(name)
    assert len(list_of(name).runs) == int(re.search(r"\d+", stated)[0])


@pytest.mark.parametrize("name", ["ablations", "objectives", "variants"])
def test_every_entry_of_a_comparison_has_both_seeds(name):
    assert set(map(tuple, seeds_of(name).values())) == {(1, 2)}


@pytest.mark.parametrize(
    ("name", "first", "vocab_size", "percent"), [("variants", "base", 4000, 1), ("scan-length", "scan-26-none", 23, 2)]
)
def test_parameters_are_as_equal_as_is_stated(name, first, vocab_size, percent):
    assert f"within {percent} %" in header_of(name)
    runs = {str(run.arguments.config_overrides): run for run in reversed(list_of(name).runs)}  # one of each shape
    sizes = {run.entry: count_parameters(config_of(run, vocab_size)) for run in runs.values()}
    for entry, size in sizes.items():
        assert abs(size / sizes[first] - 1) < percent / 100, entry


# SCAN


def test_scan_has_every_encoding_at_every_cutoff_and_those_that_matter_come_first():
    seeds, encodings = seeds_of("scan-length"), {}
    for cutoff, encoding, _ in scan_runs():
        encodings.setdefault(cutoff, {})[encoding] = seeds[f"scan-{cutoff}-{encoding}"]
    assert list(encodings) == [26, 22, 30, 24]
    assert encodings[26].pop("t5_relative-128") == encodings[26].pop("shaw_relative-5000") == [1]
    names = ["sinusoidal", "none", "learned", "rotary", "alibi", "t5_relative", "shaw_relative"]
    for cutoff, found in encodings.items():
        assert found == {name: [1] for name in names}, cutoff


def test_scan_trains_by_adam_as_torch_has_it_on_64_random_pairs():
    defaults = {name: each.default for name, each in inspect.signature(torch.optim.Adam).parameters.items()}
    for cutoff, encoding, run in scan_runs():
        args = run.arguments
        assert (args.adam_beta1, args.adam_beta2) == defaults["betas"]
        assert (args.adam_epsilon, args.weight_decay) == (defaults["eps"], defaults["weight_decay"])
        assert (args.learning_rate, args.max_grad_norm, args.warmup_steps) == (1e-3, 5, 0)
        assert str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)) == "cosine"
        assert args.max_steps == (5000 if encoding.endswith("-5000") else 2000)
        assert args.batching == "random"
        assert args.max_tokens == 64 * (cutoff + 1)  # the longest output and its </s>
        assert args.train_data == [{"path": f"data/scan/cutoff-{cutoff}/train.tsv"}]


def test_an_encoding_is_what_its_entry_says_and_all_else_is_equal():
    plain = config_of(next(scan_runs())[2], 23).to_dict()
    assert (plain["num_encoder_layers"], plain["num_decoder_layers"], plain["d_model"]) == (3, 3, 128)
    assert (plain["d_ff"], plain["num_heads"], plain["dropout"], plain["label_smoothing"]) == (256, 8, 0.1, 0.0)
    own = {"position_encoding", "num_learned_positions", "num_relative_buckets", "max_relative_distance", "rotary_base"}
    for _, encoding, run in scan_runs():
        config = config_of(run, 23).to_dict()
        assert config["position_encoding"] == encoding.removesuffix("-128").removesuffix("-5000")
        assert {name for name in plain if plain[name] != config[name]} <= own


def test_pairs_of_22_actions_train_every_bucket_of_the_decoder_but_not_those_of_the_default():
    runs = {encoding: run for cutoff, encoding, run in scan_runs() if cutoff == 26}
    trained = {}
    for encoding in ("t5_relative", "t5_relative-128"):
        config = config_of(runs[encoding], 23)
        shape = (config.num_relative_buckets, config.max_relative_distance, True)
        near, all_ = (set(t5_buckets(-torch.arange(length), *shape).tolist()) for length in (23, 49))
        trained[encoding] = (near == set(range(config.num_relative_buckets)), near == all_)
    assert trained == {"t5_relative": (True, True), "t5_relative-128": (False, False)}
