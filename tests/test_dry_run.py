"""Dry runs: a run at its size on made-up text, of which nothing is left but what it took."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter

import pytest
from commanding import run
from training_runs import arguments, flags, options

from hf_vanilla_transformer import VanillaTransformerConfig
from hf_vanilla_transformer.commands import pretrain, training
from hf_vanilla_transformer.lab import dry_run as module
from hf_vanilla_transformer.lab.dry_run import FOLDER, DryRun, dry_run
from hf_vanilla_transformer.lab.planning import activation_bytes, count_parameters, state_bytes
from hf_vanilla_transformer.training import prepare, report
from hf_vanilla_transformer.training.interruption import StopOnSignal
from hf_vanilla_transformer.training.recipes import given_values


def arguments_of(tmp_path, **changes):
    """Of a run whose text there is not."""
    return arguments(tmp_path / "nowhere", tmp_path / "run", **{"dry_run": 3, "vocab_size": 280, **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dry")
    args = arguments_of(folder, save_total_limit=3, max_steps=100)
    before = given_values(args)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "plot_curves", lambda *args: None)  # which takes longest
        patch.setattr(module, "_WORDS", 3)  # short sentences are soon translated
        result = dry_run(args)
    assert given_values(args) == before
    return result, folder


def test_it_is_the_run_at_its_size(done):
    result, _ = done
    assert result.vocabulary == 280
    config = VanillaTransformerConfig.from_preset(
        "tiny", vocab_size=280, d_model=16, num_heads=2, d_ff=32, num_encoder_layers=1, num_decoder_layers=1
    )
    assert result.parameters == count_parameters(config)
    assert (len(result.seconds), result.devices, result.was_stopped) == (3, 1, False)
    assert all(seconds > 0 for seconds in result.seconds)
    assert result.checkpoint > 12 * result.parameters  # weights and Adam's two moments
    assert result.peak_memory > 100e6


def test_nothing_of_it_is_left_and_nothing_was_written_elsewhere(done):
    assert list(done[1].iterdir()) == []


def test_what_else_came_into_the_folder_stays(tmp_path, monkeypatch):
    """Such as the run itself, which somebody starts meanwhile."""

    def other_run(args):
        (tmp_path / "run" / "checkpoint-1").mkdir(parents=True)
        raise ValueError("no room")

    monkeypatch.setattr(module, "prepare", other_run)
    with pytest.raises(ValueError, match="no room"):
        dry_run(arguments_of(tmp_path))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint-1"]


def test_the_first_update_does_not_count():
    result = DryRun(None, 1, 1, [9.0, 1.0, 3.0, 2.0], 1, 1, 1)
    assert result.seconds_per_update == 2.0
    assert DryRun(None, 1, 1, [9.0], 1, 1, 1).seconds_per_update == 9.0


def test_it_says_what_the_run_will_take(tmp_path):
    args = arguments_of(tmp_path, max_steps=7200, max_tokens=3125, gradient_accumulation_steps=8, save_total_limit=4)
    result = DryRun(args, 63_000_000, 37_000, [9.0, 2.0, 2.0], 5_000_000_000, 760_000_000, 2)
    assert result.lines() == [
        "Dry run: 3 of 3 updates on made-up text, 63,000,000 parameters, 37,000 tokens, 8 x 3,125 tokens a side on "
        "each of 2 cpu in fp32",
        "Time: 2 seconds per update, 4.0 hours for 7,200 updates",
        "Peak memory: 5.00 GB of the largest process",
        "Disk: 0.76 GB per checkpoint, 4 of which are kept",
    ]
    result = DryRun(arguments_of(tmp_path, batching="random"), 1, 1, [1.0], 1, 0, 1)
    assert "64 tokens a side of random pairs on each" in result.lines()[0]
    short = DryRun(arguments_of(tmp_path), 1, 1, [1.0], 1, 0, 1, was_stopped=True).lines()
    assert short[0].endswith("64 tokens a side on each of 1 cpu in fp32; stopped")
    assert short[1] == "Time: 1 seconds per update"
    assert len(short) == 3, "nothing is saved"


def test_the_text_has_lengths_and_frequencies_of_a_language(tmp_path):
    args = arguments_of(tmp_path, vocab_size=4000)
    module._make_text(tmp_path / FOLDER, args)
    sides = [(tmp_path / FOLDER / f"train.{side}").read_text().splitlines() for side in ("source", "target")]
    assert len(sides[0]) == len(sides[1])
    lengths = [len(line.split()) for line in sides[0]]
    assert sum(lengths) / len(lengths) == pytest.approx(26, rel=0.1)
    assert max(lengths) <= 100
    assert min(lengths) < 13
    counts = Counter(word for side in sides for line in side for word in line.split())
    assert sum(count > 1 for count in counts.values()) > 0.9 * args.vocab_size, "a vocabulary of that size is there"
    frequent = [count for _, count in counts.most_common()]
    assert frequent[0] / frequent[90] == pytest.approx(10, rel=0.3)  # Zipf: 1 / (rank + 10)


def test_there_is_text_for_all_updates_of_all_devices(tmp_path):
    args = arguments_of(tmp_path, dry_run=5, max_tokens=2000, gradient_accumulation_steps=4)
    module._make_text(tmp_path / FOLDER, args)
    words = len((tmp_path / FOLDER / "train.source").read_text().split())
    assert words == pytest.approx(5 * 2000 * 4, rel=0.1)


def test_an_earlier_run_in_the_folder_stays_and_an_error_leaves_nothing(tmp_path, monkeypatch):
    args = arguments_of(tmp_path)
    kept = tmp_path / "run" / "results.json"
    kept.parent.mkdir()
    kept.write_text("mine")
    (tmp_path / "run" / FOLDER).mkdir()  # of a dry run that was killed
    (tmp_path / "run" / FOLDER / "rubbish").touch()

    def train(run, args):
        assert not (tmp_path / "run" / FOLDER / "rubbish").exists()
        raise OSError("no room")

    monkeypatch.setattr(module, "train", train)
    with pytest.raises(OSError, match="no room"):
        dry_run(args)
    assert [path.name for path in kept.parent.iterdir()] == ["results.json"]
    assert kept.read_text() == "mine"


@pytest.mark.slow
def test_a_dry_run_that_is_stopped_says_so_and_leaves_nothing(tmp_path, monkeypatch):
    """Takes a second."""
    remember = StopOnSignal.on_pre_optimizer_step

    def stop(self, args, state, control, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        remember(self, args, state, control, **kwargs)

    monkeypatch.setattr(StopOnSignal, "on_pre_optimizer_step", stop)
    result = dry_run(arguments_of(tmp_path))
    assert result.was_stopped
    assert len(result.seconds) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "span_corruption", "num_sentinels": 40, "vocab_size": 320},
        {"objective": "masked_lm", "config_overrides": ["d_model=16"], "generation_num_beams": 4},
        {"objective": "prefix_lm", "config_overrides": ["d_model=16"], "generation_num_beams": 4},
        {"validation_data": [], "eval_strategy": "no", "save_strategy": "no"},
        {"final_weights": "best", "save_strategy": "best", "r_drop": 1.0, "gradient_accumulation_steps": 2},
        {"final_weights": "average", "streaming": True, "max_steps": 9, "shuffle_buffer": 99},
    ],
)
def test_runs_of_all_kinds_have_dry_runs(tmp_path, changes):
    """Takes a second each."""
    result = dry_run(arguments_of(tmp_path, dry_run=2, **changes))
    assert len(result.seconds) == 2
    assert (result.checkpoint > 0) == (changes.get("save_strategy") != "no")


def test_the_command_prints_it(tmp_path, monkeypatch):
    given = []

    def dry_run(args):
        given.append(args.dry_run)
        return DryRun(args, 1, 1, [1.0], 1, 0, 1)

    monkeypatch.setattr(module, "dry_run", dry_run)
    monkeypatch.setattr(training, "leave_together", lambda: given.append("left"))
    done = run(pretrain.main, *flags(options(tmp_path, tmp_path / "run", dry_run=4)))
    assert done.returncode == 0, done.stderr
    assert given == [4, "left"]
    assert done.stdout.splitlines()[1] == "Time: 1 seconds per update"


def test_what_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(ValueError, match="dry_run=-1 is less than 0"):
        arguments_of(tmp_path, dry_run=-1)
    with pytest.raises(ValueError, match=r"in Python, call lab.dry_run.dry_run\(args\)"):
        prepare(arguments_of(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [False, True])
def test_the_papers_base_model_fits_at_full_size(tmp_path, bf16):
    """Takes one to two minutes each, on one core. Memory is what `plan` says, and what a process has anyway."""
    command = [sys.executable, "-m", "hf_vanilla_transformer", "pretrain", "wmt14-en-de-base", "--dry_run", "2"]
    command += ["--use_cpu", "true", "--bf16", str(bf16), "--output_dir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)  # this process may have had more memory before
    assert done.returncode == 0, done.stderr
    config = VanillaTransformerConfig.from_preset("base", vocab_size=37_000)
    first, time, memory, disk = done.stdout.splitlines()[-4:]
    assert first.startswith(f"Dry run: 2 of 2 updates on made-up text, {count_parameters(config):,} parameters, 37,000")
    assert first.endswith(f"3,125 tokens a side on each of 1 cpu in {'bf16' if bf16 else 'fp32'}")
    assert re.fullmatch(r"Time: [\d.e+]+ seconds per update, .* for 100,000 updates", time)
    peak = float(re.match(r"Peak memory: ([\d.]+) GB", memory)[1]) * 1e9
    planned = state_bytes(config, bf16) + activation_bytes(config, 3125, 3125, bf16)
    assert 0.8 * planned < peak < 2 * planned + 2e9
    size = float(re.match(r"Disk: ([\d.]+) GB per checkpoint, 5 of which are kept", disk)[1]) * 1e9
    assert size == pytest.approx(12 * count_parameters(config), rel=0.05)
    assert list(tmp_path.iterdir()) == []
