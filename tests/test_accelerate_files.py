"""The files for accelerate and SLURM: read by the launchers themselves, and what FSDP2 makes of the model on a CPU."""

import copy
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy, fsdp2_prepare_model
from child_processes import start
from torch.distributed.fsdp import FSDPModule
from torch.distributed.run import get_args_parser

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer.training import parse_arguments
from hf_vanilla_transformer.training.fsdp import embeddings_in_outermost_group

PROJECT = Path(__file__).resolve().parents[1]
FOLDER = PROJECT / "scripts" / "accelerate"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
LAUNCHED = {
    "deepspeed_zero2": ("DEEPSPEED", 1, 8),
    "eight_gpus_ddp": ("MULTI_GPU", 1, 8),
    "four_nodes_of_eight": ("MULTI_GPU", 4, 32),
    "fsdp2": ("FSDP", 1, 8),
    "one_gpu": ("NO", 1, 1),
}


def stem(path):
    return path.stem


def launch_arguments(path):
    """What `accelerate launch` makes of the file: the options that its launchers start processes with."""
    parser = launch_command_parser()
    args = parser.parse_args(["--config_file", str(path), "scripts/pretrain.py", "recipe.yaml"])
    args.nondefault = {"config_file"}
    return _validate_launch_command(args)[0]


def test_the_files_are_those_that_are_promised():
    assert [path.stem for path in CONFIGS] == sorted(LAUNCHED)


@pytest.mark.parametrize("path", [*CONFIGS, FOLDER / "slurm.sh"], ids=stem)
def test_every_key_has_a_comment_and_every_path_exists(path):
    text = path.read_text(encoding="utf-8")
    for given in re.findall(r"--resume_from_checkpoint (\w+)", text.replace("\n# ", " ")):
        assert given == "auto"  # the first start has no checkpoint
    for number, line in enumerate(text.splitlines(), start=1):
        assert len(line) <= 120, f"line {number}"
        if path.suffix == ".yaml" and line and not line.startswith("#"):
            assert re.search(r"\s# \S", line), f"line {number}: {line}"
    for name in re.findall(r"scripts/[\w./-]+\.(?:py|yaml|sh)", text):
        assert (PROJECT / name).exists(), name


@pytest.mark.parametrize("path", CONFIGS, ids=stem)
def test_accelerate_reads_the_file_as_it_is_meant(path):
    config = load_config_from_file(str(path))
    expected = LAUNCHED[path.stem]
    assert (config.distributed_type.value, config.num_machines, config.num_processes) == expected
    args = launch_arguments(path)
    assert (args.num_machines, args.num_processes, args.mixed_precision) == (*expected[1:], "no")
    assert (args.multi_gpu, args.use_deepspeed, args.use_fsdp) == tuple(
        expected[0] == kind for kind in ("MULTI_GPU", "DEEPSPEED", "FSDP")
    )
    known = vars(launch_command_parser().parse_args(["script.py"]))
    for section in ("fsdp_config", "deepspeed_config"):
        for key, value in (yaml.safe_load(path.read_text(encoding="utf-8")).get(section) or {}).items():
            assert key in known, f"accelerate launch has no --{key}"
            assert getattr(args, key) == value, key


@pytest.mark.parametrize("path", CONFIGS, ids=stem)
def test_commands_in_comments_are_commands(path):
    """Each names itself, and what stands behind the script are options of a run."""
    text = re.sub(r"\\\n#\s*", "", path.read_text(encoding="utf-8"))
    commands = re.findall(r"^#\s+accelerate launch (.*)$", text, re.MULTILINE)
    assert len(commands) == 1
    parsed = launch_command_parser().parse_args(commands[0].split())
    assert (PROJECT / parsed.config_file).resolve() == path
    words = [word for word in parsed.training_script_args if word != "RECIPE.yaml"]
    words = [str(PROJECT / word) if word.endswith(".yaml") else word for word in words]
    assert parse_arguments([*words, "--use_cpu", "true", "--output_dir", "as_the_recipe_says"])


def test_slurm_starts_torchrun_on_four_machines_of_eight(tmp_path):
    for name, lines in {
        "srun": 'echo "$@" > "$LOG"; exit 7',
        "scontrol": "echo first-node; echo second-node",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    log = tmp_path / "log"
    variables = {"SLURM_JOB_NODELIST": "n[1-4]", "SLURM_JOB_NUM_NODES": "4", "SLURM_JOB_ID": "17", "LOG": str(log)}
    environment = {**os.environ, **variables, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = FOLDER / "slurm.sh"
    command = ["bash", script, "hf_vanilla_transformer/recipes/wmt14-en-de-big.yaml", "--max_tokens", "781"]
    assert subprocess.run(command, env=environment, cwd=PROJECT).returncode == 7, "the status of the run is the job's"
    words = log.read_text().split()
    assert words[0] == "torchrun"
    args = get_args_parser().parse_args(words[1:])
    assert (args.nnodes, args.nproc_per_node, args.max_restarts) == ("4", "8", 3)
    assert (args.rdzv_backend, args.rdzv_endpoint, args.rdzv_id) == ("c10d", "first-node:29500", "17")
    assert (PROJECT / args.training_script).exists()
    run = parse_arguments([str(PROJECT / args.training_script_args[0]), *args.training_script_args[1:]])
    assert (run.max_tokens, run.resume_from_checkpoint) == (781, "auto")
    directives = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)", script.read_text(), re.MULTILINE))
    assert (directives["nodes"], directives["gpus-per-node"], directives["signal"]) == ("4", "8", "B:USR1@300")
    assert subprocess.run(["bash", script], env=environment, capture_output=True).returncode == 2, "no recipe"


def test_slurm_passes_the_time_limit_on_and_goes_back_into_the_queue(tmp_path):
    """With a step that runs until it gets SIGTERM, as scancel gives it to it."""
    for name, lines in {
        "srun": 'trap "echo saved >> $LOG; exit 0" TERM; echo $$ > "$STEP"; kill -USR1 $PPID\n'
        "while :; do sleep 0.05; done",
        "scancel": 'echo "scancel $*" >> "$LOG"; kill -TERM $(cat "$STEP")',
        "scontrol": '[ "$1" = requeue ] && echo "scontrol $*" >> "$LOG" || echo node',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    log = tmp_path / "log"
    variables = {"SLURM_JOB_NODELIST": "n[1-4]", "SLURM_JOB_NUM_NODES": "4", "SLURM_JOB_ID": "17", "LOG": str(log)}
    environment = {**os.environ, **variables, "STEP": str(tmp_path / "pid"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with start(["bash", FOLDER / "slurm.sh", "recipe.yaml"], env=environment) as job:
        assert job.wait() == 0
    assert log.read_text().splitlines() == ["scancel --signal=TERM 17", "saved", "scontrol requeue 17"]


def small_model(norm_position):
    torch.manual_seed(0)
    shape = {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 2, "num_decoder_layers": 3}
    config = VanillaTransformerConfig(vocab_size=50, dropout=0.0, norm_position=norm_position, **shape)
    return VanillaTransformerForConditionalGeneration(config).train()


def fsdp_plugin(monkeypatch):
    """The plugin as a process that was launched with fsdp2.yaml makes it, from its environment."""
    values = yaml.safe_load((FOLDER / "fsdp2.yaml").read_text(encoding="utf-8"))["fsdp_config"]
    for name, value in values.items():
        monkeypatch.setenv(name.upper(), str(value).lower() if isinstance(value, bool) else str(value))
    return FullyShardedDataParallelPlugin()


@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_fsdp2_divides_exactly_the_layers(norm_position, monkeypatch):
    model, plugin = small_model(norm_position), fsdp_plugin(monkeypatch)
    assert (plugin.fsdp_version, plugin.reshard_after_forward) == (2, True)
    plugin.set_auto_wrap_policy(model)
    is_divided = fsdp2_prepare_auto_wrap_policy(plugin, model)
    divided = {name for name, module in model.named_modules() if is_divided(module)}
    layers = {f"model.encoder.layers.{index}" for index in range(2)}
    assert divided == layers | {f"model.decoder.layers.{index}" for index in range(3)}
    prefix = {"post": "", "pre": "PreNorm"}[norm_position]
    assert model._no_split_modules == {f"{prefix}EncoderLayer", f"{prefix}DecoderLayer"}


def compare_gradients(rank, folder, norm_position, processes):
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
    whole = small_model(norm_position)
    divided = copy.deepcopy(whole)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin), mixed_precision="no", is_main_process=rank == 0, device="cpu"
    )
    with embeddings_in_outermost_group(divided):
        divided = fsdp2_prepare_model(accelerator, divided)
    assert divided.get_input_embeddings() is divided.model.encoder.embed_tokens, "found again afterwards"
    groups = [name for name, module in divided.named_modules() if isinstance(module, FSDPModule)]
    assert len(groups) == 1 + 2 + 3, groups
    source, target = torch.randint(4, 50, (2, 7)), torch.randint(4, 50, (2, 5))
    mask = torch.ones_like(source)
    whole(input_ids=source, attention_mask=mask, labels=target).loss.backward()
    mine = slice(rank, None, processes)
    divided(input_ids=source[mine], attention_mask=mask[mine], labels=target[mine]).loss.backward()
    expected = dict(whole.named_parameters())
    for name, parameter in divided.named_parameters():
        assert processes == 1 or parameter.to_local().numel() < parameter.numel(), f"{name} is whole on one process"
        torch.testing.assert_close(parameter.grad.full_tensor(), expected[name].grad, atol=1e-6, rtol=1e-5)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_fsdp2_of_one_process_has_the_gradients_of_the_undivided_model(norm_position, tmp_path):
    compare_gradients(0, tmp_path, norm_position, 1)


@pytest.mark.slow
def test_fsdp2_of_two_processes_has_the_gradients_of_the_undivided_model(tmp_path):
    """Half a minute, for starting the processes."""
    torch.multiprocessing.spawn(compare_gradients, (str(tmp_path), "post", 2), nprocs=2)
