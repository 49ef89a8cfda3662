"""Gradient checkpoints by the name that the installed transformers has for them: up to 5.22 it says "gradient"."""

from dataclasses import fields
from typing import Any

from transformers import PreTrainedModel, TrainingArguments

_KIND = "activation" if hasattr(PreTrainedModel, "activation_checkpointing_enable") else "gradient"


def enable(model: PreTrainedModel, every_n_layers: int = 1, **kwargs: Any) -> None:
    """Runs every n-th layer once more in the backward pass; `kwargs` are for torch's function."""
    getattr(model, f"{_KIND}_checkpointing_enable")(kwargs or None, every_n_layers=every_n_layers)


def disable(model: PreTrainedModel) -> None:
    """Runs each layer once again."""
    getattr(model, f"{_KIND}_checkpointing_disable")()


def is_enabled(model: PreTrainedModel) -> bool:
    """Whether any layer is run once more."""
    return getattr(model, f"is_{_KIND}_checkpointing")


def trainer_options(**kwargs: Any) -> dict[str, Any]:
    """What tells transformers' Trainer to do so."""
    kind = "activation" if "activation_checkpointing" in {f.name for f in fields(TrainingArguments)} else "gradient"
    return {f"{kind}_checkpointing": True, f"{kind}_checkpointing_kwargs": kwargs}
