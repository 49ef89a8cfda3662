"""Several processes: what two learn is what one learns, and what one of them loses is not lost."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from child_processes import exit_code, prepared, start
from safetensors.torch import load_file
from training_runs import arguments, assert_same_end, flags, options, write_text

from hf_vanilla_transformer.training import VanillaTransformerTrainingArguments, callbacks, pretrain
from hf_vanilla_transformer.training.checkpoints import list_checkpoints

# Without it, the processes of a second attempt may read the addresses of the first from torchrun's store.
os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
RUN = {"save_strategy": "steps", "save_steps": 3, "eval_strategy": "steps", "eval_steps": 6, "max_steps": 24}


def without_cpu(values):
    """The arguments by which processes find out by themselves to talk by gloo."""
    return {name: value for name, value in values.items() if name != "use_cpu" or torch.accelerator.is_available()}


def torchrun(values, restarts=0):
    """The command that trains with two processes on this machine."""
    words = flags(without_cpu(values))
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"),
        *("--max-restarts", str(restarts), "--monitor-interval", "0.1", str(SCRIPTS / "pretrain.py"), *words),
    ]


def rank_of_two(rank, port, values):
    """What torchrun has each of its processes do, by the variables that it sets."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    pretrain(VanillaTransformerTrainingArguments(**values))


def run_in_two_prepared_processes(values, work=rank_of_two):
    """As torchrun, but for its launcher: processes that need not import everything, which takes most of its time."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    context, values = prepared(), without_cpu(values)
    ranks = [context.Process(target=work, args=(rank, port, values)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    assert [exit_code(rank) for rank in ranks] == [0, 0]


def run_to_end(command):
    """Runs a command, whose output is shown if it fails."""
    with start(command, seconds=900, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said, _ = process.communicate()
    assert process.returncode == 0, said


def history(output_dir):
    return json.loads((output_dir / "results.json").read_text())["history"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def two_processes(text, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("two")
    run_to_end(torchrun(options(text, output_dir, **RUN)))
    return output_dir


def test_two_processes_learn_what_one_learns_of_the_same_global_batches(text, tmp_path):
    """Without dropout, whose random numbers differ: curves and weights agree to 1e-5, sums being in another order."""
    # A rate at which training is no chaos: at the default, of 0.1 for this width, rounding grows tenfold every update.
    still = {"learning_rate": 2e-3, "config_overrides": [*options(text, tmp_path)["config_overrides"], "dropout=0.0"]}
    two, one = tmp_path / "two", tmp_path / "one"
    run_in_two_prepared_processes(options(text, two, **RUN, **still))
    pretrain(arguments(text, one, **RUN, **still, gradient_accumulation_steps=2))
    for name in ("loss", "nll", "grad_norm", "padding", "eval_loss", "eval_bleu"):
        curves = [[entry[name] for entry in history(folder) if name in entry] for folder in (two, one)]
        assert len(curves[0]) == len(curves[1]) > 0, name
        assert curves[0] == pytest.approx(curves[1], rel=1e-5, abs=1e-5), name
    weights = [load_file(folder / "model.safetensors") for folder in (two, one)]
    differences = {name: float((weight - weights[1][name]).abs().max()) for name, weight in weights[0].items()}
    print("largest difference of a weight:", max(differences.values()))
    assert max(differences.values()) < 1e-5, differences


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_dies_is_restarted_and_the_run_ends_bit_identical(rank, two_processes, text, tmp_path):
    """Takes about half a minute."""
    values = options(text, tmp_path, **RUN, resume_from_checkpoint="auto")
    killed = False
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with start(torchrun(values, restarts=3), seconds=900, **pipes) as launcher:
        for line in launcher.stdout:
            if not killed and line.startswith("update      10"):
                psutil.Process(launcher.pid).children()[rank].kill()
                killed = True
        assert launcher.wait() == 0
    assert killed
    assert_same_end(two_processes, tmp_path)


@pytest.mark.slow
def test_two_processes_killed_ten_times_end_bit_identical(two_processes, text, tmp_path):
    """Takes about four minutes."""
    generator = random.Random(time.time())
    for trial in range(5):
        values = options(text, tmp_path / str(trial), **RUN, resume_from_checkpoint="auto")
        for _ in range(2):
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
            with start(torchrun(values), seconds=900, **pipes) as launcher:
                # Somewhere in the middle of an update, an evaluation or a save.
                for _ in range(generator.randint(1, 12)):
                    launcher.stdout.readline()
                time.sleep(generator.uniform(0, 0.1))
        run_to_end(torchrun(values))
        assert_same_end(two_processes, tmp_path / str(trial))


@pytest.mark.slow
def test_a_signal_stops_both_processes_after_the_same_update(two_processes, text, tmp_path):
    """Takes about half a minute."""
    command = torchrun(options(text, tmp_path, **RUN))
    with start(command, seconds=900, stdout=subprocess.PIPE, text=True) as launcher:
        for line in launcher.stdout:
            if line.startswith("update       7"):
                for worker in psutil.Process(launcher.pid).children():
                    worker.send_signal(signal.SIGTERM)
                break
        said = launcher.stdout.read()
        assert launcher.wait() == 0
    update = int(list_checkpoints(tmp_path)[-1].name.split("-")[1])
    assert f"Stopped after update {update}" in said
    run_to_end(torchrun(options(text, tmp_path, **RUN, resume_from_checkpoint="auto")))
    for name, weight in load_file(two_processes / "model.safetensors").items():
        assert weight.equal(load_file(tmp_path / "model.safetensors")[name]), name


def rank_with_a_clock_of_its_own(rank, port, values):
    """The second one's clock leaps ahead in the last update of an epoch, after the processes agreed on the time."""
    now = [0.0]
    callbacks.time = SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0])
    on_step_end = callbacks.StopAfterMinutes.on_step_end

    def leap(self, args, state, control, **kwargs):
        now[0] += 3600.0 * (rank == 1 and float(state.epoch).is_integer())
        on_step_end(self, args, state, control, **kwargs)

    callbacks.StopAfterMinutes.on_step_end = leap
    rank_of_two(rank, port, values)


@pytest.mark.slow
def test_two_processes_stop_after_the_same_update_though_their_clocks_differ_where_an_epoch_begins(text, tmp_path):
    """Takes about ten seconds."""
    limited = {"max_minutes": 5.0, "save_strategy": "no", "eval_strategy": "no", "validation_data": []}
    run_in_two_prepared_processes(options(text, tmp_path, **limited), rank_with_a_clock_of_its_own)
    epochs = [entry["epoch"] for entry in history(tmp_path) if "loss" in entry]
    assert 1.0 in epochs
    assert len(epochs) == epochs.index(1.0) + 2  # one update more, before which they agree again
