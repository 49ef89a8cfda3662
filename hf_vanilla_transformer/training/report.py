"""What a run leaves to look at: its numbers as JSON, its curves as a picture, three lines to read."""

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..evaluation.scores import METRICS
from ..inference import open_output
from .objectives import LEARNERS

logger = logging.get_logger(__name__)

# The clock's part of the log: everything else is the same in two runs of one recipe.
CLOCK = {"tokens_per_second", "minutes", "training_minutes", "eval_runtime", "final_runtime", "train_runtime"}
CLOCK |= {"train_samples_per_second", "train_steps_per_second"}
# Whatever has a name that ends like this is a secret, such as the argument hub_token. (`new_tokens` does not.)
_SECRET = re.compile(r"(token|password|secret|key)$", re.IGNORECASE)


def write_results(
    output_dir: str | Path,
    arguments: dict[str, Any],
    metrics: dict[str, Any],
    history: list[dict[str, Any]],
    environment: dict[str, Any] | None = None,
) -> None:
    """Writes `results.json`; and `curves.png`, if matplotlib is installed.

    Args:
        output_dir: folder of the run.
        arguments: what was given; tokens, passwords and the like are left out.
        metrics: what came of it.
        history: the log, one entry a line.
        environment: what it was computed on, as `describe_environment` describes it.
    """
    results = {"metrics": metrics, "arguments": without_secrets(arguments), "history": history}
    if environment is not None:
        results["environment"] = environment
    path = Path(output_dir) / "results.json"
    with open_output(path) as file:
        file.write(json.dumps(results, indent=1) + "\n")
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning("curves.png is not drawn: matplotlib is not installed (pip install matplotlib)")
    else:
        plot_curves(history, Path(output_dir) / "curves.png", arguments.get("objective", "translation"))


def plot_curves(history: list[dict[str, Any]], path: str | Path, objective: str = "translation") -> None:
    """Draws the log of a run: losses, scores, and what the optimizer did, over updates.

    Args:
        history: the log, one entry a line.
        path: the picture, .png.
        objective: of the run, which says what a loss is per.
    """
    # Of all programs that import this package, few draw.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores, optimizer = figure.subplots(1, 3)
    _draw(losses, history, {"loss": "training, smoothed", "nll": "training", "eval_loss": "validation"})
    losses.set(title=f"nats per {LEARNERS[objective].unit}", xlabel="updates")
    _draw(scores, history, {f"eval_{name}": title for name, title in METRICS.items()})
    scores.set(title="validation scores", xlabel="updates")
    _draw(optimizer, history, {"learning_rate": "learning rate", "grad_norm": "norm of the gradient"})
    optimizer.set(title="optimizer", xlabel="updates", yscale="log")
    figure.savefig(path, dpi=110)


def summary_lines(
    metrics: dict[str, Any], output_dir: str, objective: str = "translation", tag: str | None = None
) -> list[str]:
    """Says in three lines what a run did, what came of it, and what to do next.

    Args:
        metrics: as in `results.json`.
        output_dir: folder of the run.
        objective: of the run; a model that has learned another one than translation does not translate yet.
        tag: one that stands in front of sources; None for none.

    Returns:
        The lines.
    """
    learner = LEARNERS[objective]
    minutes, learned = metrics["minutes"], metrics["learned_parameters"]
    share = "" if learned == metrics["parameters"] else f" of {metrics['parameters']:,}"
    lines = [
        f"Trained {learned:,}{share} parameters for {metrics['updates']:,} updates in {minutes:.1f} min"
        + (
            f", {metrics['tokens_per_second']:,.0f} {learner.counted} per second"
            if "tokens_per_second" in metrics
            else ""
        )
        + (f", {metrics['padding']:.1%} padding." if "padding" in metrics else ".")
    ]
    if "final_loss" in metrics:
        line = f"Validation ({metrics['final_weights']}): {metrics['final_loss']:.3f} nats per {learner.unit}, "
        line += f"perplexity {metrics['final_perplexity']:.2f}"
        found = [name for name in METRICS if f"final_{name}" in metrics]
        for name in found:
            line += f", {METRICS[name]} {metrics[f'final_{name}']:.2f}"
            line += f" ({metrics['signatures'][name]})" if name == found[0] else ""
        lines.append(line + ".")
    else:
        lines.append("No validation text, no scores: give validation_data.")
    folder = shlex.quote(output_dir)
    if objective != "translation":
        begin = f"finetune --model_name_or_path {folder}"
        if not learner.has_two_stacks:  # one of two parts of a translation model, of the same preset
            begin = f"pretrain --init_{'en' if objective == 'masked_lm' else 'de'}coder_from {folder}"
        there = shlex.quote(output_dir.rstrip("/") + "-finetuned")
        return [*lines, f"Go on: vanilla-transformer {begin} --train_data PAIRS --output_dir {there}"]
    option = "" if tag is None else f" --tag {shlex.quote(tag)}"
    return [*lines, f'Try it: vanilla-transformer translate --model {folder}{option} "..."']


def without_secrets(value: Any) -> Any:
    """Leaves out what nobody else should read, at any depth: results travel with a model.

    Args:
        value: what JSON can hold.

    Returns:
        The same without the values whose names are those of tokens, passwords, secrets and keys.
    """
    if isinstance(value, dict):
        return {name: without_secrets(each) for name, each in value.items() if not _SECRET.search(name)}
    return [without_secrets(each) for each in value] if isinstance(value, list) else value


def _draw(axes: Any, history: list[dict[str, Any]], names: dict[str, str]) -> None:
    for name, label in names.items():
        points = [(entry["step"], entry[name]) for entry in history if name in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 60 else None)
    if axes.lines:
        axes.legend()
    axes.grid(alpha=0.3)
