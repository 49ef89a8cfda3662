"""What one run takes, of a recipe or of a preset: work, memory of a device, and time on a device of one's choice."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..configuration_variants import require_tokens
from ..data.batching import Batching
from ..training import VanillaTransformerTrainingArguments, read_recipe
from ..training.config_overrides import parse_overrides
from ..training.model_setup import model_class
from .planning import (
    PEAK_FLOPS,
    SMALLEST_WIDTH,
    activation_bytes,
    count_parameters,
    flops_of_tokens,
    format_duration,
    format_table,
    loss_bytes,
    seconds_of_flops_on_two_cores,
    seconds_on_gpus,
    state_bytes,
)

# What `gpu` may be besides a GPU: the two cores that scripts/BENCHMARKS.md measures on.
CPU = "cpu"


@dataclass(frozen=True)
class RunPlan:
    """A run to be planned.

    Args:
        name: what to call it.
        config: shape of its model.
        max_tokens: source tokens, and target tokens, of a batch on one device.
        accumulation: batches of a device in an update.
        updates: of the weights; None where the run is measured in epochs of text that nobody has counted.
        bf16: whether GPUs compute products in bfloat16.
        batching: which pairs stand together in a batch; those of random lengths leave more of its tokens to padding.
    """

    name: str
    config: VanillaTransformerConfig
    max_tokens: int
    accumulation: int = 1
    updates: int | None = None
    bf16: bool = True
    batching: Batching = "length"

    def flops_of_update(self, count: int) -> float:
        """Operations of an update on so many devices together."""
        return flops_of_tokens(self.config, self.max_tokens * self.accumulation * count)

    def memory(self, bf16: bool) -> dict[str, int]:
        """Bytes on a device, by what they hold."""
        return {
            "weights, gradients, Adam": state_bytes(self.config, bf16),
            "kept for backward": activation_bytes(self.config, self.max_tokens, self.max_tokens, bf16),
            "loss": loss_bytes(self.config, self.max_tokens, bf16),
        }


def plan_run(recipe: str | None, given: Mapping[str, Any]) -> RunPlan:
    """Reads what a run is to be.

    Args:
        recipe: name or file of a recipe; None for the defaults of a run.
        given: arguments of a run that override it: preset, config_overrides, vocab_size, max_tokens,
            gradient_accumulation_steps, max_steps.

    Returns:
        The run.

    Raises:
        FileNotFoundError: there is no such recipe.
        ValueError: recipe, preset, class or overrides are not usable, or a number is less than 1.
    """
    values: dict[str, Any] = {field.name: field.default for field in fields(VanillaTransformerTrainingArguments)}
    values |= {"config_overrides": [], "bf16": recipe is None} | (read_recipe(recipe) if recipe else {}) | dict(given)
    for name in ("max_tokens", "gradient_accumulation_steps", "vocab_size"):
        if values[name] < 1:
            raise ValueError(f"{name}={values[name]} is less than 1")
    if values["batching"] not in get_args(Batching):
        raise ValueError(f"batching={values['batching']!r} is none of {', '.join(get_args(Batching))}")
    config_class = model_class(values["model_class"], values["objective"]).config_class
    if not issubclass(config_class, VanillaTransformerConfig):
        raise ValueError(f"model_class={values['model_class']} is no Transformer, and only their work can be planned")
    overrides = {"vocab_size": values["vocab_size"], **parse_overrides(values["config_overrides"], config_class)}
    config = config_class.from_preset(values["preset"], **overrides)
    require_tokens(config, "planning a run on text")
    return RunPlan(
        recipe or values["preset"],
        config,
        values["max_tokens"],
        values["gradient_accumulation_steps"],
        values["max_steps"] if values["max_steps"] > 0 else None,
        values["bf16"],
        values["batching"],
    )


def run_table(run: RunPlan, gpu: str | None = None, count: int = 1) -> str:
    """Plans a run on a device, or on one of each.

    Args:
        run: what is planned.
        gpu: a key of `PEAK_FLOPS`, or `CPU` for two cores; None for all of them.
        count: how many of them; each has `run.max_tokens` of its own.

    Returns:
        Markdown: a row for each number.

    Raises:
        ValueError: there is no such device, or not so many.
    """
    if gpu not in (None, CPU, *PEAK_FLOPS):
        raise ValueError(f"gpu={gpu!r} is none of {', '.join(PEAK_FLOPS)}, {CPU}")
    if count < 1 or (gpu == CPU and count > 1):
        raise ValueError(f"count={count} is not possible: give 1 or more GPUs, or 1 cpu")
    tokens = run.max_tokens * run.accumulation * count
    rows = [
        [run.name, "Value"],
        ["parameters", f"{count_parameters(run.config) / 1e6:,.1f}M"],
        ["devices", str(count)],
        ["tokens per side and update", f"{tokens:,}"],
        ["pairs of a batch", "random, of any length" if run.batching == "random" else "of similar length"],
        ["updates", f"{run.updates:,}" if run.updates else "not known; give max_steps"],
    ]
    if run.updates:
        rows.append(["tokens per side, in all", f"{run.updates * tokens:.2g}"])
        rows.append(["FLOPs", f"{run.updates * run.flops_of_update(count):.2g}"])
    else:
        rows.append(["FLOPs per update", f"{run.flops_of_update(count):.2g}"])
    bf16 = run.bf16 and gpu != CPU
    memory = run.memory(bf16)
    for what, size in (memory | {"together": sum(memory.values())}).items():
        rows.append([f"GB per device, {'bf16' if bf16 else 'fp32'}: {what}", f"{size / 1e9:,.2f}"])
    for device in [gpu] if gpu else [*PEAK_FLOPS, *([CPU] if count == 1 else [])]:
        rows.append(_time(run, device, count))
    return "\n".join(format_table(*rows))


def _time(run: RunPlan, device: str, count: int) -> list[str]:
    work, unit = run.flops_of_update(count) * (run.updates or 1), "" if run.updates else " per update"
    if device == CPU:
        return [f"time on two cores, fp32{unit}", format_duration(seconds_of_flops_on_two_cores(work, run.config))]
    title = f"time on {count} {device}, bf16{unit}"
    if run.config.d_model < SMALLEST_WIDTH:
        return [title, f"no estimate: a GPU is not filled by d_model below {SMALLEST_WIDTH}"]
    return [title, format_duration(seconds_on_gpus(work, device, count))]
