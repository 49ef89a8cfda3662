"""Random features beside softmax attention: how the error falls with their number, as Performer's paper draws it."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..attention_features import FEATURE_MAPS, RandomFeatures, orthogonal_directions
from ..configuration_vanilla_transformer import VanillaTransformerConfig
from .charts import DPI, new_chart
from .complexity import fitted_exponent, slope_of_logarithms

# Feature map, and whether its directions are orthogonal or drawn one by one.
KINDS = {
    "positive, orthogonal (FAVOR+)": ("random", True),
    "positive, independent": ("random", False),
    "cosine and sine, orthogonal": ("cosine_sine", True),
    "cosine and sine, independent": ("cosine_sine", False),
}
# The setting of Figure 4 of the paper (Choromanski et al., 2021).
LENGTH, WIDTH, SAMPLES = 4096, 16, 15


@dataclass(frozen=True)
class FeatureError:
    """The error of one kind of features at one number of them.

    Args:
        kind: key of `KINDS`.
        directions: m, random directions; cosine and sine have two features each.
        errors: the mean squared difference of outputs from softmax attention's, of each sample.
    """

    kind: str
    directions: int
    errors: list[float]

    @property
    def mean(self) -> float:
        """Mean of the errors."""
        return statistics.fmean(self.errors)

    @property
    def spread(self) -> float:
        """Standard deviation of the errors."""
        return statistics.stdev(self.errors) if len(self.errors) > 1 else 0.0


@dataclass(frozen=True)
class FeatureErrors:
    """All that was measured.

    Args:
        length: positions.
        width: d_k and d_v of the one head.
        size: mean square of softmax attention's outputs, beside which errors are large or small.
        cells: by kind and number.
    """

    length: int
    width: int
    size: float
    cells: list[FeatureError]

    def of(self, kind: str) -> list[FeatureError]:
        """Returns the cells of a kind, in the order of their numbers.

        Args:
            kind: key of `KINDS`.
        """
        return [cell for cell in self.cells if cell.kind == kind]

    def exponent(self, kind: str) -> float:
        """Fits errors to c · m^exponent by least squares of logarithms; -1 is predicted, the variance of a mean.

        Of three numbers and more, over their upper half: with few directions, a mean of cosines may come near zero in
        a divisor, and errors grow without bound.

        Args:
            kind: key of `KINDS`.
        """
        fit = fitted_exponent if len(self.numbers) > 2 else slope_of_logarithms
        return fit(self.numbers, [cell.mean for cell in self.of(kind)])

    @property
    def numbers(self) -> list[int]:
        """The numbers of directions, ascending."""
        return [cell.directions for cell in self.of(next(iter(KINDS)))]


def check_numbers(numbers: Sequence[int]) -> None:
    """Refuses numbers of directions to which no exponent can be fitted.

    Args:
        numbers: m, ascending; at least two.

    Raises:
        ValueError: a number is not allowed.
    """
    if len(numbers) < 2 or numbers[0] < 1 or list(numbers) != sorted(set(numbers)):
        given = " ".join(map(str, numbers))
        raise ValueError(f"`random_features` {given} are not allowed; allowed: two or more, ascending, of at least 1")


@torch.no_grad()
def measure_feature_errors(
    numbers: Sequence[int], length: int = LENGTH, width: int = WIDTH, samples: int = SAMPLES
) -> FeatureErrors:
    """Compares attention by random features with softmax attention, on random queries, keys and values.

    Values are from N(0, 1), queries and keys from N(0, d_k^(-1/2)), so that what random projections are taken of has a
    mean square length of 1: the variance of an estimate grows exponentially with it.

    Args:
        numbers: m, ascending; at least two.
        length: positions.
        width: d_k and d_v.
        samples: of inputs and of directions, new for each.

    Returns:
        The errors.

    Raises:
        ValueError: a number is not allowed.
    """
    check_numbers(numbers)
    errors: dict[tuple[str, int], list[float]] = {(kind, m): [] for kind in KINDS for m in numbers}
    sizes = []
    for seed in range(samples):
        generator = torch.Generator().manual_seed(seed)
        scales = (width**-0.25, width**-0.25, 1)
        query, key, value = (torch.randn(length, width, generator=generator) * scale for scale in scales)
        exact = torch.nn.functional.scaled_dot_product_attention(query[None], key[None], value[None])[0]
        sizes.append(float(exact.square().mean()))
        for kind, m in errors:
            features = _features(kind, m, width, seed, generator)
            keys = features(key, are_keys=True)
            queries = features(query, are_keys=False)
            denominators = (queries @ keys.sum(0)).clamp(min=features.least).unsqueeze(-1)
            estimate = queries @ (keys.t() @ value) / denominators
            errors[kind, m].append(float((estimate - exact).square().mean()))
    cells = [FeatureError(kind, m, found) for (kind, m), found in errors.items()]
    return FeatureErrors(length, width, statistics.fmean(sizes), cells)


def _features(kind: str, count: int, width: int, seed: int, generator: torch.Generator) -> RandomFeatures:
    name, is_orthogonal = KINDS[kind]
    config = VanillaTransformerConfig(
        vocab_size=4, d_model=width, num_heads=1, d_ff=1, attention="linear", feature_map=name,
        num_random_features=count, feature_seed=seed, position_encoding="none",
    )  # fmt: skip
    features = FEATURE_MAPS[name](config)
    assert isinstance(features, RandomFeatures)
    drawn = orthogonal_directions(count, width, seed)
    features.directions = drawn if is_orthogonal else torch.randn(count, width, generator=generator)
    return features


def write_feature_report(measured: FeatureErrors, folder: Path) -> None:
    """Writes `features.json`, `features.md` and `features.png`.

    Args:
        measured: what was measured.
        folder: to write in.
    """
    whole = {**asdict(measured), "exponents": {kind: measured.exponent(kind) for kind in KINDS}}
    (folder / "features.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    (folder / "features.md").write_text("\n".join(feature_lines(measured)) + "\n", encoding="utf-8")
    figure = new_chart(7, 5)
    axes = figure.subplots()
    for kind in KINDS:
        cells = measured.of(kind)
        axes.errorbar(
            [cell.directions for cell in cells], [cell.mean for cell in cells], [cell.spread for cell in cells],
            marker="o", capsize=3, label=f"{kind}: m^{measured.exponent(kind):.2f}",
        )  # fmt: skip
    axes.axhline(measured.size, color="grey", linestyle=":", label="mean square of softmax attention's outputs")
    axes.set(xscale="log", yscale="log", xlabel="random directions m", ylabel="mean squared error of the output")
    axes.set_xticks(measured.numbers, [str(number) for number in measured.numbers])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    figure.savefig(folder / "features.png", dpi=DPI)


def feature_lines(measured: FeatureErrors) -> list[str]:
    """Writes what was measured in Markdown.

    Args:
        measured: what was measured.

    Returns:
        The lines.
    """
    numbers = measured.numbers
    samples = len(measured.cells[0].errors)
    lines = [
        "# Random features beside softmax attention",
        "",
        f"Mean squared error of the output, mean ± standard deviation over {samples} samples of {measured.length} "
        f"positions of width d = {measured.width}, values from N(0, 1), queries and keys from N(0, d^-0.5). The mean "
        f"square of softmax attention's outputs is {measured.size:.2e}. The predicted exponent of m is -1; those "
        "measured are of the upper half of the numbers.",
        "",
        "| features | exponent of m | " + " | ".join(f"m = {number}" for number in numbers) + " |",
        "|---|---|" + "---|" * len(numbers),
    ]
    for kind in KINDS:
        cells = " | ".join(f"{cell.mean:.1e} ± {cell.spread:.0e}" for cell in measured.of(kind))
        lines.append(f"| {kind} | {measured.exponent(kind):.2f} | {cells} |")
    return lines
