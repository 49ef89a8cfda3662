"""What a run leaves to look at: its numbers as JSON, its curves as a picture, three lines to read."""

import json
import shlex
from pathlib import Path
from typing import Any

# The clock's part of the log: everything else is the same in two runs of one recipe.
CLOCK = {"tokens_per_second", "minutes", "eval_runtime", "final_runtime", "train_runtime"}
CLOCK |= {"train_samples_per_second", "train_steps_per_second"}


def write_results(
    output_dir: str | Path, arguments: dict[str, Any], metrics: dict[str, Any], history: list[dict[str, Any]]
) -> None:
    """Writes `results.json` and `curves.png`.

    Args:
        output_dir: folder of the run.
        arguments: what was given.
        metrics: what came of it.
        history: the log, one entry a line.
    """
    results = {"metrics": metrics, "arguments": arguments, "history": history}
    path = Path(output_dir) / "results.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    plot_curves(history, Path(output_dir) / "curves.png")


def plot_curves(history: list[dict[str, Any]], path: str | Path) -> None:
    """Draws the log of a run: losses, scores, and what the optimizer did, over updates.

    Args:
        history: the log, one entry a line.
        path: the picture, .png.
    """
    # Of all programs that import this package, few draw.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores, optimizer = figure.subplots(1, 3)
    _draw(losses, history, {"loss": "training, smoothed", "nll": "training", "eval_loss": "validation"})
    losses.set(title="nats a token", xlabel="updates")
    _draw(scores, history, {"eval_bleu": "BLEU", "eval_chrf": "chrF"})
    scores.set(title="validation scores", xlabel="updates")
    _draw(optimizer, history, {"learning_rate": "learning rate", "grad_norm": "norm of the gradient"})
    optimizer.set(title="optimizer", xlabel="updates", yscale="log")
    figure.savefig(path, dpi=110)


def summary_lines(metrics: dict[str, Any], output_dir: str) -> list[str]:
    """Says in three lines what a run did, what came of it, and how to try it.

    Args:
        metrics: as in `results.json`.
        output_dir: folder of the run.

    Returns:
        The lines.
    """
    minutes = metrics["train_runtime"] / 60
    lines = [
        f"Trained {metrics['parameters']:,} parameters for {metrics['updates']:,} updates in {minutes:.1f} min"
        + (f", {metrics['tokens_per_second']:,.0f} target tokens a second" if "tokens_per_second" in metrics else "")
        + (f", {metrics['padding']:.1%} padding." if "padding" in metrics else ".")
    ]
    if "final_loss" in metrics:
        line = f"Validation ({metrics['final_weights']}): {metrics['final_loss']:.3f} nats a token, "
        line += f"perplexity {metrics['final_perplexity']:.2f}"
        if "final_bleu" in metrics:
            line += f", BLEU {metrics['final_bleu']:.2f} ({metrics['signatures']['bleu']})"
            line += f", chrF {metrics['final_chrf']:.2f}"
        lines.append(line + ".")
    else:
        lines.append("No validation text, no scores: give validation_data.")
    return [*lines, f'Try it: vanilla-transformer translate --model {shlex.quote(output_dir)} "..."']


def _draw(axes: Any, history: list[dict[str, Any]], names: dict[str, str]) -> None:
    for name, label in names.items():
        points = [(entry["step"], entry[name]) for entry in history if name in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 60 else None)
    if axes.lines:
        axes.legend()
    axes.grid(alpha=0.3)
