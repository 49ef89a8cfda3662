"""Modules as functions: the same numbers by the same code, and the module itself wherever calling it does more."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.module_tracker import ModuleTracker

from hf_vanilla_transformer import VanillaTransformerConfig
from hf_vanilla_transformer.attention import MultiHeadAttention
from hf_vanilla_transformer.decoder import DecoderLayer, PreNormDecoderLayer
from hf_vanilla_transformer.dropout import Dropout
from hf_vanilla_transformer.feed_forward import FeedForward
from hf_vanilla_transformer.modeling_views import ModuleView, as_function, has_global_hook, is_changed

CONFIG = VanillaTransformerConfig(vocab_size=9, d_model=8, num_heads=2, d_ff=16, dropout=0.5)
AS_WRITTEN = {each: each.forward for each in (DecoderLayer, PreNormDecoderLayer, MultiHeadAttention, FeedForward)}


def layer(kind=DecoderLayer):
    torch.manual_seed(0)
    return kind(CONFIG, 0).eval()


@pytest.mark.parametrize("kind", [DecoderLayer, PreNormDecoderLayer])
def test_a_view_computes_what_its_module_computes_without_calling_a_module(kind, monkeypatch):
    module = layer(kind)
    inputs = torch.randn(2, 3, 8), torch.zeros(1, 1, 3, 3), torch.randn(2, 4, 8)
    expected, function = module(*inputs), as_function(module, AS_WRITTEN)
    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "__call__", None)
        assert torch.equal(function(*inputs), expected)
    expected.sum().backward()
    gradients = [weight.grad.clone() for weight in module.parameters()]
    module.zero_grad()
    function(*inputs).sum().backward()
    assert all(map(torch.equal, gradients, [weight.grad for weight in module.parameters()]))


def test_a_view_has_what_its_module_has_and_nothing_else():
    module = layer().self_attention
    view = ModuleView(module, AS_WRITTEN)
    for name in ("d_k", "scaling", "is_causal", "layer_idx", "config", "training"):
        assert getattr(view, name) == getattr(module, name)
    assert not hasattr(view, "sinks")  # transformers may ask for such things
    assert all(map(torch.equal, view._project(torch.ones(1, 2, 8)), module._project(torch.ones(1, 2, 8))))


def hooked(module):
    module.register_forward_hook(lambda *args: None)


def hooked_before(module):
    module.register_forward_pre_hook(lambda *args: None)


def replaced(module):
    forward = module.forward
    module.forward = lambda *args, **kwargs: forward(*args, **kwargs)


def of_another_class(module):
    module.__class__ = type("Other", (type(module),), {})


def compiled(module):
    module.compile(backend="eager")


def hooked_backwards(module):
    module.register_full_backward_hook(lambda *args: None)


@pytest.mark.parametrize("change", [hooked, hooked_before, replaced, of_another_class, compiled, hooked_backwards])
@pytest.mark.parametrize("name", ["self_attention", "feed_forward", "self_attention.q_proj", "feed_forward_norm"])
def test_what_somebody_has_changed_is_called_itself(name, change):
    module = layer()
    part = module.get_submodule(name)
    assert as_function(part, AS_WRITTEN) is not part
    change(part)
    assert as_function(part, AS_WRITTEN) is part
    assert is_changed(part) == (change in (hooked, hooked_before, replaced))


@pytest.mark.parametrize("kind", [nn.Linear, nn.LayerNorm, FeedForward, MultiHeadAttention])
def test_a_class_that_somebody_has_changed_is_called_itself(kind, monkeypatch):
    parts = [part for part in layer().modules() if type(part) is kind]
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda *args, **kwargs: forward(*args, **kwargs))
    assert parts
    assert all(as_function(part, AS_WRITTEN) is part for part in parts)


def test_matrices_that_are_computed_are_called_for():
    part = nn.Linear(3, 3)
    parametrize.register_parametrization(part, "weight", nn.Identity())
    assert as_function(part, AS_WRITTEN) is part


def test_dropout_is_a_module_only_while_it_drops():
    dropout = Dropout(0.5)
    assert as_function(dropout, AS_WRITTEN) is dropout
    states = torch.ones(3)
    assert as_function(dropout.eval(), AS_WRITTEN)(states) is states


def test_hooks_on_all_modules_are_called_and_those_that_only_count_are_left_out():
    parts = [part for part in layer().modules() if type(part) is nn.Linear]
    with ModuleTracker():
        assert not has_global_hook()
        assert all(as_function(part, AS_WRITTEN) is not part for part in parts)
    handle = nn.modules.module.register_module_full_backward_hook(lambda *args: None)
    try:
        assert has_global_hook()
        assert all(as_function(part, AS_WRITTEN) is part for part in parts)
    finally:
        handle.remove()


def test_a_list_that_has_a_module_twice_is_a_list_that_has_it_twice():
    part = nn.Linear(3, 3)
    states = torch.ones(1, 3)
    first, second = as_function(nn.ModuleList([part, part]), AS_WRITTEN)
    assert torch.equal(first(states), second(states))


def test_layers_that_make_gradient_checkpoints_are_called_themselves():
    module = layer()
    module.gradient_checkpointing = True
    assert as_function(module, AS_WRITTEN) is not module
    assert as_function(module.train(), AS_WRITTEN) is module
