"""The log as people read it: one aligned line, and a bar that says how long it will take."""

from typing import Any

from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..evaluation.scores import METRICS

# What a line shows, in this order: name in the log, name in the line, format.
_TRAINING = (
    ("loss", "loss", ".3f"),
    ("nll", "nll", ".3f"),
    ("perplexity", "ppl", ",.2f"),
    ("learning_rate", "lr", ".2e"),
    ("grad_norm", "grad", ".2f"),
    ("tokens_per_second", "tok/s", ",.0f"),
    ("padding", "padding", ".1%"),
)
_SCORES = (
    *(("loss", "nll", ".3f"), ("perplexity", "ppl", ",.2f")),
    *((name, title, ".2f") for name, title in METRICS.items()),
)


def log_line(logs: dict[str, Any], step: int) -> str | None:
    """Writes an entry of the log as one line.

    Args:
        logs: the entry.
        step: updates done.

    Returns:
        The line; None for entries that are neither training nor scores.
    """
    if "loss" in logs:
        what, shown = "", [(logs.get(name), label, form) for name, label, form in _TRAINING]
    elif prefix := next((prefix for prefix in ("eval", "final") if f"{prefix}_loss" in logs), None):
        what = "validation  " if prefix == "eval" else "final       "
        shown = [(logs.get(f"{prefix}_{name}"), label, form) for name, label, form in _SCORES]
    else:
        return None
    epoch = f"epoch {logs['epoch']:6.2f}  " if "epoch" in logs else ""
    numbers = "  ".join(f"{label} {value:{form}}" for value, label, form in shown if value is not None)
    return f"update {step:7,}  {epoch}{what}{numbers}"


class ProgressBar(ProgressCallback):
    """transformers' bar, with lines that can be read."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes a line above the bar."""
        line = log_line(logs or {}, state.global_step)
        if state.is_world_process_zero and line is not None:
            self.training_bar.write(line) if self.training_bar is not None else print(line)


class PlainLines(TrainerCallback):
    """The same lines without a bar, for logs that go to a file."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Prints a line."""
        line = log_line(logs or {}, state.global_step)
        if state.is_world_process_zero and line is not None:
            print(line, flush=True)
