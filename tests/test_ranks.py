"""What one process does for all: the others get its result, or its error, and do nothing themselves."""

import pickle
import threading
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from hf_vanilla_transformer.training import ranks


class Processes:
    """Stands for accelerate's state of one of two processes; what the first sends is kept for the second."""

    num_processes = 2
    sent = None

    def __init__(self, is_main_process):
        self.is_main_process = is_main_process

    def broadcast(self, outcome, from_process):
        assert from_process == 0
        if self.is_main_process:
            Processes.sent = pickle.dumps(outcome)
        return pickle.loads(Processes.sent)


def by_both(monkeypatch, work):
    """What two processes get of `work`, the first of them first."""
    for is_main in (True, False):
        state = Processes(is_main)
        monkeypatch.setattr(ranks, "PartialState", lambda state=state: state)
        monkeypatch.setattr(ranks, "broadcast_object_list", state.broadcast)
        try:
            yield ranks.by_main_process(work)
        except Exception as error:
            yield error


def test_one_process_works_and_all_have_the_result(monkeypatch):
    calls = []

    def work():
        calls.append(1)
        return "found"

    assert list(by_both(monkeypatch, work)) == ["found", "found"]
    assert calls == [1]


@pytest.mark.parametrize(
    "error",
    [ValueError("wrong"), FileNotFoundError("gone"), KeyError("name"), SafetensorError("damaged"), RuntimeError("x")],
)
def test_an_error_of_one_is_the_error_of_all_so_that_none_waits(monkeypatch, error):
    def work():
        raise error

    assert [type(each) for each in by_both(monkeypatch, work)] == [type(error), type(error)]


class ErrorOfAClient(OSError):
    """As those of HTTP clients are: it can be pickled, but not unpickled."""

    def __init__(self, message, *, response):
        super().__init__(message)
        self.response = response


def test_an_error_that_cannot_be_sent_is_sent_as_one_that_can(monkeypatch):
    def work():
        raise ErrorOfAClient("no such dataset", response=None)

    for error in by_both(monkeypatch, work):
        assert isinstance(error, OSError)
        assert str(error) == "ErrorOfAClient: no such dataset"


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_folder_that_another_machine_does_not_see_is_refused_by_all(monkeypatch, tmp_path, is_shared):
    """Two threads are two processes; the second one's machine has another folder of that path."""
    barrier, sent, seen, outcomes = threading.Barrier(2), {}, {}, {}
    folders = [tmp_path / "one", tmp_path / ("one" if is_shared else "two")]
    for folder in folders:
        folder.mkdir(exist_ok=True)

    def rank():
        return int(threading.current_thread().name)

    def broadcast(outcome, from_process):
        if rank() == 0:
            sent["outcome"] = pickle.dumps(outcome)
        barrier.wait()
        received = pickle.loads(sent["outcome"])
        barrier.wait()
        return received

    def gather(items):
        seen[rank()] = items
        barrier.wait()
        return [*seen[0], *seen[1]]

    def run():
        try:
            outcomes[rank()] = ranks.require_shared(folders[rank()])
        except ValueError as error:
            outcomes[rank()] = str(error)

    monkeypatch.setattr(ranks, "_UNTIL_SEEN", 0.1)
    monkeypatch.setattr(ranks, "PartialState", lambda: SimpleNamespace(num_processes=2, is_main_process=rank() == 0))
    monkeypatch.setattr(ranks, "broadcast_object_list", broadcast)
    monkeypatch.setattr(ranks, "gather_object", gather)
    threads = [threading.Thread(target=run, name=str(number)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    if is_shared:
        assert outcomes == {0: None, 1: None}
    else:
        assert all("1 of 2 do not see what the first writes there" in each for each in outcomes.values())
    assert not list(tmp_path.rglob(".seen*"))


def test_processes_wait_for_the_last_before_they_leave(monkeypatch):
    for processes, expected in ((1, []), (2, ["wait", "leave"])):
        done = []
        state = SimpleNamespace(
            num_processes=processes,
            wait_for_everyone=lambda done=done: done.append("wait"),
            destroy_process_group=lambda done=done: done.append("leave"),
        )
        monkeypatch.setattr(ranks, "PartialState", lambda state=state: state)
        ranks.leave_together()
        assert done == expected


def test_a_single_process_just_works():
    assert ranks.by_main_process(lambda: 7) == 7
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    ranks.broadcast_weights(model)
    assert torch.equal(model.weight, before)
