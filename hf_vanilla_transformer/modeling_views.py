"""Figure 1's modules, called many times in a row: the same `forward` without the overhead of module calls.

At one position of a small model, calling a module and looking up its parts takes as long as the arithmetic.
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
    """Whether the `forward` of a module was replaced or has hooks.

    Hooks of transformers that record outputs do not count: once outputs were requested they stay, and do nothing
    unless outputs are requested again.
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
    """Whether a projection only multiplies by its matrix, so the loss can do this itself.

    A replaced, wrapped, hooked or quantised one does more, or uses other arithmetic, and has to be called.

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
    """Replaces a module as `self` in its own methods; its parts are functions, found without a search.

    Requires that there is no global hook (`has_global_hook`), which is asked once and not for each part.

    Args:
        module: the module; the view copies its current attributes.
        as_written: maps the classes whose modules can have a view to their original `forward`, which must not call
            `super()`.
    """

    def __init__(self, module: nn.Module, as_written: Mapping[Any, Callable[..., Any]]) -> None:
        parts = {name: part and _as_function(part, as_written) for name, part in module._modules.items()}
        vars(self).update({**vars(module), **module._parameters, **module._buffers, **parts}, _class=type(module))

    def __getattr__(self, name: str) -> Any:
        value = getattr(vars(self)["_class"], name)
        if callable(value):
            value = partial(value, self)
        vars(self)[name] = value
        return value


def as_function(module: nn.Module, as_written: Mapping[Any, Callable[..., Any]]) -> Any:
    """Turns a module in its current state into a function for repeated calls.

    Args:
        module: any module.
        as_written: as in `ModuleView`.

    Returns:
        A function with the module's arguments; the module itself if calling it does more than its `forward`, or if it
        was changed; for a list of modules, a list of these.
    """
    return module if has_global_hook() else _as_function(module, as_written)


def _as_function(module: nn.Module, as_written: Mapping[Any, Callable[..., Any]]) -> Any:
    kind: Any = type(module)
    if kind is nn.ModuleList:
        return [_as_function(part, as_written) for part in module._modules.values() if part is not None]
    does_more = module._compiled_call_impl or module._backward_hooks or module._backward_pre_hooks
    if does_more or is_changed(module):
        return module
    if kind in _PLAIN and kind.forward is _PLAIN[kind]:
        return _plain_function(module)
    if kind is Dropout and not module.training and Dropout.forward is _DROPOUT:
        return _unchanged
    is_checkpointed = module.training and getattr(module, "gradient_checkpointing", False)
    if kind not in as_written or kind.forward is not as_written[kind] or is_checkpointed:
        return module
    # transformers wraps the `forward` of layers for gradient checkpointing, which is off here.
    return partial(inspect.unwrap(kind.forward), ModuleView(module, as_written))


_DROPOUT = Dropout.forward
_PLAIN: dict[Any, Callable[..., Any]] = {each: each.forward for each in (nn.Linear, nn.LayerNorm, nn.ReLU)}


def _plain_function(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    if isinstance(module, nn.Linear):
        # By position, as in nn.Linear, because quantised tensors that override F.linear look for them there.
        matrix, vector = module.weight, module.bias
        return lambda states: F.linear(states, matrix, vector)
    if isinstance(module, nn.LayerNorm):
        shape, weight, bias, eps = module.normalized_shape, module.weight, module.bias, module.eps
        return lambda states: torch.layer_norm(states, shape, weight, bias, eps)
    return torch.relu


def _unchanged(states: torch.Tensor) -> torch.Tensor:
    return states
