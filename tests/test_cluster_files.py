"""The recipes for clusters: what scripts of the shell start, and programs of Ray and datasets, run on this machine."""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from child_processes import start
from commanding import run, save_translator
from torch.distributed.run import get_args_parser

from hf_vanilla_transformer.commands import serve as serve_command
from hf_vanilla_transformer.commands import translate as command
from hf_vanilla_transformer.inference import Translator

PROJECT = Path(__file__).resolve().parents[1]
FOLDER = PROJECT / "scripts" / "cluster"
FILES = sorted(path for path in FOLDER.iterdir() if path.suffix in (".py", ".sh"))
LINES = ["a b", "", "C", "a b c A B C", "b", "c\u2028c c", "A", "B a"] * 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny untrained model, whose translations are short."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_translator(folder, max_extra_tokens=4)
    return folder


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").write_text("".join(f"{line}\n" for line in LINES))
    return tmp_path / "in"


def environment(**variables):
    """This one, with the package, the interpreter of the tests first, and without what launchers may have set."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    paths = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    defaults = {"PYTHONPATH": str(PROJECT), "PATH": paths, "RAY_USAGE_STATS_ENABLED": "0"}
    return {**kept, **defaults, **variables}


def stand_in(folder, name):
    """A program that writes its words and the variables of launchers into a file."""
    (folder / name).write_text(
        '#!/bin/bash\necho "$RANK/$WORLD_SIZE $OMP_NUM_THREADS ${LOCAL_RANK-none} $*" > "$LOG"\n'
        'if [ -n "${WRITTEN-}" ]; then echo new > "$WRITTEN"; fi\n'
    )
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "LOG": str(folder / "log")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_recipe_says_how_it_is_started(path):
    text = path.read_text(encoding="utf-8")
    assert f"scripts/cluster/{path.name} " in text
    for name in re.findall(r"scripts/[\w./-]+\.(?:py|sh)", text):
        assert (PROJECT / name).exists(), name
    assert all(len(line) <= 120 for line in text.splitlines())
    assert os.access(path, os.X_OK) == (path.suffix == ".sh")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        ({"TASK_ID": "3", "TASK_MIN": "0", "TASK_MAX": "15", "TASK_COUNT": "16", "TASK_STEP": "1"}, "3/16"),
        ({"TASK_ID": "11", "TASK_MIN": "5", "TASK_MAX": "11", "TASK_COUNT": "4", "TASK_STEP": "2"}, "3/4"),
        ({"TASK_ID": "7", "TASK_MIN": "7", "TASK_MAX": "7", "TASK_COUNT": "1"}, "0/1"),
    ],
)
def test_each_task_of_an_array_is_a_process_of_its_own(tmp_path, array, expected):
    variables = {f"SLURM_ARRAY_{name}": value for name, value in array.items()} | stand_in(tmp_path, "python")
    words = ["--model", "m", "--file", "in", "--output", "out"]
    subprocess.run(
        ["bash", FOLDER / "slurm_array.sh", *words],
        env=environment(**variables, SLURM_CPUS_PER_TASK="6", LOCAL_RANK="0"),
        check=True,
    )
    ranks, threads, local_rank, program, *rest = (tmp_path / "log").read_text().split()
    assert (ranks, threads, local_rank, program) == (expected, "6", "none", "scripts/translate.py")
    with pytest.MonkeyPatch.context() as patch:
        rank, count = expected.split("/")
        patch.setenv("RANK", rank)
        patch.setenv("WORLD_SIZE", count)
        assert command.parse_arguments(rest, "program").shard_lines == 10_000
        args = command.parse_arguments([*rest, "--shard_lines", "5"], "program")
    assert (args.shard_lines, args.process.rank, args.process.count) == (5, int(rank), int(count))


def test_a_list_of_tasks_is_refused(tmp_path):
    array = {"ID": "7", "MIN": "3", "MAX": "7", "COUNT": "2"}
    variables = {f"SLURM_ARRAY_TASK_{name}": value for name, value in array.items()}
    command_line = ["bash", FOLDER / "slurm_array.sh", "--model", "m"]
    done = subprocess.run(command_line, env=environment(**variables), capture_output=True, text=True)
    assert (done.returncode, "--array has to be a range" in done.stderr) == (2, True)


def test_back_translation_is_shared_by_processes_of_one_machine(tmp_path):
    words = ["8", "runs/de-en", "mono.de", "back.en", "--do_sample", "--seed", "1"]
    done = subprocess.run(
        ["bash", FOLDER / "back_translate.sh", *words],
        env=environment(**stand_in(tmp_path, "torchrun"), WRITTEN="back.en"),
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "source=back.en,target=mono.de,tag=bt" in done.stdout
    started = get_args_parser().parse_args((tmp_path / "log").read_text().split()[3:])
    assert (started.nproc_per_node, started.module, started.training_script) == ("8", True, "hf_vanilla_transformer")
    verb, *rest = started.training_script_args
    args = command.parse_arguments(rest, "program")
    assert (verb, args.model, str(args.file), str(args.output)) == ("translate", "runs/de-en", "mono.de", "back.en")
    assert (args.do_sample, args.seed) == (True, 1)


def test_back_translation_that_was_not_written_is_not_trained_with(tmp_path):
    command_line = ["bash", FOLDER / "back_translate.sh", "8", "runs/de-en", "mono.de", "back.en"]
    options = {"env": environment(**stand_in(tmp_path, "torchrun")), "cwd": tmp_path}
    for earlier in (False, True):
        if earlier:
            (tmp_path / "back.en").write_text("of an earlier run")
            os.utime(tmp_path / "back.en", (1e9, 1e9))
        done = subprocess.run(command_line, **options, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert "back.en was not written; the same command with 1 in place of 8 does" in done.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["back.en"] * earlier + ["log", "torchrun"]


@pytest.mark.parametrize("name", ["slurm_array.sh", "back_translate.sh"])
def test_without_words_scripts_say_what_they_need(name):
    done = subprocess.run(["bash", FOLDER / name], capture_output=True, text=True)
    assert (done.returncode, done.stderr.startswith("usage: ")) == (2, True)


def load_recipe(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_service_of_ray_is_that_of_the_same_options(tmp_path, monkeypatch):
    pytest.importorskip("fastapi")
    from hf_vanilla_transformer.serving import process

    (tmp_path / "en-de").mkdir()
    (tmp_path / "token").write_text("secret\n")
    monkeypatch.chdir(tmp_path)
    words = ["--model", "en-de", "g2p-15-languages", "--languages", "en-de=en:de", "--host", "0.0.0.0"]
    words += ["--token_file", "token", "--allowed_hosts", "a.org", "--engine", "ctranslate2", "--quantization", "int8"]
    words += ["--port", "9000", "--max_queue", "70", "--device", "cpu"]
    served = []
    monkeypatch.setattr(process, "serve", served.append)
    assert (done := run(serve_command.main, *words)).returncode == 0, done.stderr
    service, args = load_recipe("ray_serve").read_options([*words, "--max_replicas", "3"])
    (expected,) = served
    folders = {"en-de": str(tmp_path / "en-de"), "g2p-15-languages": "g2p-15-languages"}
    assert service == replace(expected, folders=folders)  # which replicas elsewhere find as well
    assert (service.limits.max_queue, args.max_replicas) == (70, 3)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--access_log"], "--access_log is not for Ray"),
        (["--shutdown_seconds", "3"], "--shutdown_seconds is not for Ray"),
        (["--port", "0"], "--port 0 is not for Ray"),
        (["--quantization", "int8"], "--quantization int8 is for --engine ctranslate2"),
        (["--replicas", "2"], "unknown option --replicas"),
        (["--max_queue", "7"], "`max_texts`=64 is more than `max_queue`=7"),
        (["--token_file", "none"], "No such file or directory"),
        (["--model", "a/m", "b/m"], "--model has two of the name m"),
    ],
)
def test_options_that_ray_cannot_have_are_refused_by_name(words, error, capsys):
    pytest.importorskip("fastapi")
    with pytest.raises(SystemExit) as exit:
        load_recipe("ray_serve").read_options(["--model", "m", *words])
    assert (exit.value.code, error in capsys.readouterr().err) == (2, True)


def test_workers_of_one_machine_share_its_threads(monkeypatch):
    recipe, threads = load_recipe("map_dataset"), []
    monkeypatch.setattr(recipe, "Translator", lambda model, engine: threads.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    try:
        recipe.translator_of("m", "torch", 3)
    finally:
        torch.set_num_threads(before)
    assert threads == [3]


@pytest.mark.parametrize(("cores", "workers", "threads"), [(8, 2, 4), (8, 3, 2), (2, 4, 1)])
def test_each_worker_has_its_part_of_the_threads(monkeypatch, tmp_path, cores, workers, threads):
    """Of a dataset that only notes what it is mapped by."""
    recipe, given = load_recipe("map_dataset"), {}

    class Dataset(list):
        @classmethod
        def from_generator(cls, function, gen_kwargs):
            return cls(function(**gen_kwargs))

        def map(self, function, **options):
            given.update(options)
            return [{"translation": row["line"].upper()} for row in self]

    (tmp_path / "in").write_text("a\nb\n")
    monkeypatch.setattr(recipe, "Dataset", Dataset)
    monkeypatch.setattr(recipe.torch, "get_num_threads", lambda: cores)
    words = ["program", "--file", "in", "--model", "m", "--output", "out", "--workers", str(workers)]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.chdir(tmp_path)
    recipe.main()
    assert (given["num_proc"], given["fn_kwargs"]["threads"]) == (workers, threads)
    assert (tmp_path / "out").read_text() == "A\nB\n"
    (tmp_path / "in").write_text("")
    recipe.main()
    assert (tmp_path / "out").read_text() == ""


@pytest.mark.slow
def test_tasks_of_an_array_write_the_bytes_of_one_process(folder, source, tmp_path):
    """A quarter of a minute: two tasks, one after the other."""
    expected = tmp_path / "once"
    words = ["--model", folder, "--file", source, "--read_ahead", "8", "--device", "cpu", "--quiet"]
    assert run(command.main, *words, "--output", expected).returncode == 0
    for task in (4, 5):
        numbers = (("ID", task), ("MIN", 4), ("MAX", 5), ("COUNT", 2))
        variables = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in numbers}
        options = [*words, "--output", tmp_path / "out", "--shard_lines", "8"]
        command_line = ["bash", str(FOLDER / "slurm_array.sh"), *map(str, options)]
        subprocess.run(command_line, env=environment(**variables), cwd=PROJECT, check=True)
        assert (tmp_path / "out").exists() == (task == 5)
    assert (tmp_path / "out").read_bytes() == expected.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ray_data", "map_dataset"])
def test_workers_of_a_library_translate_as_one_process(folder, source, tmp_path, name):
    """A minute, of which most is for Ray to start."""
    if name == "ray_data":
        pytest.importorskip("ray.data")
    options = ["--model", folder, "--output", tmp_path / "out", "--engine", "torch", "--batch_size", 1, "--workers", 2]
    options += ["--cpus", 0.25, source] if name == "ray_data" else ["--file", source]
    command_line = [str(word) for word in [sys.executable, FOLDER / f"{name}.py", *options]]
    done = subprocess.run(
        command_line, env=environment(HF_HOME=str(tmp_path / "cache")), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = list(Translator(folder, "torch", "cpu").translate(LINES, batch_size=1))
    assert (tmp_path / "out").read_text().split("\n") == [*expected, ""]


@pytest.mark.slow
def test_workers_that_leave_no_cpu_to_read_are_refused(folder, source, tmp_path):
    """Half a minute. Ray would wait for ever."""
    pytest.importorskip("ray.data")
    options = ["--model", folder, "--output", tmp_path / "out", "--workers", 1000, source]
    command_line = [str(word) for word in [sys.executable, FOLDER / "ray_data.py", *options]]
    done = subprocess.run(command_line, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "one CPU has to read, and 1000 workers of 1 CPUs leave none" in done.stderr


@pytest.mark.slow
def test_two_replicas_of_ray_serve_answer_as_one_process(folder):
    """A minute: a load test of 300 requests, in which each answer is compared."""
    pytest.importorskip("ray.serve")
    httpx = pytest.importorskip("httpx")
    from hf_vanilla_transformer.serving.load_test import run_load_test

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    options = ["--model", folder, "--languages", "tiny=a:b", "--cpus", 0.25, "--port", port]
    options += ["--min_replicas", 2, "--max_replicas", 2]
    url = f"http://127.0.0.1:{port}"
    with start([sys.executable, FOLDER / "ray_serve.py", *options], env=environment()) as process:
        while True:
            assert process.poll() is None
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        assert httpx.get(f"{url}/languages").json()[0]["code"] == "a"
        texts = [f"a b {number}" for number in range(20)]
        done = run_load_test(str(folder), texts, clients=10, requests=300, alone=10, url=url)
        assert done.is_right, done.lines()
        assert len(done.together.seconds) == 300
        replicas = set()
        while len(replicas) < 2:  # each says when its own process began
            page = httpx.get(f"{url}/metrics").text
            replicas.add(re.search(r"^process_start_time_seconds (\S+)$", page, re.MULTILINE)[1])
        process.send_signal(signal.SIGINT)
        process.wait()
