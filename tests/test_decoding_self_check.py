"""Decoding on a transformers that nobody has tested: right with a warning, or refused."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers

from hf_vanilla_transformer import VanillaTransformerConfig, VanillaTransformerForConditionalGeneration
from hf_vanilla_transformer import decoding_self_check as self_check
from hf_vanilla_transformer.decoder import Decoder
from hf_vanilla_transformer.decoding_cache import GrowingLayer
from hf_vanilla_transformer.inference import EnsembleForConditionalGeneration


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(self_check, "_found", {})
    config = VanillaTransformerConfig(
        vocab_size=30, d_model=16, num_heads=2, d_ff=32, num_encoder_layers=1, num_decoder_layers=1
    )
    return VanillaTransformerForConditionalGeneration(config).eval()


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(self_check.logger, "warning", lines.append)
    return lines


SOURCE = torch.tensor([[5, 6, 2]])


def test_a_tested_version_is_not_checked(model, said, monkeypatch):
    monkeypatch.setattr(self_check, "_fault", lambda model_class: pytest.fail("there is no need"))
    model.generate(SOURCE, max_new_tokens=2)
    assert not said


def test_a_newer_version_that_decodes_rightly_is_mentioned_once(model, said, monkeypatch):
    monkeypatch.setattr(self_check, "NEWEST_TESTED_TRANSFORMERS", (5, 1))
    state = torch.get_rng_state()
    model.generate(SOURCE, max_new_tokens=2)
    model.generate(SOURCE, max_new_tokens=2)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's draws are what they were
    (line,) = said
    assert "tested up to transformers 5.1" in line
    assert f"and {transformers.__version__} is installed" in line


def lost(monkeypatch):
    """The renamed cache, as it was: forward() never sees it."""
    forward = Decoder.forward

    def without_cache(self, *args, cache=None, **kwargs):
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(Decoder, "forward", without_cache)
    monkeypatch.setattr(VanillaTransformerForConditionalGeneration, "_incremental_steps", lambda *args: None)


def blurred(monkeypatch):
    """Values that differ a little."""
    update = GrowingLayer.update
    monkeypatch.setattr(GrowingLayer, "update", lambda self, key, value, *args: update(self, key, value + 0.5, *args))


def broken(monkeypatch):
    """An error somewhere inside, of any kind."""

    def update(self, *args):
        raise AssertionError("never thought of")

    monkeypatch.setattr(GrowingLayer, "update", update)


@pytest.mark.parametrize("fault", [lost, blurred, broken])
def test_a_newer_version_that_decodes_wrongly_is_refused_each_time(model, said, monkeypatch, fault):
    monkeypatch.setattr(self_check, "NEWEST_TESTED_TRANSFORMERS", (5, 1))
    fault(monkeypatch)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=rf"up to transformers 5\.1, and with {transformers.__version__} it dec"):
            model.generate(SOURCE, max_new_tokens=2)
    assert not said


def test_another_thread_waits_for_what_is_found(model, said, monkeypatch):
    monkeypatch.setattr(self_check, "NEWEST_TESTED_TRANSFORMERS", (5, 1))
    begun = threading.Event()

    def slow_fault(model_class):
        begun.set()
        time.sleep(0.5)
        return "it does"

    monkeypatch.setattr(self_check, "_fault", slow_fault)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(model.generate, SOURCE, max_new_tokens=2)
        begun.wait()
        second = threads.submit(model.generate, SOURCE, max_new_tokens=2)
        assert [str(each.exception()).count("decodes wrongly: it does") for each in (first, second)] == [1, 1]


def test_a_check_that_is_interrupted_has_found_nothing_out(model, monkeypatch):
    monkeypatch.setattr(self_check, "NEWEST_TESTED_TRANSFORMERS", (5, 1))

    def interrupted(model_class):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(self_check, "_fault", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.generate(SOURCE, max_new_tokens=2)
    assert self_check._found == {}
    assert model.generate(SOURCE, max_new_tokens=2).shape[0] == 1
    assert self_check._found == {VanillaTransformerForConditionalGeneration: ""}


def test_ensembles_are_checked_too(model, monkeypatch):
    monkeypatch.setattr(self_check, "NEWEST_TESTED_TRANSFORMERS", (5, 1))
    monkeypatch.setattr(self_check, "_fault", lambda model_class: "it does")
    with pytest.raises(RuntimeError, match="decodes wrongly: it does"):
        EnsembleForConditionalGeneration([model]).eval().generate(SOURCE, max_new_tokens=2)
