"""Comparing our model with another library's: weights copied by a table of names, values and gradients compared.

The tables are those by which checkpoints are converted, in `hf_vanilla_transformer.interop`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from hf_vanilla_transformer.commands import convert
from hf_vanilla_transformer.interop.checkpoints import part_of, their_name


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> None:
    """Leaves no weight at a value (0 for a bias, 1 for a norm) at which leaving it out would go unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.copy_(torch.empty_like(parameter).uniform_(0.5, 1.5, generator=generator))
        elif parameter.dim() == 0:
            parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 1.5, generator=generator))
        elif parameter.dim() == 1:
            parameter.copy_(torch.empty_like(parameter).normal_(0, 0.3, generator=generator))
        elif "embed" in name:
            parameter.copy_(torch.empty_like(parameter).normal_(0, parameter.shape[1] ** -0.5, generator=generator))
        else:
            bound = (6 / sum(parameter.shape)) ** 0.5
            parameter.copy_(torch.empty_like(parameter).uniform_(-bound, bound, generator=generator))


@torch.no_grad()
def copy_weights(ours: nn.Module, theirs: nn.Module, names: Mapping[str, str], absent_in_ours: str = r"(?!)") -> None:
    """Gives `theirs` the weights of `ours`.

    Args:
        ours: the model to copy from; every parameter must have a place in `theirs`.
        theirs: the model to copy to; every trainable parameter must be filled.
        names: the table.
        absent_in_ours: pattern of those of their parameters that have no counterpart, and become zero.
    """
    tensors = {name: parameter for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    for parameter in tensors.values():
        parameter.fill_(torch.nan)
    for name, parameter in ours.named_parameters():
        target = part_of(tensors, their_name(name, names))
        assert target.shape == parameter.shape, name
        assert target.isnan().all(), f"{name} is not the only one that maps to {their_name(name, names)}"
        target.copy_(parameter)
    for name, parameter in tensors.items():
        if parameter.isnan().any():
            assert re.search(absent_in_ours, name), f"{name} was not filled"
            parameter.zero_()


def paired_gradients(
    ours: nn.Module, theirs: nn.Module, names: Mapping[str, str]
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Our name, our gradient and theirs, for every parameter of ours; all must have one."""
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        yield name, parameter.grad, part_of(gradients, their_name(name, names))


def assert_near(actual: torch.Tensor, expected: torch.Tensor, tolerance: float, what: str) -> float:
    """Demands that no number differs by more than `tolerance`, or that share of the largest number if that exceeds 1.

    Returns:
        The largest difference, so measured.
    """
    assert actual.shape == expected.shape, f"{what}: {tuple(actual.shape)} against {tuple(expected.shape)}"
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype} against {expected.dtype}"
    assert expected.numel(), f"{what}: nothing to compare"
    expected = expected.detach()
    difference = ((actual.detach() - expected).abs().max() / expected.abs().max().clamp(min=1)).item()
    assert difference <= tolerance, f"{what}: differs by {difference:.2e}, more than {tolerance:.0e}"  # nan fails too
    return difference


def assert_keeps_generation_config(
    kind: str, theirs: Any, load: Callable[[Path], Any], inputs: Mapping[str, Any], pad: int, folder: Path
) -> None:
    """Has a decoder of transformers say in its `generation_config` what its config does not, converts it, and compares.

    Args:
        kind: what `convert` calls it.
        theirs: the model, which is changed.
        load: what reads its folder.
        inputs: of two rows.
        pad: for what follows the end.
        folder: free to write in.
    """
    search = {"max_new_tokens": 7, "pad_token_id": pad}
    freely = theirs.generate(**inputs, **search)
    ends = sorted({int(freely[0, -6]), int(freely[1, -5])})
    theirs.generation_config.update(eos_token_id=ends, repetition_penalty=1.5, pad_token_id=pad)
    theirs.save_pretrained(folder / "theirs")
    assert convert.main([kind, str(folder / "theirs"), "--output_dir", str(folder / "ours")]) == 0
    expected = theirs.generate(**inputs, **search)
    assert not torch.equal(expected, freely)
    for ours in (load(folder / "theirs"), AutoModelForCausalLM.from_pretrained(folder / "ours")):
        assert ours.generation_config.eos_token_id == ends
        assert torch.equal(ours.generate(**inputs, **search), expected)


def random_lengths(batch_size: int, longest: int, generator: torch.Generator) -> list[int]:
    """Between 1 and `longest`, which is among them."""
    return [longest, *torch.randint(1, longest + 1, (batch_size - 1,), generator=generator).tolist()]
