"""Small runs of training for the tests that need one: text, arguments, and what two equal runs have in common."""

import json
import random

import torch
from safetensors.torch import load_file

from hf_vanilla_transformer.training import VanillaTransformerTrainingArguments
from hf_vanilla_transformer.training.checkpoints import list_checkpoints
from hf_vanilla_transformer.training.report import CLOCK

SHAPE = {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1, "num_decoder_layers": 1, "dropout": 0.1}


def write_text(folder, pairs=80):
    """Writes pairs in which the target is the source in capitals, backwards."""
    generator = random.Random(0)
    words = ["red", "blue", "dog", "cat", "runs", "sleeps", "big", "small", "house", "tree"]
    for name, count in (("train", pairs), ("val", 6)):
        rows = []
        for _ in range(count):
            chosen = generator.choices(words, k=generator.randint(1, 6))
            rows.append({"translation": {"en": " ".join(chosen), "de": " ".join(reversed(chosen)).upper()}})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def options(text, output_dir, **changes):
    """The arguments of a short run, by name."""
    return {
        "output_dir": str(output_dir),
        "train_data": [str(text / "train.jsonl")],
        "validation_data": [str(text / "val.jsonl")],
        "data_cache_dir": str(text / "cache"),
        "preset": "tiny",
        "config_overrides": [f"{name}={value}" for name, value in SHAPE.items()],
        "vocab_size": 300,
        "max_tokens": 64,
        "warmup_steps": 4,
        "num_train_epochs": 2,
        "generation_num_beams": 2,
        "logging_steps": 1,
        "final_weights": "last",
        "disable_tqdm": True,
        "use_cpu": True,
        **changes,
    }


def arguments(text, output_dir, **changes):
    return VanillaTransformerTrainingArguments(**options(text, output_dir, **changes))


def flags(values):
    """The same as words of a command line."""
    words = []
    for name, value in values.items():
        words += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return words


def without_clock(history):
    return [{name: value for name, value in entry.items() if name not in CLOCK} for entry in history]


def assert_same_end(first, second):
    """Two runs ended alike: final weights, and weights, optimizer, schedule and log of the last checkpoint."""
    for name, weight in load_file(first / "model.safetensors").items():
        assert torch.equal(weight, load_file(second / "model.safetensors")[name]), name
    ends = [list_checkpoints(folder)[-1] for folder in (first, second)]
    assert ends[0].name == ends[1].name
    weights = [load_file(end / "model.safetensors") for end in ends]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    for name in ("optimizer.pt", "scheduler.pt"):
        states = [torch.load(end / name, weights_only=True) for end in ends]
        assert_equal(*states)
    logs = [json.loads((end / "trainer_state.json").read_text())["log_history"] for end in ends]
    logs = [without_clock(log) for log in logs]
    assert [entry["step"] for entry in logs[0]] == [entry["step"] for entry in logs[1]]
    for one, other in zip(*logs):
        assert one == other


def assert_equal(first, second):
    """Nested states are equal, to the bit."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second):
            assert_equal(one, other)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second
