"""Which device is chosen, and which are refused."""

import pytest
import torch

from hf_vanilla_transformer.inference import choose_device


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_best_device_there_is(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: torch.tensor(0))  # none of them need be in this machine
    assert choose_device() == choose_device("auto") == torch.device(expected)


def test_a_named_device_is_taken_as_it_is():
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "meta", "xla"])
def test_a_device_that_cannot_be_used_is_refused_in_one_line(name):
    with pytest.raises(ValueError, match=f"`device`={name!r} cannot be used: ") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)
