"""Which process this one is, by its environment, and the accelerator that it takes."""

import pytest
import torch

from hf_vanilla_transformer.inference import Process


def test_launchers_say_who_a_process_is():
    assert Process.of_environment({}) == Process(0, 1, None)
    assert Process.of_environment({"RANK": "3"}) == Process(0, 1, None), "there is no count"
    assert Process.of_environment({"WORLD_SIZE": "4", "RANK": "3"}) == Process(3, 4, None)
    assert Process.of_environment({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}) == Process(3, 4, 1)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 .* no RANK"),
        ({"WORLD_SIZE": "0", "RANK": "0"}, "WORLD_SIZE=0 .* at least 1"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE=two "),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 .* from 0 to 1, since WORLD_SIZE=2"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK=-1 "),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "9"}, "LOCAL_RANK=9 "),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused_by_name(variables, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        Process.of_environment(variables)


def test_each_process_of_a_machine_takes_a_gpu_of_its_own(monkeypatch):
    """With functions in the place of those of torch that need GPUs."""
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for process in (Process(0, 1, 0), Process(5, 8, None), Process(4, 8, 0), Process(5, 8, 1)):
        process.take_accelerator()
    assert taken == [0, 1], "one process alone, or one that nobody gave a number, keeps the default"
    with pytest.raises(ValueError, match=r"LOCAL_RANK=2, but this machine has 2 GPUs"):
        Process(6, 8, 2).take_accelerator()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Process(6, 8, 2).take_accelerator()
    assert taken == [0, 1]
