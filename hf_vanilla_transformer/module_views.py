"""Figure 1's boxes, called many times in a row: the same `forward` without the cost of calling modules.

At one position of a small model, calling a module and looking up its parts takes as long as its arithmetic.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_modules

from .dropout import Dropout


def is_changed(module: nn.Module) -> bool:
    """Whether somebody has replaced the `forward` of a module, or put a hook before or after it.

    Hooks of transformers that record outputs do not count: they stay for good once outputs were asked for, and do
    nothing unless they are again.
    """
    if "forward" in vars(module):
        return True
    if not (module._forward_hooks or module._forward_pre_hooks):
        return False
    return any(map(_does_something, (*module._forward_hooks.values(), *module._forward_pre_hooks.values())))


def has_global_hook() -> bool:
    """Whether somebody has put a hook on all modules there are. Those of torch that only count do not count here."""
    kinds = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
    return any(_does_something(hook) for kind in kinds for hook in getattr(torch_modules, f"_global_{kind}").values())


def _does_something(hook: Callable[..., Any]) -> bool:
    watchers = ("transformers.utils.output_capturing", "torch.utils.module_tracker")
    return getattr(hook, "__module__", None) not in watchers


def is_plain_product(head: nn.Module) -> bool:
    """Whether a projection only multiplies by its matrix, so that the loss may do so in its place.

    One that was replaced, wrapped, hooked or quantised does more, or by another arithmetic, and has to be called.

    Args:
        head: any module.
    """
    return (
        type(head) is nn.Linear
        and head.bias is None
        and type(head.weight) in (torch.Tensor, nn.Parameter)
        and head.weight.is_floating_point()
        and not (is_changed(head) or head._backward_hooks or head._backward_pre_hooks)
    )


class ModuleView:
    """Stands for a module as the `self` of its own functions; its parts are functions, found without a search.

    Args:
        module: the module; what it holds now is what the view holds.
        as_written: of the classes whose modules can have a view, the `forward` that they were written with. Those that
            call `super()` cannot.
    """

    def __init__(self, module: nn.Module, as_written: Mapping[Any, Callable[..., Any]]) -> None:
        parts = {name: part and as_function(part, as_written) for name, part in module._modules.items()}
        vars(self).update({**vars(module), **module._parameters, **module._buffers, **parts}, _class=type(module))

    def __getattr__(self, name: str) -> Any:
        value = getattr(vars(self)["_class"], name)
        if callable(value):
            value = partial(value, self)
        vars(self)[name] = value
        return value


def as_function(module: nn.Module, as_written: Mapping[Any, Callable[..., Any]]) -> Any:
    """What a module computes, in its state of now, for calls that follow each other.

    Args:
        module: any.
        as_written: as in `ModuleView`.

    Returns:
        A function that takes what the module takes; the module itself wherever calling it does more than its `forward`,
        or somebody has changed it; and of a list of modules, a list.
    """
    kind: Any = type(module)
    if kind is nn.ModuleList:
        return [as_function(part, as_written) for part in module._modules.values() if part is not None]
    does_more = module._compiled_call_impl or module._backward_hooks or module._backward_pre_hooks
    if does_more or is_changed(module) or has_global_hook():
        return module
    if kind in _PLAIN and kind.forward is _PLAIN[kind]:
        return _plain_function(module)
    if kind is Dropout and not module.training and Dropout.forward is _DROPOUT:
        return _unchanged
    is_checkpointed = module.training and getattr(module, "gradient_checkpointing", False)
    if kind not in as_written or kind.forward is not as_written[kind] or is_checkpointed:
        return module
    # transformers wraps `forward` of layers to make gradient checkpoints, of which there are none here.
    return partial(inspect.unwrap(kind.forward), ModuleView(module, as_written))


_DROPOUT = Dropout.forward
_PLAIN: dict[Any, Callable[..., Any]] = {each: each.forward for each in (nn.Linear, nn.LayerNorm, nn.ReLU)}


def _plain_function(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    if isinstance(module, nn.Linear):
        # By position, as nn.Linear does: quantised tensors, which compute F.linear themselves, look for them there.
        matrix, vector = module.weight, module.bias
        return lambda states: F.linear(states, matrix, vector)
    if isinstance(module, nn.LayerNorm):
        shape, weight, bias, eps = module.normalized_shape, module.weight, module.bias, module.eps
        return lambda states: torch.layer_norm(states, shape, weight, bias, eps)
    return torch.relu


def _unchanged(states: torch.Tensor) -> torch.Tensor:
    return states
