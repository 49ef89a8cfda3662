"""The vanishing gradient, measured: what reaches the first position of a sequence, by its length."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..encoder import Encoder
from .charts import check_ending, new_chart, save_chart
from .planning import format_table
from .recurrent_configuration import RecurrentConfig
from .recurrent_stacks import RecurrentEncoder, with_forget_bias

LENGTHS = (2, 4, 8, 16, 32, 64, 128)
_HEADS = 4
# Sequences whose gradients are measured at a time.
_SEQUENCES = 8


@dataclass(frozen=True)
class Kind:
    """A network that reads a sequence, as it is before training.

    Args:
        claim: what the texts say of its gradient.
        build: makes one of a given width, one layer, without dropout, reading from left to right where it can.
    """

    claim: str
    build: Callable[[int], nn.Module]


def _recurrent(cell: Any, forget_bias: float | None = None) -> Callable[[int], nn.Module]:
    def build(width: int) -> nn.Module:
        config = RecurrentConfig(vocab_size=4, d_model=width, num_layers=1, cell=cell, bidirectional=False, dropout=0.0)
        encoder = RecurrentEncoder(config)
        if forget_bias is not None:
            layer: Any = encoder.layers[0]
            with torch.no_grad():
                layer.bias_ih_l0.copy_(with_forget_bias(layer.bias_ih_l0, forget_bias))
                layer.bias_hh_l0.copy_(with_forget_bias(layer.bias_hh_l0, 0.0))
        return encoder  # otherwise as torch initialises it

    return build


def _transformer(width: int) -> nn.Module:
    config = VanillaTransformerConfig(
        vocab_size=4, d_model=width, num_heads=_HEADS, d_ff=4 * width, num_encoder_layers=1, dropout=0.0
    )
    return Encoder(config)


KINDS = {
    "RNN": Kind("vanishes exponentially", _recurrent("rnn")),
    "GRU": Kind("kept by the gates", _recurrent("gru")),
    "LSTM": Kind("kept by the cell", _recurrent("lstm")),
    "LSTM, forget bias 1": Kind("kept longer (Gers et al. 2000)", _recurrent("lstm", 1.0)),
    "LSTM, forget bias 5": Kind("the same, further", _recurrent("lstm", 5.0)),
    "Transformer": Kind("one step at any distance", _transformer),
}


@dataclass(frozen=True)
class GradientNorms:
    """What was measured of one kind of network.

    Args:
        name: of the kind.
        claim: what the texts say of it.
        ratios: by length, the norm of the gradient at the first position over that at the last.
    """

    name: str
    claim: str
    ratios: dict[int, float]

    @property
    def factor_per_position(self) -> float:
        """By what the ratio is multiplied for each position more, between the two greatest lengths."""
        (shorter, before), (longer, after) = sorted(self.ratios.items())[-2:]
        return float((after / before) ** (1 / (longer - shorter)))


def gradient_norms(
    module: nn.Module, width: int, length: int, generator: torch.Generator, sequences: int = _SEQUENCES
) -> torch.Tensor:
    """Measures how much each position of a sequence changes the output at the last one.

    Inputs are standard normal; what is differentiated is a random direction of the output at the last position.

    Args:
        module: takes `inputs_embeds` (B, S, D) and returns an output with `last_hidden_state` (B, S, D).
        width: D.
        length: S.
        generator: of the random numbers.
        sequences: B.

    Returns:
        (B, S) norms of the gradient, in the precision of the module.
    """
    dtype = next(module.parameters()).dtype
    inputs = torch.randn(sequences, length, width, generator=generator, dtype=dtype).requires_grad_()
    directions = torch.randn(sequences, width, generator=generator, dtype=dtype)
    outputs = module(inputs_embeds=inputs).last_hidden_state[:, -1]
    (gradient,) = torch.autograd.grad((outputs * directions).sum(), inputs)
    return gradient.norm(dim=-1)


def measure_gradients(
    lengths: Sequence[int] = LENGTHS, width: int = 64, seeds: int = 5, names: Sequence[str] = tuple(KINDS)
) -> list[GradientNorms]:
    """Measures the gradient that reaches the first position, in networks with random initial weights.

    It is divided by that at the last position, so that how large a network makes its outputs plays no part. Everything
    is computed in float64, because float32 ends at 1e-45.

    Args:
        lengths: positions of a sequence, at least two different ones of at least 2.
        width: d_model, a multiple of 4.
        seeds: how many networks of each kind; the mean over them and over sequences is the geometric one.
        names: which kinds, of `KINDS`.

    Returns:
        One result for each kind.

    Raises:
        ValueError: an argument is out of its range.
    """
    if len(set(lengths)) < 2 or min(lengths) < 2:
        raise ValueError(f"lengths {' '.join(map(str, lengths))} are not two or more different numbers of at least 2")
    if seeds < 1 or width < 1 or width % _HEADS:
        raise ValueError(f"seeds={seeds} is less than 1, or d_model={width} is no multiple of {_HEADS}")
    if unknown := [name for name in names if name not in KINDS]:
        raise ValueError(f"there is no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    found = []
    for name in names:
        logs: dict[int, list[float]] = {length: [] for length in sorted(set(lengths))}
        for seed in range(seeds):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                module = KINDS[name].build(width).double().eval()
            for length, own in logs.items():
                norms = gradient_norms(module, width, length, torch.Generator().manual_seed(seed))
                own += (norms[:, 0] / norms[:, -1]).log().tolist()
        ratios = {length: math.exp(statistics.fmean(own)) for length, own in logs.items()}
        found.append(GradientNorms(name, KINDS[name].claim, ratios))
    return found


def gradients_table(found: Sequence[GradientNorms]) -> str:
    """Writes what was measured beside what the texts claim.

    Args:
        found: as `measure_gradients` returns it.

    Returns:
        A table of Markdown.
    """
    lengths = list(found[0].ratios)
    header = ["Gradient at the first position / at the last", *(f"{length} positions" for length in lengths)]
    rows = [
        [
            each.name,
            *(f"{each.ratios[length]:.2g}" for length in lengths),
            f"x {each.factor_per_position:.3f}",
            each.claim,
        ]
        for each in found
    ]
    return "\n".join(format_table([*header, "for each position more", "The texts claim"], *rows))


def plot_gradients(found: Sequence[GradientNorms], path: str | Path) -> None:
    """Draws what was measured over the length, on logarithmic axes.

    Args:
        found: as `measure_gradients` returns it.
        path: the picture, .png or .svg; it appears whole or not at all.

    Raises:
        ValueError: matplotlib is not installed, or the name has another ending.
        OSError: it cannot be written.
    """
    check_ending(path)
    figure = new_chart(8, 5)
    axes = figure.subplots()
    for each in found:
        axes.plot(list(each.ratios), list(each.ratios.values()), marker="o", label=f"{each.name}: {each.claim}")
    axes.set(xscale="log", yscale="log", xlabel="positions", ylabel="gradient at the first / at the last position")
    axes.set_title("What reaches the first position, before training; the claims of the texts in the legend")
    axes.set_ylim(bottom=max(axes.get_ylim()[0], 1e-40))
    axes.grid(alpha=0.3)
    axes.legend()
    save_chart(figure, path)
