"""What a run says about the machine and the libraries it was computed with."""

import json
import platform
import socket

import torch
import transformers

import hf_vanilla_transformer
from hf_vanilla_transformer.training import environment
from hf_vanilla_transformer.training.environment import describe_environment


def test_the_libraries_the_threads_and_the_processes_are_those_of_this_process(monkeypatch):
    found = describe_environment(torch.device("cpu"))
    assert found["threads"] == torch.get_num_threads()
    assert (found["torch"], found["transformers"]) == (torch.__version__, transformers.__version__)
    assert (found["python"], found["processes"]) == (platform.python_version(), 1)
    assert found["hf_vanilla_transformer"] == hf_vanilla_transformer.__version__
    assert json.loads(json.dumps(found)) == found
    monkeypatch.setenv("WORLD_SIZE", "4")  # as launchers set it
    assert describe_environment(torch.device("cpu"))["processes"] == 4


def test_the_processor_has_the_name_of_its_model_and_not_that_of_the_machine(tmp_path, monkeypatch):
    information = tmp_path / "cpuinfo"
    information.write_text("processor\t: 0\nmodel name\t: A CPU: fast\nprocessor\t: 1\nmodel name\t: A CPU: fast\n")
    monkeypatch.setattr(environment, "Path", lambda path: information)
    found = describe_environment(torch.device("cpu"))
    assert found["device"] == "A CPU: fast"
    assert socket.gethostname() not in found.values()
    information.unlink()  # as on other systems
    monkeypatch.setattr(environment.platform, "processor", lambda: "")
    assert describe_environment(torch.device("cpu"))["device"] == platform.machine()
